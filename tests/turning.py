"""A world whose latents turn: a frame's colour tells the angle, and the next latent is known exactly."""

import numpy as np
import torch
from torch import nn

TURN = 2 * np.pi / 250  # of one grey level


class Angle(nn.Module):
    """Images of one colour -> (cos, sin, 0) of the angle that the newest frame's colour tells, (N, 3)."""

    def forward(self, image):
        angle = image.float()[:, -1].mean((1, 2)) * TURN
        return torch.stack([angle.cos(), angle.sin(), 0 * angle], -1)


def turn(latent, angle, axis=2):
    """Turn (..., 3) about one of the axes by angles (...)."""
    i, j = [n for n in range(3) if n != axis]
    x, y, c, s, out = latent[..., i], latent[..., j], angle.cos(), angle.sin(), list(latent.unbind(-1))
    out[i], out[j] = c * x - s * y, s * x + c * y
    return torch.stack(out, -1)
