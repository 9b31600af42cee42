"""The views of an observation in Rainbow's loss, which a method may add to."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..core.method.strong_augmentation import StrongAugmentation
from .values import Distribution, Scalar


class Views:
    """The agent's own view alone."""

    def loss(
        self,
        see: Callable[[Tensor], Tensor],
        value: Distribution | Scalar,
        image: Tensor,
        action: Tensor,
        target: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From the agent's view (B, C, H, W): what the network says of it, the loss (B,), and the priority (B,).

        see: images (N, C, H, W) -> the network's output (N, A, ...).
        """
        output = see(image)
        return output, *value.loss(output, action, target)


class CleanAndStrong(Views):
    """As in SVEA: the agent's own view and a strongly augmented one, weighted by alpha and beta. The priority is that of the first."""

    def __init__(self, strong: StrongAugmentation, alpha: float, beta: float) -> None:
        self.strong, self.alpha, self.beta = strong, alpha, beta

    def loss(
        self,
        see: Callable[[Tensor], Tensor],
        value: Distribution | Scalar,
        image: Tensor,
        action: Tensor,
        target: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(image)
        augmented = self.strong.view(image, self.strong.draw(n, generator)).to(image.dtype)
        output = see(torch.cat([image, augmented]))  # (2B, ...): one pass of Masker and network for both
        losses, priority = value.loss(output, torch.cat([action, action]), torch.cat([target, target]))
        return output[:n], self.alpha * losses[:n] + self.beta * losses[n:], priority[:n]
