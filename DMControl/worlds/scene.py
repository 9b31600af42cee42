"""The worlds. Each changes the picture of the camera, but not the physics.

A world depends on (seed, stream, episode) and the number of steps alone, so a restored environment shows the same pixels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import cv2
import numpy as np

from .camera import Camera
from .textures import GRID, SKY, Textures

GREEN = (0.2, 0.8, 0.2)
HUE, SATURATION, VALUE = (100, 185), 80, 70  # of the chroma key: range in degrees, minimum of 255, minimum of 255


class Moving(Protocol):
    """A video."""

    def __len__(self) -> int: ...

    def frame(self, i: int) -> np.ndarray: ...  # (H, W, 3) uint8


class World:
    """The clean world. The others override some of its methods."""

    def bind(self, physics: Any) -> None:
        """Called once, before the first episode."""
        self.physics = physics

    def start(self, rng: np.random.Generator, episode: int) -> None:
        """Called when an episode begins."""

    def tick(self) -> None:
        """Called after each step of the simulator."""

    def step(self) -> None:
        """Called after each step of the agent."""

    @contextmanager
    def dressed(self) -> Iterator[None]:
        """Surrounds the rendering of a frame."""
        yield

    def paint(self, frame: np.ndarray) -> np.ndarray:
        """Takes a rendered frame (H, W, 3) and returns what the agent sees."""
        return frame


class Colour(World):
    """Agent, floor and sky in colours drawn anew for each episode."""

    def __init__(self, settings: list[dict[str, np.ndarray]]) -> None:
        self.settings = settings

    def bind(self, physics: Any) -> None:
        super().bind(physics)
        self.textures = Textures(physics)

    def start(self, rng: np.random.Generator, episode: int) -> None:
        chosen = self.settings[rng.integers(len(self.settings))]
        self.textures.sky(chosen["sky"])
        self.textures.grid(chosen["grid1"], chosen["grid2"])
        self.physics.named.model.mat_rgba["self", :3] = chosen["self"]

    @contextmanager
    def dressed(self) -> Iterator[None]:
        self.textures.upload()
        yield


class Video(World):
    """A video in place of the sky, or of sky and floor: they are painted green, and green pixels show one frame per agent step."""

    def __init__(self, videos: Sequence[Moving], floor: bool) -> None:
        self.videos, self.floor = videos, floor
        self.video, self.shown = videos[0], 0

    def bind(self, physics: Any) -> None:
        super().bind(physics)
        self.textures = Textures(physics)
        self.textures.flood(SKY, GREEN)
        if self.floor:
            self.textures.flood(GRID, GREEN)

    def start(self, rng: np.random.Generator, episode: int) -> None:
        self.video, self.shown = self.videos[(episode + 1) % len(self.videos)], 0

    def step(self) -> None:
        self.shown += 1

    @contextmanager
    def dressed(self) -> Iterator[None]:
        self.textures.upload()
        yield

    def paint(self, frame: np.ndarray) -> np.ndarray:
        picture = self.video.frame(self.shown % len(self.video))
        height, width = frame.shape[:2]
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.where(is_green(frame)[..., None], picture, frame)


def is_green(frame: np.ndarray) -> np.ndarray:
    """The pixels of (H, W, 3) uint8 that the chroma key replaces, by hue, saturation and value, in exact integer arithmetic."""
    red, green, blue = (frame[..., c].astype(np.int32) for c in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    spread = high - np.minimum(np.minimum(red, green), blue)
    # hue = 60 * (sector + difference / spread); only sectors of green (120 + ...) and blue (240 + ...) reach 100..185
    from_green = 120 * spread + 60 * (blue - red)
    from_blue = 240 * spread + 60 * (red - green)
    hue = np.where((green == high) & (red < high), from_green, np.where(blue == high, from_blue, -1))
    hue = np.where(red == high, 60 * (green - blue), hue)  # at most 60 degrees, so outside the range
    in_hue = (hue >= HUE[0] * spread) & (hue <= HUE[1] * spread) & (spread > 0)
    return in_hue & (255 * spread >= SATURATION * high) & (high >= VALUE)


class Distraction(World):
    """The Distracting Control Suite: a video on the sky, changing material colours, and a moving camera."""

    EVERY = 2  # steps of the simulator

    def __init__(self, videos: Sequence[Moving], intensity: float) -> None:
        self.videos, self.intensity = videos, intensity

    def bind(self, physics: Any) -> None:
        super().bind(physics)
        self.textures = Textures(physics)
        side = 800 if getattr(self.videos[0], "path", None) else 256  # 800 for footage, as published; procedural clips have 128 pixels
        sky = self.textures.number[SKY]
        physics.model.tex_width[sky] = physics.model.tex_height[sky] = side  # one picture for all faces
        self.side = side
        colours, s = physics.model.mat_rgba[:, :3], self.intensity
        self.low, self.high = (colours - s).clip(0, 1), (colours + s).clip(0, 1)
        name = physics.model.name.lower()
        alphas = {"reacher": 0.0, "walker": 1.0, "cheetah": 1.0}
        physics.named.model.mat_rgba["grid", "a"] = next((a for k, a in alphas.items() if k in name), 0.3)
        self.camera = Camera(self.intensity, upper_only="reacher" not in name)

    def start(self, rng: np.random.Generator, episode: int) -> None:
        self.rng, self.ticks = rng, 0
        self.video = self.videos[rng.integers(len(self.videos))]
        self.shown = int(rng.integers(len(self.video)))
        self.direction = int(rng.choice((-1, 1)))
        self.now = rng.uniform(self.low, self.high)
        self.camera.start(self.physics, rng)
        self.show()

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks % self.EVERY:
            return
        if not 0 <= self.shown + self.direction < len(self.video):
            self.direction = -self.direction
        self.shown = min(max(self.shown + self.direction, 0), len(self.video) - 1)
        self.now = (self.now + self.rng.normal(0, 0.03 * self.intensity, self.now.shape)).clip(self.low, self.high)
        self.camera.move(self.rng)
        self.fresh = False

    def show(self) -> None:
        """Write the video's frame and the colours into the model."""
        picture = cv2.resize(self.video.frame(self.shown), (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        self.textures.pixels(SKY)[:] = picture
        self.textures.stale.add(SKY)
        self.physics.model.mat_rgba[:, :3] = self.now
        self.fresh = True

    @contextmanager
    def dressed(self) -> Iterator[None]:
        if not self.fresh:
            self.show()
        self.textures.upload()
        data = self.physics.data
        own = data.cam_xpos[0].copy(), data.cam_xmat[0].copy()
        data.cam_xpos[0], data.cam_xmat[0] = self.camera.pose(self.physics)
        try:
            yield
        finally:
            data.cam_xpos[0], data.cam_xmat[0] = own
