"""MaDi's Masker: a small network in front of every encoder dims irrelevant pixels. Only the agent's own loss trains it.

It gives each pixel of a frame a factor in (0, 1). All frames of all stacks go through it in one pass, each by itself. It has no target
network.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..machine import Precision
from .encoder import initialise
from .objective import Metrics
from .pixel_path import PixelPath


class Masker(PixelPath):
    """Stacks of frames (N, colours * S, H, W) with values 0..255 -> the same, each pixel times its mask.

    kind: soft; hard (a threshold, which passes no gradient); mixed (soft, but hard in worlds other than that of the training).
    """

    columns = ("agent/mask", "grad/pixels")

    def __init__(self, depth: int, width: int, kind: str, threshold: float, precision: Precision, colours: int = 3) -> None:
        super().__init__()
        channels = [colours] + [width] * (depth - 1) + [1]
        layers = [nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(channels)]
        self.convs = nn.ModuleList(layers).to(memory_format=torch.channels_last)
        initialise(self)  # delta-orthogonal: masks begin near 0.5
        self.kind, self.threshold, self.precision, self.colours = kind, threshold, precision, colours
        self.brightness = torch.zeros(())  # mean of the last masks

    def masks(self, frames: Tensor, elsewhere: bool = False) -> Tensor:
        """Frames (M, colours, H, W), values 0..255 -> (M, 1, H, W), values 0..1."""
        x = frames.to(self.precision.dtype, memory_format=torch.channels_last) / 255
        with self.precision.autocast():
            for conv in self.convs[:-1]:
                x = torch.relu_(conv(x))
            mask = torch.sigmoid(self.convs[-1](x))
        if self.kind == "hard" or (self.kind == "mixed" and elsewhere):
            mask = (mask > self.threshold).to(mask.dtype)
        return mask

    def forward(self, image: Tensor, elsewhere: bool = False) -> Tensor:
        frames = image.to(self.precision.dtype).unflatten(1, (-1, self.colours)).flatten(0, 1)  # (N * S, colours, H, W)
        mask = self.masks(frames, elsewhere)
        self.brightness = mask.detach().float().mean()
        return (frames * mask).unflatten(0, (len(image), -1)).flatten(1, 2)

    def metrics(self) -> Metrics:
        return {"agent/mask": self.brightness}

    @torch.no_grad()
    def pictures(self, image: Tensor, elsewhere: bool = False) -> dict[str, Tensor]:
        """Newest frames, their masks, and the masked frames."""
        frames = image[:, -self.colours :]
        mask = self.masks(frames, elsewhere).float()
        named = {"frame": frames, "mask": mask.expand_as(frames) * 255, "masked": frames * mask}
        return {name: picture.round().to(torch.uint8) for name, picture in named.items()}
