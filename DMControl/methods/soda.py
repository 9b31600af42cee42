"""SODA: SAC, and an objective that brings projections of strongly augmented views close to a slow copy's of clean views."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.sac import SAC, SACHandles
from ..core.method.augment import Augmentation, View
from ..core.method.encoder import initialise
from ..core.method.momentum import Momentum
from ..core.method.objective import Metrics, Objective
from ..core.method.optim import Adam
from ..core.method.sequence import Sequence
from ..core.method.strong_augmentation import StrongAugmentation
from ..core.run.config import Config
from .strong_augmentation import make


def head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Projector(nn.Module):
    """The critic's convolutions and SODA's head."""

    def __init__(self, handles: SACHandles) -> None:
        super().__init__()
        self.trunk, self.pixels = handles.encoder.trunk, handles.pixels
        self.head = head(self.trunk.features, handles.latent, handles.latent)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk(self.pixels(image)).float().permute(0, 2, 3, 1).flatten(1))


class SODA(Objective):
    """Draws its own batch and crops each observation twice. The first crop is strongly augmented, the second is the target."""

    after_targets = True
    columns = ("loss/soda",)

    def __init__(
        self, projector: Projector, dim: int, augment: Augmentation, strong: StrongAugmentation, batch_size: int, tau: float, every: int
    ) -> None:
        super().__init__()
        self.projector, self.predictor = projector, head(dim, dim, dim)
        for module in (projector.head, self.predictor):
            initialise(module)
        self.to(next(projector.trunk.parameters()).device)
        self.target = copy.deepcopy(projector)
        self.augment, self.strong, self.batch_size, self.every = augment, strong, batch_size, every
        self.targets = Momentum((projector, self.target, tau))

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Any:
        obs = sequence.obs
        views = [self.augment.draw(len(obs), obs.channels, generator) for _ in range(2)]
        choices = self.strong.draw(len(obs), generator)
        augmented = self.strong.view(self.augment.view(obs, views[0]), choices)
        yield augmented, self.augment.view(obs, views[1])  # one part, because BatchNorm needs the whole batch

    def loss(self, part: tuple[Tensor, Tensor]) -> tuple[Tensor, Metrics]:
        """The mean loss of the batch, repeated for each observation."""
        loss = self.distance(*part)
        return loss.expand(len(part[0])), {"loss/soda": loss.detach()}

    def distance(self, augmented: Tensor, clean: Tensor) -> Tensor:
        """The mean squared difference of the unit vectors. The slow copy gets no gradient."""
        with torch.no_grad():
            target = F.normalize(self.target(clean), dim=1)
        return F.mse_loss(F.normalize(self.predictor(self.projector(augmented)), dim=1), target)


def build(config: Config, agent: SAC) -> None:
    soda, handles = config.soda, agent.handles
    projector = Projector(handles)
    strong = make(config, handles.device)
    objective = SODA(projector, handles.latent, handles.augment, strong, soda.batch_size, soda.tau, soda.every)
    agent.attach(objective, Adam(objective.trained(), soda.lr))
