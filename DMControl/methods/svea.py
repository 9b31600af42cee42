"""SVEA: half of the critic's loss uses the clean view, half a strongly augmented view. Targets and actor use clean views only."""

from typing import Any

import torch
from torch import Tensor

from ..agents.critic_loss import CriticLoss, Transitions, squared
from ..agents.networks import Critic
from ..agents.sac import SAC
from ..core.method.augment import View
from ..core.method.pixel_path import PixelPath
from ..core.method.strong_augmentation import StrongAugmentation
from ..core.run.config import Config
from ..replay import Batch
from .strong_augmentation import make


class SVEA(CriticLoss):
    def __init__(self, pixels: PixelPath, strong: StrongAugmentation, alpha: float, beta: float) -> None:
        super().__init__(pixels)
        self.strong, self.alpha, self.beta = strong, alpha, beta  # weights of the clean and of the augmented half

    def draw(self, batch: Batch, view: View, generator: torch.Generator) -> Any:
        return self.strong.draw(len(batch.action), generator)

    def loss(self, critic: Critic, part: Transitions, choices: Any) -> tuple[Tensor, Tensor]:
        if self.strong.kind == "none":  # both halves are the same, so compute one
            losses, q1 = super().loss(critic, part, None)
            return (self.alpha + self.beta) * losses, q1
        n = len(part.action)
        augmented = self.strong.view(part.obs, choices if choices is None else choices[part.rows])
        both = torch.cat([part.obs.float(), augmented])  # (2N, C, H, W): one pass of all networks for both halves
        q1, q2 = critic(self.pixels(both), part.action.repeat(2, 1))
        losses = squared(q1, q2, part.target.repeat(2, 1))
        return self.alpha * losses[:n] + self.beta * losses[n:], q1[:n]


def build(config: Config, agent: SAC) -> None:
    agent.critic_loss = SVEA(agent.pixels, make(config, agent.handles.device), config.svea.alpha, config.svea.beta)
