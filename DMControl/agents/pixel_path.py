"""What stands between the pixels and every encoder of an agent."""

import torch
from torch import Tensor, nn

from ..core.method.objective import Metrics
from ..core.method.optim import Adam


class PixelPath(nn.Module):
    """Here nothing does. A method may put a network in its place, which then learns from the critic's loss alone."""

    columns: tuple[str, ...] = ()
    optimizer: Adam | None = None

    def forward(self, image: Tensor, elsewhere: bool = False) -> Tensor:
        """What an encoder gets to see of an image (N, C, H, W). elsewhere: in a world other than that of the training."""
        return image

    def metrics(self) -> Metrics:
        """Of the last pass."""
        return {}

    @torch.no_grad()
    def pictures(self, image: Tensor, elsewhere: bool = False) -> dict[str, Tensor]:
        """The newest frame of each observation, and what of it the networks see: (N, C, H, W) uint8."""
        return {}
