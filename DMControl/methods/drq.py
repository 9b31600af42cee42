"""DrQ: the critic learns from M shifted views of each observation, towards the mean of the targets of K views of the next one.

All views are drawn separately and read by index from the same stored frames. M = K = 1 is SAC with random shifts.
"""

import torch
from torch import Tensor

from ..agents.critic_loss import CriticLoss, Transitions, squared
from ..agents.networks import Critic
from ..agents.sac import SAC
from ..core.method.augment import Augmentation, View
from ..core.method.frames import Frames
from ..core.method.pixel_path import PixelPath
from ..core.run.config import Config
from ..replay import Batch


class DrQ(CriticLoss):
    """The squared errors of the M views, added. The first view is the actor's too."""

    def __init__(self, pixels: PixelPath, augment: Augmentation, views: int, target_views: int) -> None:
        super().__init__(pixels)
        self.augment, self.further, self.target_views = augment, views - 1, target_views

    def draw(self, batch: Batch, view: View, generator: torch.Generator) -> tuple[Frames, View] | None:
        """The further views: those of an observation follow each other."""
        if self.further == 0:
            return None
        frames = batch.obs.repeat(self.further)
        return frames, self.augment.draw(len(frames), frames.channels, generator)

    def loss(self, critic: Critic, part: Transitions, choices: tuple[Frames, View] | None) -> tuple[Tensor, Tensor]:
        if choices is None:
            return super().loss(critic, part, None)
        (frames, view), n, m = choices, len(part.action), self.further
        rows = slice(m * part.rows.start, m * part.rows.stop)
        obs = torch.cat([part.obs, self.augment.view(frames[rows], view[rows])])  # (M * N, C, H, W)
        action, target = (torch.cat([x, x.repeat_interleave(m, 0)]) for x in (part.action, part.target))
        q1, q2 = critic(self.pixels(obs), action)
        losses = squared(q1, q2, target)  # (M * N, 1)
        return losses[:n] + losses[n:].view(n, m).sum(1, keepdim=True), q1[:n]


def build(config: Config, agent: SAC) -> None:
    agent.critic_loss = DrQ(agent.pixels, agent.augment, config.drq.views, config.drq.target_views)
