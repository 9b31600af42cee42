"""A moving background behind a game: noise or a video in place of its darkest colour. Score, rewards and actions stay as they are.

It is drawn on the console's screen, before the frame is made smaller. So a small thing blends with the background around it as it does
with the game's own, and no dark rim shows where the picture was put in. What is shown follows from (seed, stream, episode, step) alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from .core.errors import UserError, nearest
from .core.method import footage
from .core.run.config import Config

DISTRACTIONS = ("none", "noise", "video")
BEHIND = ("darkest", "commonest")
SEED = 17_000
GRAIN = 2  # procedural pictures are drawn with this many pixels of the screen as one, both ways
CLIPS = 32  # procedural videos of a stream
SIDE = 256  # of a procedural video's picture
FILMS, LENGTH = 10, 500  # the user's videos, and frames of each, that are shown


@dataclass(frozen=True)
class Distraction:
    """The name of a distraction for training or evaluation."""

    name: str
    strength: float | None = None  # contrast of the background; None without one

    def __str__(self) -> str:
        return self.name if self.strength in (None, 1.0) else f"{self.name}_{self.strength:g}"


def distractions(names: list[str], strength: float) -> list[Distraction]:
    """The named distractions without repeats."""
    for name in names:
        if name not in DISTRACTIONS:
            raise UserError(f"distraction {name} does not exist: {nearest(name, DISTRACTIONS)}")
    return list(dict.fromkeys(Distraction(name, None if name == "none" else strength) for name in names))


def distractions_of(config: Config) -> list[Distraction]:
    """The distraction of the training, then the others for evaluation."""
    env = config.env
    return distractions([env.distraction, *config.eval.distractions], env.distraction_strength)


def source(distraction: Distraction, data: Config) -> str:
    if distraction.name == "none":
        return "game"
    return "footage" if distraction.name == "video" and data.video else "procedural"


def label(distraction: Distraction, data: Config) -> str:
    """The distraction's name in tables and plots."""
    name = "no distraction" if distraction.name == "none" else str(distraction)
    return f"{name} (procedural)" if source(distraction, data) == "procedural" else name


def check(config: Config, typed: set[str]) -> None:
    """Raise a UserError for an unknown distraction, footage that is missing, or a key that has no effect."""
    shown = {distraction.name for distraction in distractions_of(config)} - {"none"}
    for key in ("env.distraction_strength", "env.distraction_behind"):
        if key in typed and not shown:
            raise UserError(f"key {key} has no effect with env.distraction=none: set that to noise or video, or name eval.distractions")
    footage.folder("data.images", config.data.images)
    check_data(distractions_of(config), config.data)


def check_data(wanted: list[Distraction], data: Config) -> None:
    """Raise a UserError if the footage for these distractions is missing."""
    footage.folder("data.video", data.video)
    if data.video and any(distraction.name == "video" for distraction in wanted):
        films(data.video)


