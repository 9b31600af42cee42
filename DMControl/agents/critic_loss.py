"""The critic's loss of SAC, which a method may replace."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.method.augment import View
from ..core.method.pixel_path import PixelPath
from ..replay import Batch
from .networks import Critic


@dataclass(frozen=True)
class Transitions:
    """Some transitions of a batch: images, actions and targets."""

    obs: Tensor  # (N, C, H, W), 0..255
    action: Tensor  # (N, A)
    target: Tensor  # (N, 1)
    rows: slice  # their position in the batch


class CriticLoss:
    """The squared error of both Q functions. A method that changes the loss is a subclass."""

    target_views = 1  # views of each next observation; the target is the mean over them

    def __init__(self, pixels: PixelPath) -> None:
        self.pixels = pixels

    def draw(self, batch: Batch, view: View, generator: torch.Generator) -> Any:
        """Draw the random choices of an update. `view` augments the observations that `loss` receives."""
        return None

    def loss(self, critic: Critic, part: Transitions, choices: Any) -> tuple[Tensor, Tensor]:
        """The loss of each transition, (N, 1), and Q1 of the observations in `part`, (N, 1)."""
        q1, q2 = critic(self.pixels(part.obs), part.action)
        return squared(q1, q2, part.target), q1


def squared(q1: Tensor, q2: Tensor, target: Tensor) -> Tensor:
    return (q1 - target).square() + (q2 - target).square()
