"""The views of an observation in Rainbow's loss, which a method may add to."""

import torch
from torch import Tensor

from ..core.method.strong_augmentation import StrongAugmentation


class Views:
    """The agent's own view alone."""

    def of(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The agent's views (B, C, H, W) -> those of the loss (V * B, C, H, W), the agent's own first."""
        return image

    def mean(self, loss: Tensor) -> Tensor:
        """The loss of each view (V * B,) -> that of each transition (B,)."""
        return loss


class CleanAndStrong(Views):
    """As in SVEA: the agent's own view and a strongly augmented one, weighted by alpha and beta."""

    def __init__(self, strong: StrongAugmentation, alpha: float, beta: float) -> None:
        self.strong, self.alpha, self.beta = strong, alpha, beta

    def of(self, image: Tensor, generator: torch.Generator) -> Tensor:
        augmented = self.strong.view(image, self.strong.draw(len(image), generator))
        return torch.cat([image, augmented.to(image.dtype)])

    def mean(self, loss: Tensor) -> Tensor:
        clean, augmented = loss.view(2, -1)
        return self.alpha * clean + self.beta * augmented
