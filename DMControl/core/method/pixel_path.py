"""The transformation of images in front of every encoder of an agent."""

import torch
from torch import Tensor, nn

from .objective import Metrics
from .optim import Adam


class PixelPath(nn.Module):
    """The identity. A method may replace it by a network, which only the agent's own loss trains, not an objective."""

    columns: tuple[str, ...] = ()
    optimizer: Adam | None = None

    def forward(self, image: Tensor, elsewhere: bool = False) -> Tensor:
        """Images (N, C, H, W) -> the input of an encoder. elsewhere: in a world other than that of the training."""
        return image

    def metrics(self) -> Metrics:
        """Metrics of the last forward pass."""
        return {}

    @torch.no_grad()
    def pictures(self, image: Tensor, elsewhere: bool = False) -> dict[str, Tensor]:
        """The newest frame of each observation and what the networks see of it, (N, C, H, W) uint8; {} if they see all of it."""
        return {}
