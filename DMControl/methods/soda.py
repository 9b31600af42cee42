"""SODA: SAC as it is, and a projection of strongly augmented views that must meet a slow copy's projection of clean ones."""

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.critic_loss import TD, Metrics
from ..core.method.augment import View
from ..core.method.encoder import Trunk, initialise
from ..core.method.momentum import Momentum
from ..core.method.optim import Adam
from ..core.run.config import Config
from ..replay import Batch, Replay
from .strong_augmentation import Strong, make

if TYPE_CHECKING:
    from ..agents.sac import SAC


def head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Projector(nn.Module):
    """The critic's convolutions and a head of SODA's own."""

    def __init__(self, trunk: Trunk, dim: int) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head(trunk.features, dim, dim)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk(image).float().permute(0, 2, 3, 1).flatten(1))


class SODA(TD):
    def __init__(self, projector: Projector, dim: int, strong: Strong, batch_size: int, lr: float, tau: float, every: int) -> None:
        super().__init__()
        self.projector, self.predictor = projector, head(dim, dim, dim)
        for module in (projector.head, self.predictor):
            initialise(module)
        self.to(next(projector.trunk.parameters()).device)
        self.target = copy.deepcopy(projector)
        self.strong, self.batch_size, self.every = strong, batch_size, every
        self.momentum = Momentum((projector, self.target, tau))
        trained = [*projector.parameters(), *self.predictor.parameters()]
        self.own_optimizers = {"soda": Adam(trained, lr)}

    def after_update(self, agent: "SAC", batch: Batch, view: View, replay: Replay) -> Metrics:
        """Every second update: a batch of its own, two crops of each observation, the first one strongly augmented."""
        if agent.updates % self.every:
            return {}
        obs = replay.sample(self.batch_size, "auxiliary").obs
        views = [agent.augment.draw(len(obs), obs.channels, agent.generator) for _ in range(2)]
        choices = self.strong.draw(len(obs), agent.generator)
        augmented = self.strong.view(agent.augment.view(obs, views[0]), choices)  # whole: BatchNorm wants the batch
        loss = self.distance(augmented, agent.augment.view(obs, views[1]))
        optimizer = self.own_optimizers["soda"]
        optimizer.zero_grad()
        loss.backward()
        norm = optimizer.norm()
        optimizer.step()
        self.momentum.step()
        return {"loss/auxiliary": loss.detach(), "grad/auxiliary": norm}

    def distance(self, augmented: Tensor, clean: Tensor) -> Tensor:
        """Squared distance of the unit vectors, mean over the numbers; no gradient through the slow copy."""
        with torch.no_grad():
            target = F.normalize(self.target(clean), dim=1)
        return F.mse_loss(F.normalize(self.predictor(self.projector(augmented)), dim=1), target)


def build(config: Config, agent: "SAC") -> SODA:
    soda = config.soda
    projector = Projector(agent.critic.encoder.trunk, config.encoder.dim)
    strong = make(config, agent.device)
    return SODA(projector, config.encoder.dim, strong, soda.batch_size, soda.lr, soda.tau, soda.every)
