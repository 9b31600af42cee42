"""The interface of an auxiliary objective, and the handles that an agent gives to it."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .augment import Augmentation, View
from .momentum import Momentum
from .sequence import Sequence

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class Handles:
    """The parts of an agent that an objective may use. A subclass adds the handles of one agent."""

    encoder: nn.Module  # images (N, C, size, size), 0..255 -> latents (N, latent); agent and objective both train it
    pixels: Callable[[Tensor], Tensor]  # the transformation in front of every encoder; an objective does not train it
    augment: Augmentation  # the augmentation of the agent's own loss
    latent: int
    size: int  # side of the images
    actions: int  # size of an action vector, or the number of discrete actions
    device: torch.device

    def encode(self, image: Tensor) -> Tensor:
        return self.encoder(self.pixels(image))


class Objective(nn.Module):
    """Only `loss` is required. The agent decides how the gradient is taken.

    SAC gives an objective its own optimisers, and reads `batch_size`, `every` and `after_targets`. Rainbow adds the loss to its own,
    sequence by sequence, with the importance weights; its sequences begin with the observations of its own batch.
    """

    window = 1  # K, consecutive observations of a sequence
    batch_size: int | None = None  # sequences drawn for the objective; None: it uses the agent's own batch
    every = 1  # updates of the agent per step of the objective
    shares_state = False  # whether `sequence.state` holds the latents of Rainbow's own loss, so that its gradient flows through them
    after_targets = False  # whether its step comes last in an update; otherwise it comes after the critic's
    targets: Momentum | None = None  # its target networks; they move with the agent's, or after the objective's step where that comes last
    columns: tuple[str, ...] = ()  # its metrics, as named in train.csv
    diagnostics: tuple[str, ...] = ()  # names of the numbers that `diagnose` gives

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Iterable[Any]:
        """Draw the random choices of an update, then yield the sequences, in parts if that saves memory.

        view: the augmentation that the critic used, if the sequences come from the agent's own batch.
        """
        yield sequence

    @abstractmethod
    def loss(self, part: Any) -> tuple[Tensor, Metrics]:
        """The loss of each sequence of a part, (B,), and metrics as means over the part."""

    def trained(self) -> Iterator[nn.Parameter]:
        return (p for p in self.parameters() if p.requires_grad)

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        """Groups of parameters; Rainbow clips the gradient norm of each. Parameters in no group are not clipped."""
        return {"auxiliary": list(self.trained())}

    def at_step(self, step: int) -> None:
        """Called before each update with the agent step. What depends on it must be in a tensor on the device."""

    def priority(self, metrics: Metrics) -> Tensor | float:
        """What Rainbow adds to the new priorities of the batch."""
        return 0.0

    def move_targets(self) -> None:
        if self.targets is not None:
            self.targets.step()

    def reset_targets(self) -> None:
        if self.targets is not None:
            self.targets.copy()

    def diagnose(self, sequence: Sequence, generator: torch.Generator) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Numbers and pictures for TensorBoard at an evaluation; pictures: (N, C, H, W) uint8."""
        return {}, {}


def backward_in_parts(parts: Iterable[Any], loss: Callable[[Any], tuple[Tensor, Metrics]]) -> Metrics:
    """Accumulate a gradient part by part to save memory. `loss` gives a part's share of the loss and of the metrics."""
    sums: Metrics = {}
    for number, part in enumerate(parts):
        share, metrics = loss(part)
        share.backward()
        sums = {name: sums.get(name, 0) + value for name, value in metrics.items()}
        if share.is_meta and number:
            break  # run.memory only measures: further parts of the same size need no more memory
    return sums


def add_gradient(
    objective: Objective,
    sequence: Sequence,
    weight: Tensor,
    generator: torch.Generator,
    view: View | None = None,
    scale: float = 1.0,
) -> Metrics:
    """Add the gradient of scale * sum_b weight_b * loss_b. The metrics are means over the valid sequences."""
    counted = sequence.valid / sequence.valid.sum().clamp_min(1.0)  # (B,)
    start = 0

    def share(part: Any) -> tuple[Tensor, Metrics]:
        nonlocal start
        loss, metrics = objective.loss(part)  # (b,)
        rows = slice(start, start + len(loss))
        start = rows.stop
        return scale * (weight[rows] * loss).sum(), {name: value * counted[rows].sum() for name, value in metrics.items()}

    return backward_in_parts(objective.parts(sequence, generator, view), share)
