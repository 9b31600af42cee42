"""The critic's loss of plain SAC, and what a method may put in its place."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.augment import View
from ..core.optim import Adam
from ..replay import Batch, Replay

if TYPE_CHECKING:
    from ..sac import SAC, Critic

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class Part:
    """Some transitions of a batch, as images, with their targets."""

    obs: Tensor  # (N, C, H, W), 0..255
    action: Tensor  # (N, A)
    target: Tensor  # (N, 1)
    rows: slice  # which transitions of the batch they are


class TD(nn.Module):
    """The squared distance of both Q functions from the target. Methods are subclasses; SAC never asks which one it has."""

    def __init__(self) -> None:
        super().__init__()
        self.optimizers: dict[str, Adam] = {}  # they step with the critic's, on the gradient of its loss
        self.own_optimizers: dict[str, Adam] = {}  # they step in after_update

    def see(self, image: Tensor, judging: bool = False) -> Tensor:
        """What stands between the pixels and every encoder of the agent, targets too. judging: a deterministic policy acts."""
        return image

    def draw(self, batch: Batch, generator: torch.Generator) -> Any:
        """The random choices of an update, for `loss`; drawn before its images are read."""
        return None

    def loss(self, critic: "Critic", part: Part, choices: Any) -> tuple[Tensor, Metrics]:
        """The loss of each transition, (N, 1), and numbers to log, summed over the transitions."""
        q1, q2 = critic(self.see(part.obs), part.action)
        return squared(q1, q2, part.target), {"agent/q": q1.detach().sum()}

    def after_update(self, agent: "SAC", batch: Batch, view: View, replay: Replay) -> Metrics:
        """A step of its own, once critic, actor and targets have had theirs."""
        return {}

    def pictures(self, image: Tensor) -> dict[str, Tensor]:
        """What of an observation (N, C, H, W) the networks get to see: named pictures (N * stack, 3 or 1, H, W)."""
        return {}


def squared(q1: Tensor, q2: Tensor, target: Tensor) -> Tensor:
    return (q1 - target).square() + (q2 - target).square()