class Background:
    """What is shown behind the game. `picture` gives it in grey, as large as the screen."""

    def __init__(self, picture: Callable[[tuple[int, int, int, int], tuple[int, int]], np.ndarray], strength: float, behind: str) -> None:
        self.picture, self.strength, self.behind = picture, strength, behind

    def cover(self, screen: np.ndarray, seed: int, stream: int, episode: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a grey screen (height, width): the picture, and where it is shown (1 or 0), both uint8."""
        level = screen.min() if self.behind == "darkest" else cv2.calcHist([screen], [0], None, [256], [0, 256]).argmax()
        picture = self.picture((seed, stream, episode, step), screen.shape)
        if self.strength < 1:
            fainter = np.rint(level + self.strength * (np.arange(256.0) - level)).astype(np.uint8)
            picture = cv2.LUT(picture, fainter)
        return picture, (screen == level).view(np.uint8)

    def draw(self, screen: np.ndarray, *when: int) -> np.ndarray:
        """The grey screen in front of the background. when: seed, stream, episode and step."""
        picture, where = self.cover(screen, *when)
        return cv2.copyTo(picture, where, screen.copy())

    def draw_coloured(self, coloured: np.ndarray, screen: np.ndarray, *when: int) -> np.ndarray:
        """The same of the screen in colour, (height, width, 3)."""
        picture, where = self.cover(screen, *when)
        return np.where(where[..., None] > 0, picture[..., None], coloured)


def make(distraction: Distraction, behind: str, data: Config) -> Background | None:
    """The background for an environment; None without a distraction."""
    if distraction.name == "none":
        return None
    if distraction.name == "noise":
        picture = noise
    elif data.video:
        picture = Footage(films(data.video)).picture
    else:
        picture = clip_picture
    return Background(picture, distraction.strength, behind)


def noise(when: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """Grains of uniform grey, new ones at each step."""
    grains = np.random.default_rng((SEED, *when)).integers(0, 256, coarse(shape), dtype=np.uint8)
    return cv2.resize(grains, shape[::-1], interpolation=cv2.INTER_NEAREST)


def coarse(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // GRAIN), -(-shape[1] // GRAIN)


@lru_cache(maxsize=4096)
def chosen(seed: int, stream: int, episode: int, count: int) -> tuple[int, int]:
    """The video of an episode, and its frame at step 0."""
    rng = np.random.default_rng((SEED, seed, stream, episode))
    return int(rng.integers(count)), int(rng.integers(LENGTH))


def clip_picture(when: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
    *episode, step = when
    number, start = chosen(*episode, CLIPS)
    return clip(when[1], number)(start + step, shape)


@lru_cache(maxsize=2 * CLIPS)
def clip(stream: int, number: int) -> Callable[[int, tuple[int, int]], np.ndarray]:
    """A procedural video: two layers of hatched cells, each under a camera that pans, turns and zooms. Each stream has its own."""
    rng = np.random.default_rng((SEED, stream, number))
    layers = [(cells(rng), Camera(rng)) for _ in range(2)]

    def draw(t: int, shape: tuple[int, int]) -> np.ndarray:
        lower, upper = (
            cv2.warpAffine(
                cell, camera.at(t), coarse(shape)[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
            )
            for cell, camera in layers
        )
        return cv2.resize(cv2.addWeighted(lower, 0.5, upper, 0.5, 0), shape[::-1], interpolation=cv2.INTER_LINEAR)

    return draw


class Camera:
    def __init__(self, rng: np.random.Generator) -> None:
        self.start, self.pan = rng.uniform(0, SIDE, 2), rng.uniform(-2.5, 2.5, 2)
        self.angle, self.turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.02, 0.02)
        self.breath, self.phase = rng.uniform(0.02, 0.08), rng.uniform(0, 2 * np.pi)

    def at(self, t: int) -> np.ndarray:
        """The affine map (2, 3) from the coarse screen to the picture at time t."""
        zoom, angle = GRAIN * (1 + 0.3 * np.sin(self.breath * t + self.phase)), self.angle + self.turn * t
        c, s = zoom * np.cos(angle), zoom * np.sin(angle)
        x, y = (self.start + self.pan * t) % SIDE
        return np.array([[c, -s, x], [s, c, y]])


def cells(rng: np.random.Generator) -> np.ndarray:
    """A picture (SIDE, SIDE) that continues at its edges: cells of any grey with stripes."""
    count = int(rng.integers(20, 40))
    line = np.arange(SIDE, dtype=np.float32)
    centres = rng.uniform(0, SIDE, (count, 2)).astype(np.float32)
    across, down = (np.abs(line[:, None] - centres[:, axis]) for axis in range(2))  # (SIDE, count)
    across, down = np.minimum(across, SIDE - across) ** 2, np.minimum(down, SIDE - down) ** 2
    near = (down[:, None] + across[None]).argmin(-1)  # (SIDE, SIDE)
    grey, hatch, phase = rng.uniform(0, 255, count), rng.integers(-24, 25, (count, 2)), rng.uniform(0, 2 * np.pi, count)
    waves = np.sin(2 * np.pi / SIDE * (line * hatch[near, 0] + line[:, None] * hatch[near, 1]) + phase[near])
    return (grey[near] + 60 * np.sign(waves)).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=2)
def films(name: str) -> tuple[Path, ...]:
    """The first videos of a folder: video files, or else folders of images."""
    root = footage.folder("data.video", name)
    found = footage.video_files(root) or sorted(p for p in root.iterdir() if p.is_dir() and footage.pictures_in(p))
    if not found:
        raise UserError(f"{root} holds no videos ({', '.join(footage.VIDEO_ENDINGS)}) and no folders of images")
    for path in found[:FILMS]:
        footage.check(path)
    return tuple(found[:FILMS])


@lru_cache(maxsize=FILMS)
def grey_film(path: Path, height: int, width: int) -> np.ndarray:
    """(T, height, width) uint8"""
    frames = footage.read(path)[:LENGTH]
    return np.stack([cv2.cvtColor(cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for f in frames])


class Footage:
    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths

    def picture(self, when: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
        *episode, step = when
        number, start = chosen(*episode, len(self.paths))
        film = grey_film(self.paths[number], *shape)
        return film[(start + step) % len(film)]


def memory(config: Config) -> int:
    """Bytes of pictures that stay in RAM, for a screen of 210 x 160 pixels."""
    shown = {distraction.name for distraction in distractions_of(config)}
    if "video" not in shown:
        return 0
    if config.data.video:  # while a video is read, it is in memory twice
        return len(films(config.data.video)) * LENGTH * 210 * 160 + 2 * footage.BYTES
    return 2 * CLIPS * 2 * SIDE**2
