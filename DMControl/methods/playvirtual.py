"""PlayVirtual: SPR, and cycles through virtual trajectories. M sequences of K random actions lead away from a latent; a second model of
the dynamics leads back in reversed time. The end must agree with where the cycle began.
"""

import dataclasses
import math

import torch
from torch import Tensor

from ..agents.sac import SAC, SACHandles
from ..core.method.augment import Augmentation
from ..core.method.objective import Metrics
from ..core.method.reconstruction import distance
from ..core.method.sequence import Sequence
from ..core.run.config import Config
from . import spr
from .spr import SPR, Dynamics, Windows, over_valid


class PlayVirtual(SPR):
    """The cycle's weight follows the env steps. It is a tensor on the device, so that a recorded CUDA graph reads its newest value."""

    def __init__(self, config: Config, handles: SACHandles, augment: Augmentation) -> None:
        super().__init__(config.spr, handles, augment)
        playvirtual = config.playvirtual
        self.copies, self.full_weight, self.ramp = playvirtual.copies, playvirtual.weight, playvirtual.ramp
        self.columns += ("loss/cycle", "playvirtual/weight")
        self.repeat, self.actions = config.action_repeat, handles.actions
        self.reverse = Dynamics(handles.latent, handles.actions, config.spr.width).to(handles.device)
        self.register_buffer("weight", torch.zeros((), device=handles.device), persistent=False)
        self.at_step(0)

    def at_step(self, step: int) -> None:
        self.weight.fill_(self.full_weight * ramp(max(0, step - 1) * self.repeat, self.ramp))

    def draw(self, sequence: Sequence, generator: torch.Generator) -> Windows:
        shape = (len(sequence), self.copies, self.steps, self.actions)
        virtual = torch.rand(shape, generator=generator, device=generator.device) * 2 - 1
        return dataclasses.replace(super().draw(sequence, generator), actions=virtual)

    def loss(self, part: Windows) -> tuple[Tensor, Metrics]:
        state, targets = self.state(part), self.target(part)
        loss, metrics = self.forward_loss(part, state, targets)
        apart = self.cycle_distance(state, part.actions, targets[:, self.steps :]).mean(1)  # (B,)
        metrics |= {"loss/cycle": over_valid(apart.detach(), part.sequence.valid), "playvirtual/weight": self.weight}
        return loss + self.weight * apart, metrics

    def cycle_distance(self, state: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
        """Latents (B, d), virtual actions (B, M, K, A), target projections (B, M, p) -> (B, M)."""
        begin = state[:, None].expand(-1, self.copies, -1)
        away = self.dynamics.roll(begin, actions)[:, :, -1]
        back = self.reverse.roll(away, actions.flip(2))[:, :, -1]  # the last action is undone first
        return distance(self.answer(back), targets)


def ramp(env_step: int, length: int) -> float:
    """Rises to 1 over `length` env steps. env_step: the number of env steps before the current one."""
    return math.exp(-5 * (1 - (env_step + 1) / length) ** 2) if env_step < length else 1.0


def build(config: Config, agent: SAC) -> None:
    """Without a weight of the cycle this is SPR."""
    if config.playvirtual.weight:
        spr.attach(config, agent, PlayVirtual(config, agent.handles, spr.make_augmentation(config, agent)))
    else:
        spr.build(config, agent)
