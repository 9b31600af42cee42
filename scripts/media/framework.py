"""Draw figs/framework.png and .svg: the method in one picture, with frames of the real environment and a mask of the real sampler.

python -m scripts.media.framework
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from DMControl.core.method.masks import Masks
from DMControl.env import TRAIN, Env

ROOT = Path(__file__).resolve().parents[2]

ONLINE, TARGET, GREY = "#0072B2", "#D55E00", "#555555"  # Okabe and Ito's colours
SHOWN = (0, 3, 4, 7)


def frames() -> tuple[np.ndarray, np.ndarray]:
    """Eight frames of walker_walk, and the same under cube masks: (8, 100, 100, 3)."""
    env = Env("walker_walk", 2, 100, True, 3, TRAIN)
    rng = np.random.default_rng(0)
    pictures = [env.reset()] + [env.step(rng.uniform(-1, 1, env.action_dim)).frame for _ in range(7)]
    masks = Masks(window=8, size=100, patch=10, block=4, ratio=0.5)
    hidden = masks.pixels(masks.draw(1, torch.Generator().manual_seed(4)))[0].numpy()
    clear = np.stack(pictures)
    return clear, clear * ~hidden[..., None]


def box(axes, x: float, y: float, text: str, colour: str, width: float = 1.5) -> None:
    style = "round,pad=0.02,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((x, y - 0.34), width, 0.68, boxstyle=style, facecolor=colour + "22", edgecolor=colour, linewidth=1.4))
    axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=9)


def arrow(axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY, style: str = "-") -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=colour, linestyle=style, linewidth=1.3))


def draw() -> None:
    clear, masked = frames()
    figure, axes = pyplot.subplots(figsize=(12.4, 4.1), layout="constrained")
    axes.set(xlim=(-0.1, 13.5), ylim=(-0.75, 3.75))
    axes.axis("off")
    for row, pictures in ((2.75, masked), (0.6, clear)):
        for i, k in enumerate(SHOWN):
            x = 0.1 + 0.62 * i
            axes.imshow(pictures[k], extent=(x, x + 0.58, row - 0.29, row + 0.29), aspect="auto", zorder=2)
    axes.text(1.3, 3.3, "K frames, cubes masked", ha="center", fontsize=9)
    axes.text(1.3, 0.08, "the same frames, unmasked", ha="center", fontsize=9)
    top, low = 2.75, 0.6
    for x, text, width in ((3.2, "augment", 1.2), (4.8, "encoder f", 1.3), (6.6, "latent decoder\n(Transformer)", 1.7)):
        box(axes, x, top, text, ONLINE, width)
    box(axes, 8.8, top, "projection g,\nprediction q", ONLINE, 1.6)
    for x, text, width in ((3.2, "augment", 1.2), (4.8, "momentum\nencoder", 1.3), (8.8, "momentum\nprojection", 1.6)):
        box(axes, x, low, text, TARGET, width)
    box(axes, 6.6, 1.67, "actions $a_t$; a position\non every token", GREY, 1.7)
    for start, end in (((2.65, top), (3.15, top)), ((4.45, top), (4.75, top)), ((6.15, top), (6.55, top)), ((8.35, top), (8.75, top))):
        arrow(axes, start, end, ONLINE)
    for start, end in (((2.65, low), (3.15, low)), ((4.45, low), (4.75, low)), ((6.15, low), (8.75, low))):
        arrow(axes, start, end, TARGET)
    arrow(axes, (7.45, 2.03), (7.45, 2.38))
    arrow(axes, (5.45, 2.38), (5.45, 0.97), GREY, "--")
    axes.text(5.52, 1.35, "EMA", fontsize=8.5, color=GREY)
    arrow(axes, (9.6, 2.38), (9.6, 0.97), GREY, "--")
    axes.text(9.67, 1.35, "EMA", fontsize=8.5, color=GREY)
    box(axes, 11.3, 1.67, r"$2 - 2\,\cos(\hat y_t, \bar y_t)$", "#009E73", 1.9)
    arrow(axes, (10.45, top), (12.0, 2.05), ONLINE)
    arrow(axes, (10.45, low), (12.0, 1.3), TARGET)
    axes.text(11.35, 0.62, "stop gradient", fontsize=8.5, color=TARGET)
    axes.text(12.25, 2.35, r"$\hat y_t$", fontsize=10)
    axes.text(10.7, 3.2, "mean over all K steps; added to the RL loss\n(Atari), or a step of its own (DMControl)", fontsize=9)
    axes.text(5.45, -0.35, "encoder f is the RL agent's own; decoder and heads are dropped at test time", fontsize=9, ha="left", color=GREY)
    for suffix in ("png", "svg"):
        figure.savefig(ROOT / "figs" / f"framework.{suffix}", dpi=130, metadata={"Date": None} if suffix == "svg" else None)


if __name__ == "__main__":
    pyplot.rcParams["svg.hashsalt"] = "mlr"
    draw()
