"""How a world changes what the camera sees: textures and materials rewritten in place, a chroma key, a camera that moves.

A world's choices in episode n come from (seed, stream, n), and its course from the steps since the reset, so an environment that
is restored shows the same pixels again. Nothing that the physics reads is touched.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import cv2
import mujoco
import numpy as np

from ..core.errors import UserError

SKY, GRID = "skybox", "grid"  # textures of the suite; the second is that of the material of this name
GREEN = (0.2, 0.8, 0.2)
HUE, SATURATION, VALUE = (100, 185), (80, 255), (70, 255)  # the key's range: degrees, of 255, of 255


class Moving(Protocol):
    """A video."""

    def __len__(self) -> int: ...

    def frame(self, i: int) -> np.ndarray: ...  # (H, W, 3) uint8


class World:
    """What a world may do; this one does nothing."""

    def bind(self, physics: Any) -> None:
        """Once, before the first episode."""
        self.physics = physics

    def start(self, rng: np.random.Generator, episode: int) -> None:
        """An episode begins."""

    def tick(self) -> None:
        """A step of the simulator has been made."""

    def step(self) -> None:
        """A step of the agent has been made."""

    @contextmanager
    def dressed(self) -> Iterator[None]:
        """While the camera looks."""
        yield

    def paint(self, frame: np.ndarray) -> np.ndarray:
        """What becomes of a rendered frame (H, W, 3)."""
        return frame


class Textures:
    """The suite's sky and floor, written in place and sent to the renderer when the camera looks next."""

    def __init__(self, physics: Any) -> None:
        self.physics, self.model = physics, physics.model
        self.stale: set[str] = set()
        self.number = self.find()
        data = self.pixels(SKY)
        self.stars = (data == 255).all(-1)
        edge = np.zeros(self.pixels(GRID).shape[:2], bool)
        edge[[0, -1]] = edge[:, [0, -1]] = True
        first = (self.pixels(GRID) == self.pixels(GRID)[1, 1]).all(-1)
        self.first, self.second = first & ~edge, ~first & ~edge

    def find(self) -> dict[str, int]:
        """Which textures sky and floor are: the suite's domains do not agree on their order."""
        m = self.model
        skies = np.flatnonzero(m.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
        materials = {m.id2name(i, "material"): i for i in range(m.nmat)}
        if not len(skies) or not {"self", "grid"} <= materials.keys() or (floor := m.mat_texid[materials["grid"]].max()) < 0:
            raise UserError(f"the task's model ({m.name}) has not the suite's sky, floor and colours: only world=clean fits it")
        return {SKY: int(skies[0]), GRID: int(floor)}

    def pixels(self, texture: str) -> np.ndarray:
        m, number = self.model, self.number[texture]
        height, width, start = int(m.tex_height[number]), int(m.tex_width[number]), int(m.tex_adr[number])
        return m.tex_data[start : start + height * width * 3].reshape(height, width, 3)

    def sky(self, upper: Sequence[float]) -> None:
        """The suite's gradient from another colour down to black, with its stars: to the byte what a reload would give."""
        data, side = self.pixels(SKY), int(self.model.tex_width[self.number[SKY]])
        share = sky_gradient(side)
        for channel in range(3):
            faces = as_bytes(share * upper[channel])
            for place, face in enumerate((0, 0, 1, 2, 0, 0)):
                data[place * side : (place + 1) * side, :, channel] = faces[face]
        data[self.stars] = 255
        self.stale.add(SKY)

    def flood(self, texture: str, colour: Sequence[float]) -> None:
        """One colour everywhere."""
        self.pixels(texture)[:] = as_bytes(np.array(colour))
        self.stale.add(texture)

    def grid(self, one: Sequence[float], two: Sequence[float]) -> None:
        """The two colours of the floor; its edges keep theirs."""
        data = self.pixels(GRID)
        for where, colour in ((self.first, one), (self.second, two)):
            data[where] = as_bytes(np.array(colour))
        self.stale.add(GRID)

    def upload(self) -> None:
        """What has changed, into the renderer's memory. A renderer that begins anew reads the model, changes and all."""
        contexts = self.physics.contexts
        with contexts.gl.make_current() as context:
            for texture in sorted(self.stale):
                context.call(mujoco.mjr_uploadTexture, self.model.ptr, contexts.mujoco.ptr, self.number[texture])
        self.stale.clear()


def as_bytes(colour: np.ndarray) -> np.ndarray:
    return (255 * colour).astype(np.uint8)


@lru_cache(maxsize=1)
def sky_gradient(side: int) -> np.ndarray:
    """The share of a sky's upper colour, by the elevation of each pixel of MuJoCo's cube: (3, side, side), sides, above, below."""
    line = 2.0 * np.arange(side) / (side - 1) - 1
    far = np.sqrt(1 + line[None] ** 2 + line[:, None] ** 2)
    around = np.arcsin(-line[:, None] / far) / (0.5 * np.pi)
    above = 1 - np.arccos(1 / far) / (0.5 * np.pi)
    elevation = np.stack([around, above, -above])
    return (0.5 * (1 + elevation / np.sqrt(1 + elevation**2) * np.sqrt(2))).clip(0, 1)


class Colour(World):
    """Each episode one of the settings: agent, floor and sky."""

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
    """Sky, or sky and floor, painted green once; green pixels show the episode's video, one frame per agent step."""

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
    """Which pixels of (H, W, 3) uint8 the key takes: hue, saturation and value all in range, in whole numbers throughout."""
    red, green, blue = (frame[..., c].astype(np.int32) for c in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    spread = high - np.minimum(np.minimum(red, green), blue)
    # hue = 60 * (sector + difference / spread); only sectors of green (120 + ...) and blue (240 + ...) reach 100..185
    from_green = 120 * spread + 60 * (blue - red)
    from_blue = 240 * spread + 60 * (red - green)
    hue = np.where((green == high) & (red < high), from_green, np.where(blue == high, from_blue, -1))
    hue = np.where(red == high, 60 * (green - blue), hue)  # at most 60 degrees: never taken
    in_hue = (hue >= HUE[0] * spread) & (hue <= HUE[1] * spread) & (spread > 0)
    return in_hue & (255 * spread >= SATURATION[0] * high) & (high >= VALUE[0])


class Distraction(World):
    """A video on the sky, material colours that wander, a camera that moves around the agent; all every second simulator step."""

    EVERY = 2

    def __init__(self, videos: Sequence[Moving], intensity: float) -> None:
        self.videos, self.intensity = videos, intensity

    def bind(self, physics: Any) -> None:
        super().bind(physics)
        self.textures = Textures(physics)
        side = 800 if getattr(self.videos[0], "path", None) else 256  # footage as published; drawn clips have 128 pixels
        sky = self.textures.number[SKY]
        physics.model.tex_width[sky] = physics.model.tex_height[sky] = side  # one picture for all faces
        self.side = side
        self.colours = physics.model.mat_rgba[:, :3].copy()
        name = physics.model.name.lower()
        alphas = {"reacher": 0.0, "walker": 1.0, "cheetah": 1.0}
        physics.named.model.mat_rgba["grid", "a"] = next((a for k, a in alphas.items() if k in name), 0.3)
        self.camera = Camera(self.intensity, upper_only="reacher" not in name)

    def start(self, rng: np.random.Generator, episode: int) -> None:
        self.rng, self.ticks = rng, 0
        self.video = self.videos[rng.integers(len(self.videos))]
        self.place = int(rng.integers(len(self.video)))
        self.direction = int(rng.choice((-1, 1)))
        s = self.intensity
        self.now = (self.colours + rng.uniform(-s, s, self.colours.shape)).clip(0, 1)
        self.camera.start(self.physics, rng)
        self.show()

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks % self.EVERY:
            return
        if not 0 <= self.place + self.direction < len(self.video):
            self.direction = -self.direction
        self.place = min(max(self.place + self.direction, 0), len(self.video) - 1)
        s = self.intensity
        wander = self.now + self.rng.normal(0, 0.03 * s, self.now.shape)
        self.now = wander.clip(self.colours - s, self.colours + s).clip(0, 1)
        self.camera.move(self.physics, self.rng)
        self.fresh = False

    def show(self) -> None:
        """Video and colours into the model, if they have changed since it was last looked at."""
        picture = cv2.resize(self.video.frame(self.place), (self.side, self.side), interpolation=cv2.INTER_LINEAR)
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
        kept = data.cam_xpos[0].copy(), data.cam_xmat[0].copy()
        data.cam_xpos[0], data.cam_xmat[0] = self.camera.pose(self.physics)
        try:
            yield
        finally:
            data.cam_xpos[0], data.cam_xmat[0] = kept


class Camera:
    """Where camera 0 stands, in spherical coordinates around the agent's first body: it drifts at random within its ranges."""

    def __init__(self, intensity: float, upper_only: bool) -> None:
        s = self.intensity = intensity
        self.upper_only = upper_only
        self.angle, self.roll_angle = np.pi / 2 * s, np.pi / 2 * s
        self.nearer, self.farther = 1 - 0.5 * s, 1 + 1.5 * s
        self.speed_std, self.speed_max = 0.1 * s, 0.4 * s  # at a radius of 4
        self.roll_std, self.roll_max = np.pi / 300 * s, np.pi / 50 * s

    def start(self, physics: Any, rng: np.random.Generator) -> None:
        offset, up = physics.data.cam_xpos[0] - physics.data.xpos[1], physics.data.cam_xmat[0].reshape(3, 3)[:, 1]
        self.home = spherical(offset)  # radius, azimuth, elevation
        if np.hypot(*offset[:2]) < 1e-3 * self.home[0]:  # straight above: the azimuth at which the picture stays upright
            self.home[1] = np.arctan2(-up[1], -up[0])
        away = rng.uniform(-1, 1, 3)
        radius = rng.uniform(self.nearer, self.farther) * self.home[0]
        self.at = self.within(np.array([radius, self.home[1] + away[0] * self.angle, self.home[2] + away[1] * self.angle]))
        self.roll = away[2] * self.roll_angle
        self.velocity, self.roll_velocity = np.zeros(3), 0.0

    def move(self, physics: Any, rng: np.random.Generator) -> None:
        scale = self.home[0] / 4
        velocity = self.velocity + rng.normal(0, self.speed_std * scale, 3)
        speed = np.linalg.norm(velocity)
        velocity *= min(1.0, self.speed_max * scale / max(speed, 1e-12))
        before = cartesian(self.at)
        self.at = self.within(spherical(before + velocity))
        self.velocity = cartesian(self.at) - before  # what the ranges left of it
        turn = np.clip(self.roll_velocity + rng.normal(0, self.roll_std), -self.roll_max, self.roll_max)
        roll = np.clip(self.roll + turn, -self.roll_angle, self.roll_angle)
        self.roll_velocity, self.roll = roll - self.roll, roll

    def within(self, at: np.ndarray) -> np.ndarray:
        radius = np.clip(at[0], self.nearer * self.home[0], self.farther * self.home[0])
        azimuth = self.home[1] + np.clip((at[1] - self.home[1] + np.pi) % (2 * np.pi) - np.pi, -self.angle, self.angle)
        elevation = self.home[2] + np.clip(at[2] - self.home[2], -self.angle, self.angle)
        if self.upper_only:
            elevation = max(elevation, 0.0)
        return np.array([radius, azimuth, min(elevation, 0.499 * np.pi)])

    def pose(self, physics: Any) -> tuple[np.ndarray, np.ndarray]:
        """Position, and the axes of a camera that looks at the agent: right, up, back."""
        offset = cartesian(self.at)
        back = offset / np.linalg.norm(offset)
        right = np.cross((0.0, 0.0, 1.0), back)
        right /= np.linalg.norm(right)
        up = np.cross(back, right)
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        axes = np.stack([cos * right + sin * up, cos * up - sin * right, back], 1)
        return physics.data.xpos[1] + offset, axes.flatten()


def spherical(offset: np.ndarray) -> np.ndarray:
    radius = np.linalg.norm(offset)
    return np.array([radius, np.arctan2(offset[1], offset[0]), np.arcsin(np.clip(offset[2] / radius, -1, 1))])


def cartesian(at: np.ndarray) -> np.ndarray:
    radius, azimuth, elevation = at
    flat = radius * np.cos(elevation)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), radius * np.sin(elevation)])
