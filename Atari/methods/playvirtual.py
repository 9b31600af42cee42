"""PlayVirtual: SPR, and cycles through virtual trajectories. M sequences of K random actions lead away from a latent; a second model of
the dynamics leads back in reversed time. The end must agree with where the cycle began.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn

from ..agents.rainbow import Rainbow, RainbowHandles
from ..core.method.objective import Metrics
from ..core.method.reconstruction import distance
from ..core.method.sequence import Sequence
from ..core.run.config import Config
from . import spr
from .spr import SPR, Windows, make_dynamics, mean_where


class PlayVirtual(SPR):
    """The cycle's weight follows the agent steps. It is a tensor on the device, so that a recorded CUDA graph reads its newest value."""

    def __init__(self, config: Config, handles: RainbowHandles) -> None:
        super().__init__(config, handles)
        playvirtual = config.playvirtual
        self.copies = playvirtual.copies_per_action * handles.actions
        self.full_weight, self.ramp = playvirtual.weight, playvirtual.ramp
        self.columns += ("loss/cycle", "playvirtual/weight")
        self.reverse = make_dynamics(handles).to(handles.device)
        self.register_buffer("weight", torch.zeros((), device=handles.device), persistent=False)
        self.at_step(0)

    def at_step(self, step: int) -> None:
        self.weight.fill_(self.full_weight * ramp(max(0, step - 1), self.ramp))

    def draw(self, sequence: Sequence, generator: torch.Generator) -> Windows:
        shape = (len(sequence), self.copies, self.steps)
        virtual = torch.randint(self.actions, shape, generator=generator, device=generator.device)
        return dataclasses.replace(super().draw(sequence, generator), actions=virtual)

    def loss(self, part: Windows) -> tuple[Tensor, Metrics]:
        targets = self.target(part)
        loss, metrics = self.forward_loss(part.sequence, targets)
        apart = self.cycle_distance(part.sequence.state, part.actions, targets[:, self.steps :]).mean(1)  # (B,)
        counted = self.counted(part.sequence.done)[:, 0]
        metrics |= {"loss/cycle": mean_where(apart, counted), "playvirtual/weight": self.weight}
        return loss + self.weight * apart * counted, metrics

    def cycle_distance(self, state: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
        """Latents (B, d), virtual actions (B, M, K), target projections (B, M, p) -> (B, M). All trajectories are one batch."""
        begin = state[:, None].expand(-1, self.copies, -1).flatten(0, 1)  # (B * M, d)
        chosen = self.one_hot(actions.flatten(0, 1))  # (B * M, K, A)
        away = self.dynamics.roll(begin, chosen)[-1]
        back = self.reverse.roll(away, chosen.flip(1))[-1]  # the last action is undone first
        return distance(self.answer(back).view_as(targets), targets)

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        return {**super().clip_groups(), "reverse": list(self.reverse.parameters())}


def ramp(step: int, length: int) -> float:
    """Rises to 1 over `length` agent steps. step: the number of steps before the current one."""
    return math.exp(-5 * (1 - (step + 1) / length) ** 2) if step < length else 1.0


def build(config: Config, agent: Rainbow) -> None:
    """Without a weight of the cycle this is SPR."""
    if config.playvirtual.weight:
        spr.check(config, agent)
        agent.attach(PlayVirtual(config, agent.handles))
    else:
        spr.build(config, agent)
