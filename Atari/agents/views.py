"""The views of an observation in Rainbow's loss, which a method may add to."""

import torch
from torch import Tensor

from ..core.method.strong_augmentation import StrongAugmentation


class Views:
    """The agent's own view alone."""

    def of(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The agent's view (B, C, H, W) -> all M views, (M * B, C, H, W), the agent's own first."""
        return image

    def combine(self, losses: list[Tensor]) -> Tensor:
        """The losses (B,) of all views -> (B,)."""
        return losses[0]


class CleanAndStrong(Views):
    """As in SVEA: the agent's own view and a strongly augmented one, weighted by alpha and beta."""

    def __init__(self, strong: StrongAugmentation, alpha: float, beta: float) -> None:
        self.strong, self.alpha, self.beta = strong, alpha, beta

    def of(self, image: Tensor, generator: torch.Generator) -> Tensor:
        augmented = self.strong.view(image, self.strong.draw(len(image), generator)).to(image.dtype)
        return torch.cat([image, augmented])  # one pass of Masker and network for both

    def combine(self, losses: list[Tensor]) -> Tensor:
        return self.alpha * losses[0] + self.beta * losses[1]
