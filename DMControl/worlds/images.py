"""Images for the augmentation `overlay`: the user's, or generated ones."""

from functools import lru_cache

import numpy as np

from ..core.method import footage
from ..core.method.images import leaves
from .procedural import SEEDS

COLOURS = ((0.7, 0.5, 0.3), (0.1, 0.2, 0.3))  # of the agent and of the floor, which some generated leaves have


@lru_cache(maxsize=2)
def overlay_images(folder: str, count: int, side: int) -> np.ndarray:
    """(count, side, side, 3) uint8, from the folder or procedural. The same arguments give the same images."""
    if folder:
        return footage.images(folder, count, side, SEEDS["images"])
    return np.stack([leaves(np.random.default_rng((SEEDS["images"], n)), side, COLOURS) for n in range(count)])
