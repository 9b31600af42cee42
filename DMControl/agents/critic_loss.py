"""The critic's loss of plain SAC, and what a method may put in its place."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.method.augment import View
from ..core.method.optim import Adam
from ..replay import Batch, Replay

if TYPE_CHECKING:
    from .sac import SAC, Critic

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class Part:
    """Some transitions of a batch, as images, with their targets."""

    obs: Tensor  # (N, C, H, W), 0..255
    action: Tensor  # (N, A)
    target: Tensor  # (N, 1)
    rows: slice  # which transitions of the batch they are


class TD(nn.Module):
    """The squared distance of both Q functions from the target. Methods are subclasses; SAC never asks which one it has.

    front: what stands between the pixels and every encoder of the agent, and learns from this loss alone.
    """

    every = 1  # updates between the steps of its own

    def __init__(self, front: nn.Module | None = None, front_optimizer: Adam | None = None) -> None:
        super().__init__()
        self.front = front
        self.optimizers = {} if front_optimizer is None else {"front": front_optimizer}  # they step with the critic's
        self.own_optimizers: dict[str, Adam] = {}  # they step in after_update

    def see(self, image: Tensor, judging: bool = False) -> Tensor:
        """What an encoder gets to see of an image (N, C, H, W). judging: a deterministic policy acts on it."""
        return image if self.front is None else self.front(image, judging)

    def pictures(self, image: Tensor) -> dict[str, Tensor]:
        """The newest frame of each observation, and what of it the networks see, as a deterministic policy acts: (N, C, H, W) uint8."""
        return {} if self.front is None else self.front.pictures(image[:, -3:])

    def draw(self, batch: Batch, generator: torch.Generator) -> Any:
        """The random choices of an update, for `loss`; drawn before its images are read."""
        return None

    def loss(self, critic: "Critic", part: Part, choices: Any) -> tuple[Tensor, Metrics]:
        """The loss of each transition, (N, 1), and numbers to log, summed over the transitions."""
        q1, q2 = critic(self.see(part.obs), part.action)
        return squared(q1, q2, part.target), self.metrics(q1)

    def metrics(self, q1: Tensor) -> Metrics:
        out = {"agent/q": q1.detach().sum()}
        return out if self.front is None else out | {"agent/mask": self.front.brightness * len(q1)}

    def after_update(self, agent: "SAC", batch: Batch, view: View, replay: Replay) -> Metrics:
        """A step of its own, once critic, actor and targets have had theirs."""
        return {}


def squared(q1: Tensor, q2: Tensor, target: Tensor) -> Tensor:
    return (q1 - target).square() + (q2 - target).square()
