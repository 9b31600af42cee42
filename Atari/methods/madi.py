"""MaDi: a Masker (core/method/masker.py) in front of Rainbow's convolutions, which only the distributional loss trains.

Each of the stacked grey frames goes through the Masker by itself. Half of the loss uses a strongly augmented view, as in SVEA.
"""

from functools import lru_cache

import cv2
import numpy as np
import torch

from ..agents.rainbow import Rainbow
from ..agents.views import CleanAndStrong
from ..core.method import footage
from ..core.method.images import leaves
from ..core.method.masker import Masker
from ..core.method.optim import Adam
from ..core.method.strong_augmentation import StrongAugmentation
from ..core.run.config import Config

BANK_SIDE = 128  # of an overlay image
SEED = 16_000  # of the overlay images


@lru_cache(maxsize=2)
def overlay_images(folder: str, count: int) -> np.ndarray:
    """(count, side, side, 1) uint8, from the folder or procedural. The same arguments give the same images."""
    if folder:
        coloured = footage.images(folder, count, BANK_SIDE, SEED)
    else:
        coloured = np.stack([leaves(np.random.default_rng((SEED, n)), BANK_SIDE) for n in range(count)])
    return np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in coloured])[..., None]


def add_masker(config: Config, agent: Rainbow) -> None:
    m, precision = config.masker, agent.network.trunk.precision
    if m.enabled:
        masker = Masker(m.depth, m.width, m.type, m.threshold, precision, colours=1).to(agent.device)
        masker.optimizer = Adam(masker.parameters(), m.lr)
        agent.pixels = masker


def add_strong_view(config: Config, agent: Rainbow) -> None:
    s = config.strong_augmentation
    if s.kind == "overlay":
        bank = torch.from_numpy(overlay_images(config.data.images, s.images)).to(agent.device)
        agent.views = CleanAndStrong(StrongAugmentation(s.kind, s.alpha, bank), config.svea.alpha, config.svea.beta)


def build(config: Config, agent: Rainbow) -> None:
    add_masker(config, agent)
    add_strong_view(config, agent)
