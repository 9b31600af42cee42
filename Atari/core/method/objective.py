"""An auxiliary objective: what an agent may learn beside its own loss, and what the agent offers to it."""

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
    """What every agent offers to an objective. An agent adds handles of its own in a subclass."""

    encoder: nn.Module  # images (N, C, size, size), 0..255 -> latents (N, latent); agent and objective both train it
    pixels: Callable[[Tensor], Tensor]  # what the encoders get to see of images; an objective does not train it
    augment: Augmentation  # how the agent's own loss looks at observations
    latent: int
    size: int  # side of the images
    actions: int  # numbers of an action, or choices where actions are discrete
    device: torch.device

    def encode(self, image: Tensor) -> Tensor:
        return self.encoder(self.pixels(image))


class Objective(nn.Module):
    """Only `loss` is required. The agent decides how the gradient is taken.

    SAC gives an objective its own optimisers, and reads `batch_size`, `every` and `after_targets`. Rainbow adds the loss to its own,
    sequence by sequence, with the importance weights; its sequences begin with the observations of its own batch.
    """

    window = 1  # K, consecutive observations of a sequence
    batch_size: int | None = None  # sequences that are drawn for it; None: the observations of the agent's own batch
    every = 1  # updates of the agent between two of its steps
    after_targets = False  # its step is the last of an update; otherwise it follows the critic's step
    targets: Momentum | None = None  # what follows the online networks: moved with the agent's targets, or after a step that is the last
    columns: tuple[str, ...] = ()  # names of its metrics, as in train.csv
    diagnostics: tuple[str, ...] = ()  # names of the numbers that `diagnose` gives

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Iterable[Any]:
        """Draw the random choices of an update, then yield the sequences, in parts where that saves memory.

        view: how the agent's critic looked at these observations, where they are those of its own batch.
        """
        yield sequence

    @abstractmethod
    def loss(self, part: Any) -> tuple[Tensor, Metrics]:
        """The loss of each sequence of a part, (B,), and the means of what is logged."""

    def trained(self) -> Iterator[nn.Parameter]:
        return (p for p in self.parameters() if p.requires_grad)

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters whose gradients Rainbow clips together. What is in no group is not clipped."""
        return {"objective": list(self.trained())}

    def move_targets(self) -> None:
        if self.targets is not None:
            self.targets.step()

    def diagnose(self, sequence: Sequence, generator: torch.Generator) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Numbers and pictures for TensorBoard at an evaluation; pictures: (N, C, H, W) uint8."""
        return {}, {}


def backward_in_parts(parts: Iterable[Any], loss: Callable[[Any], tuple[Tensor, Metrics]]) -> Metrics:
    """Add up a gradient part by part, which bounds the memory. `loss` gives a part's share of the loss and of the metrics."""
    sums: Metrics = {}
    for number, part in enumerate(parts):
        share, metrics = loss(part)
        share.backward()
        sums = {name: sums.get(name, 0) + value for name, value in metrics.items()}
        if share.is_meta and number:
            break  # run.memory counts bytes: more parts of the same size take no more
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
