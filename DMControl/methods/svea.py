"""SVEA: the critic's loss is half on the clean view, half on a strongly augmented one; targets and actor see clean views only."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..agents.critic_loss import TD, Metrics, Part, squared
from ..core.method.optim import Adam
from ..core.run.config import Config
from ..replay import Batch
from .strong_augmentation import Strong, make

if TYPE_CHECKING:
    from ..agents.sac import SAC, Critic


class SVEA(TD):
    def __init__(
        self, strong: Strong, alpha: float, beta: float, front: nn.Module | None = None, front_optimizer: Adam | None = None
    ) -> None:
        super().__init__(front, front_optimizer)
        self.strong, self.alpha, self.beta = strong, alpha, beta  # weights of the clean and of the augmented half

    def draw(self, batch: Batch, generator: torch.Generator) -> Any:
        return self.strong.draw(len(batch.action), generator)

    def loss(self, critic: "Critic", part: Part, choices: Any) -> tuple[Tensor, Metrics]:
        if self.strong.kind == "none":  # both halves would be the same
            losses, metrics = super().loss(critic, part, None)
            return (self.alpha + self.beta) * losses, metrics
        n = len(part.action)
        augmented = self.strong.view(part.obs, choices if choices is None else choices[part.rows])
        both = torch.cat([part.obs.float(), augmented])  # (2N, C, H, W): one forward, and one pass of the Masker, for both halves
        q1, q2 = critic(self.see(both), part.action.repeat(2, 1))
        losses = squared(q1, q2, part.target.repeat(2, 1))
        return self.alpha * losses[:n] + self.beta * losses[n:], self.metrics(q1[:n])


def build(config: Config, agent: "SAC") -> SVEA:
    return SVEA(make(config, agent.device), config.svea.alpha, config.svea.beta)
