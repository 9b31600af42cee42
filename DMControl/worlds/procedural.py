"""Videos and colours generated from a seed, for worlds without data sets.

Each family of pictures has one use: waves in video_easy, cells in video_hard, drapes in distracting_cs, leaves (images.py) as overlays
in training. So no agent is evaluated on pictures from its training.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property

import numpy as np

SIDE, LENGTH = 128, 500  # of a clip
SEEDS = {"video_easy": 11_000, "video_hard": 12_000, "distracting_cs": 13_000, "color_easy": 14_000, "color_hard": 15_000, "images": 16_000}
TRAINING = 1000  # in training, added to the numbers of clips, and half of it to the seeds of colours
KEPT = 8  # clips that stay in memory (25 MB each)
_cached: OrderedDict[int, "Clip"] = OrderedDict()


class Clip:
    """A video. Each frame is drawn when it is first read."""

    def __init__(self, family: str, number: int) -> None:
        self.family, self.number = family, number
        self.frames: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return LENGTH

    def frame(self, i: int) -> np.ndarray:
        """(SIDE, SIDE, 3) uint8"""
        if i not in self.frames:
            self.frames[i] = self.draw(i % LENGTH)
            _keep(self)
        return self.frames[i]

    @cached_property
    def draw(self) -> Callable[[int], np.ndarray]:
        painter = {"video_easy": waves, "video_hard": cells, "distracting_cs": drapes}[self.family]
        return painter(np.random.default_rng((SEEDS[self.family], self.number)))


def _keep(clip: Clip) -> None:
    _cached[id(clip)] = clip
    _cached.move_to_end(id(clip))
    while len(_cached) > KEPT:
        _, oldest = _cached.popitem(last=False)
        oldest.frames.clear()


_clips: dict[tuple[str, int], Clip] = {}


def clips(family: str, count: int, training: bool = False) -> list[Clip]:
    """The first `count` clips of a family. All environments share the objects, so each frame is drawn once."""
    first = TRAINING if training else 0
    return [_clips.setdefault((family, n), Clip(family, n)) for n in range(first, first + count)]


def _plane() -> tuple[np.ndarray, np.ndarray]:
    line = np.linspace(-1, 1, SIDE, dtype=np.float32)
    return line[None, :], line[:, None]


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return (picture.clip(0, 1) * 255).astype(np.uint8)


def waves(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    """Slow, smooth, low contrast: two colours mixed by sines in random directions and by rings around a drifting point."""
    x, y = _plane()
    angle, frequency = rng.uniform(0, 2 * np.pi, 6), rng.uniform(1.5, 7, 6)
    speed, phase, weight = rng.uniform(-0.08, 0.08, 6), rng.uniform(0, 2 * np.pi, 6), rng.dirichlet(np.ones(6))
    base, other = rng.uniform(0.2, 0.8, (2, 3)).astype(np.float32)
    drift = rng.uniform(-0.004, 0.004, 2)

    def draw(t: int) -> np.ndarray:
        height = np.zeros((SIDE, SIDE), np.float32)
        for a, f, v, p, w in zip(angle, frequency, speed, phase, weight, strict=True):
            height += np.float32(w) * np.sin(f * (np.cos(a) * x + np.sin(a) * y) + v * t + p).astype(np.float32)
        rings = np.sin(9 * np.hypot(x - drift[0] * t, y - drift[1] * t) - 0.1 * t)
        mixed = (0.5 + 0.4 * height + 0.1 * rings)[..., None]
        return _to_bytes(base + mixed * (other - base))

    return draw


def cells(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    """Cluttered, high contrast: coloured, hatched cells with dark borders, under a camera that pans, turns and zooms."""
    x, y = _plane()
    count = int(rng.integers(18, 40))
    seeds = rng.uniform(-1.8, 1.8, (count, 2)).astype(np.float32)
    moves = rng.normal(0, 0.003, (count, 2)).astype(np.float32)
    colours = rng.uniform(0, 1, (count, 3)).astype(np.float32)
    hatch = rng.uniform(-25, 25, (count, 2)).astype(np.float32)
    pan, turn, breath = rng.uniform(-0.004, 0.004, 2), rng.uniform(-0.008, 0.008), rng.uniform(0.01, 0.04)

    def draw(t: int) -> np.ndarray:
        zoom, angle = 1 + 0.3 * np.sin(breath * t), turn * t
        u = (zoom * (np.cos(angle) * x - np.sin(angle) * y) + pan[0] * t).astype(np.float32)
        v = (zoom * (np.sin(angle) * x + np.cos(angle) * y) + pan[1] * t).astype(np.float32)
        u, v = (np.abs((w + 1.8) % 7.2 - 3.6) - 1.8 for w in (u, v))  # mirrored, so that the plane has no edge
        centres = seeds + moves * t
        distance = (u[..., None] - centres[:, 0]) ** 2 + (v[..., None] - centres[:, 1]) ** 2  # (SIDE, SIDE, count)
        nearest = distance.argmin(-1)
        two = np.partition(distance, 1, -1)[..., :2]
        border = np.sqrt(two[..., 1]) - np.sqrt(two[..., 0]) < 0.03
        lines = 0.75 + 0.25 * np.sign(np.sin(u * hatch[nearest, 0] + v * hatch[nearest, 1]))
        return _to_bytes(colours[nearest] * (lines * ~border)[..., None])

    return draw


def drapes(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    """Bent stripes of several colours that flow past, like cloth."""
    x, y = _plane()
    colours = rng.uniform(0, 1, (7, 3)).astype(np.float32)
    angle, bend, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.6, 3), rng.uniform(0, 2 * np.pi, 3)
    frequency, speed = rng.uniform(2, 6, 3), rng.uniform(-0.15, 0.15, 3)

    def draw(t: int) -> np.ndarray:
        u = np.cos(angle) * x + np.sin(angle) * y
        v = -np.sin(angle) * x + np.cos(angle) * y
        for b, f, s, p in zip(bend, frequency, speed, phase, strict=True):
            u = u + b * np.sin(f * v + s * t + p)
        across = (u + 0.01 * t) * 2.2
        index = np.floor(across).astype(int)
        shade = 0.7 + 0.3 * np.sin(np.pi * (across - index))
        return _to_bytes(colours[index % len(colours)] * shade[..., None])

    return draw


def colour_settings(sigma: float, name: str, training: bool = False) -> list[dict[str, np.ndarray]]:
    """100 sets of colours: the suite's own plus N(0, sigma) per channel, clipped to [0, 1]. The floor's second colour is its first + 0.1.

    The distribution is that of the published files; their numbers are not included here.
    """
    rng = np.random.default_rng(SEEDS[name] + (TRAINING // 2 if training else 0))

    def near(*colour: float) -> np.ndarray:
        return (np.array(colour) + rng.normal(0, sigma, 3)).clip(0, 1)

    out = []
    for _ in range(100):
        floor = near(0.1, 0.2, 0.3)
        out.append({"grid1": floor, "grid2": (floor + 0.1).clip(0, 1), "self": near(0.7, 0.5, 0.3), "sky": near(0.4, 0.6, 0.8)})
    return out
