"""Generated images for the augmentation `overlay`: dead leaves on 1/f noise."""

from collections.abc import Sequence

import cv2
import numpy as np


def leaves(rng: np.random.Generator, side: int, colours: Sequence[tuple[float, float, float]] = ()) -> np.ndarray:
    """Overlapping discs and boxes of power-law sizes on noise with a 1/f spectrum, (side, side, 3) uint8. colours: beside random ones."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    spectrum = rng.normal(size=(3, side, side // 2 + 1)) + 1j * rng.normal(size=(3, side, side // 2 + 1))
    noise = np.fft.irfft2(spectrum / frequency, s=(side, side)).transpose(1, 2, 0)
    noise = noise / noise.std((0, 1)) * rng.uniform(0.05, 0.25)
    palette = np.concatenate([rng.uniform(0, 1, (6, 3)), np.reshape(colours, (-1, 3))])
    canvas = (palette[rng.integers(len(palette))] * np.ones((side, side, 3))).astype(np.float32)
    for _ in range(rng.integers(0, 70)):
        size = side * min(0.03 / rng.uniform(0.06, 1), 0.5)
        x, y = (int(v) for v in rng.uniform(0, side, 2))
        colour = tuple(float(c) for c in (palette[rng.integers(len(palette))] * rng.uniform(0.6, 1.2)))
        if rng.random() < 0.5:
            cv2.circle(canvas, (x, y), max(1, round(size)), colour, -1)
        else:
            height = size * rng.uniform(0.4, 2.5)
            cv2.rectangle(canvas, (x - round(size), y - round(height)), (x + round(size), y + round(height)), colour, -1)
    return ((canvas + noise).clip(0, 1) * 255).astype(np.uint8)
