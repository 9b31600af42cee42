"""MaDi: a small network in front of every encoder learns, from the critic's loss alone, which pixels to dim.

The critic's loss is SVEA's. The Masker looks at one RGB frame at a time and gives each pixel a factor in (0, 1); the frames of
a stack, the clean and the augmented half of a batch all go through it in one pass. It has no target copy and no loss of its own.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..agents.critic_loss import TD
from ..core.machine import Precision
from ..core.method.encoder import initialise
from ..core.method.optim import Adam
from ..core.run.config import Config
from .strong_augmentation import make
from .svea import SVEA

if TYPE_CHECKING:
    from ..agents.sac import SAC


class Masker(nn.Module):
    """Stacks of RGB frames (N, 3 * S, H, W) with values 0..255 -> the same, each pixel times its mask.

    kind: soft; hard (a threshold, through which no gradient comes back); mixed (soft, but hard for a deterministic policy).
    """

    def __init__(self, depth: int, width: int, kind: str, threshold: float, precision: Precision) -> None:
        super().__init__()
        channels = [3] + [width] * (depth - 1) + [1]
        layers = [nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(channels)]
        self.convs = nn.ModuleList(layers).to(memory_format=torch.channels_last)
        initialise(self)  # delta-orthogonal: masks begin near 0.5
        self.kind, self.threshold, self.precision = kind, threshold, precision
        self.brightness = torch.zeros(())  # mean of the last masks

    def masks(self, frames: Tensor, judging: bool = False) -> Tensor:
        """RGB frames (M, 3, H, W), values 0..255 -> (M, 1, H, W), values 0..1."""
        x = frames.to(self.precision.dtype, memory_format=torch.channels_last) / 255
        with self.precision.autocast():
            for conv in self.convs[:-1]:
                x = torch.relu_(conv(x))
            mask = torch.sigmoid(self.convs[-1](x))
        if self.kind == "hard" or (self.kind == "mixed" and judging):
            mask = (mask > self.threshold).to(mask.dtype)
        return mask

    def forward(self, image: Tensor, judging: bool = False) -> Tensor:
        frames = image.to(self.precision.dtype).unflatten(1, (-1, 3)).flatten(0, 1)  # (N * S, 3, H, W)
        mask = self.masks(frames, judging)
        self.brightness = mask.detach().float().mean()
        return (frames * mask).unflatten(0, (len(image), -1)).flatten(1, 2)

    def pictures(self, frames: Tensor) -> dict[str, Tensor]:
        """RGB frames, their masks, and the masked frames, uint8."""
        mask = self.masks(frames, judging=True).float()
        named = {"frame": frames, "mask": mask.expand_as(frames) * 255, "masked": frames * mask}
        return {k: v.round().to(torch.uint8) for k, v in named.items()}


def make_masker(config: Config, agent: "SAC") -> tuple[Masker, Adam]:
    m = config.masker
    masker = Masker(m.depth, m.width, m.type, m.threshold, agent.critic.encoder.trunk.precision).to(agent.device)
    return masker, Adam(masker.parameters(), m.lr)


def build(config: Config, agent: "SAC") -> SVEA:
    """SVEA behind a Masker."""
    return SVEA(make(config, agent.device), config.svea.alpha, config.svea.beta, *make_masker(config, agent))


def build_in_front_of_mlr(config: Config, agent: "SAC") -> TD:
    """The plain critic's loss behind a Masker; MLR's encoders stand behind it too (mlr.py)."""
    return TD(*make_masker(config, agent)) if config.masker.enabled else TD()
