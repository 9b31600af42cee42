"""Soft actor-critic from pixels. Without an auxiliary objective this is the paper's Baseline."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import machine
from ..core.machine import Precision
from ..core.method.augment import Augmentation, View
from ..core.method.encoder import Encoder, Head, Trunk, initialise
from ..core.method.frames import Frames
from ..core.method.momentum import Momentum
from ..core.method.optim import Adam
from ..core.method.reconstruction import Objective
from ..core.run.config import Config
from ..core.run.recorder import Recorder
from ..replay import Batch, Replay
from .critic_loss import TD, Part

Metrics = dict[str, Tensor]


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Actor(nn.Module):
    """Its own head on the critic's convolutions, then a tanh-Gaussian policy."""

    def __init__(self, trunk: Trunk, dim: int, action_dim: int, hidden: int, log_std: tuple[float, float], tanh: bool = False) -> None:
        super().__init__()
        self.head = Head(trunk, dim, tanh)
        self.policy = mlp(dim, hidden, 2 * action_dim)
        self.low, self.high = log_std

    def forward(self, features: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features -> tanh(mu), tanh(mu + sigma * noise), log pi of the latter (N, 1), log sigma (N, A)."""
        mu, raw = self.policy(self.head(features)).chunk(2, -1)
        log_std = self.low + 0.5 * (self.high - self.low) * (torch.tanh(raw) + 1)
        if noise is None:
            noise = torch.zeros_like(mu)
        action = torch.tanh(mu + log_std.exp() * noise)
        # log N(u; mu, sigma) - sum log(1 - tanh(u)^2)
        gaussian = (-0.5 * noise.square() - log_std).sum(-1, keepdim=True) - 0.5 * np.log(2 * np.pi) * noise.shape[-1]
        log_pi = gaussian - torch.log(F.relu(1 - action.square()) + 1e-6).sum(-1, keepdim=True)
        return torch.tanh(mu), action, log_pi, log_std


class Critic(nn.Module):
    """Encoder and two Q functions of (state, action)."""

    def __init__(self, trunk: Trunk, dim: int, action_dim: int, hidden: int, tanh: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(trunk, dim, tanh)
        self.q1 = mlp(dim + action_dim, hidden, 1)
        self.q2 = mlp(dim + action_dim, hidden, 1)

    def values(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([state, action], -1)
        return self.q1(both), self.q2(both)  # (N, 1) each

    def forward(self, image: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return self.values(self.encoder(image), action)


class SAC:
    """The agent: acts, and updates itself from the replay."""

    def __init__(self, config: Config, action_dim: int, precision: Precision, generator: torch.Generator) -> None:
        sac, image, encoder = config.sac, config.image, config.encoder
        self.config, self.device, self.generator = sac, precision.device, generator
        self.crop, self.action_dim, self.chunk = image.crop, action_dim, _chunk(config.chunk, precision.device)
        layers = len(encoder.strides)
        trunk = Trunk(
            3 * image.stack,
            image.crop,
            [encoder.filters] * layers,
            [3] * layers,
            encoder.strides,
            precision,
            encoder.centre,
            encoder.last_relu,
        )
        self.critic = Critic(trunk, encoder.dim, action_dim, sac.hidden, encoder.tanh)
        self.actor = Actor(trunk, encoder.dim, action_dim, sac.hidden, tuple(sac.log_std), encoder.tanh)
        initialise(self.critic, encoder.init)
        initialise(self.actor, encoder.init)
        self.critic.to(self.device)
        self.actor.to(self.device)
        self.target = copy.deepcopy(self.critic)
        self.log_alpha = nn.Parameter(torch.tensor(float(np.log(sac.init_temperature)), device=self.device))
        self.target_entropy = -float(action_dim)

        self.critic_optimizer = Adam(self.critic.parameters(), sac.lr, weight_decay=sac.weight_decay)
        self.actor_optimizer = Adam(self.actor.parameters(), sac.lr)
        self.alpha_optimizer = Adam([self.log_alpha], sac.alpha_lr, betas=(0.5, 0.999))
        self.momentum = Momentum(
            (self.critic.encoder, self.target.encoder, sac.encoder_tau),
            (self.critic.q1, self.target.q1, sac.critic_tau),
            (self.critic.q2, self.target.q2, sac.critic_tau),
        )
        no_intensity = config.quirks.rl_without_intensity
        names = [n for n in config.augment.order if n != "intensity" or not no_intensity]
        self.augment = Augmentation(
            names, image.size, image.crop, config.augment.pad, config.augment.intensity, not config.quirks.rl_crop_misses_last
        )
        self.next_augment = self.augment
        if not config.augment.next_obs:
            self.next_augment = Augmentation([n for n in names if n == "crop"], image.size, image.crop)
        self.critic_loss = TD()
        self.objective: Objective | None = None
        self.objective_optimizer: Adam | None = None
        self.recorder = Recorder(self.device, [generator], config.compile)
        self.updates = 0

    def attach(self, objective: Objective, optimizer: Adam) -> None:
        """Train the encoder by an auxiliary objective as well, with an optimiser of its own."""
        self.objective, self.objective_optimizer = objective, optimizer

    @torch.no_grad()
    def act(self, obs: Frames, sample: bool) -> np.ndarray:
        """Centre-cropped observations -> actions (N, A) in [-1, 1]."""
        features = self.critic.encoder.trunk(self.critic_loss.see(obs.centre_crop(self.crop), judging=not sample))
        noise = self._normal(len(obs)) if sample else None
        mean, action, _, _ = self.actor(features, noise)
        return (action if sample else mean).cpu().numpy()

    def random_action(self) -> np.ndarray:
        drawn = torch.rand(self.action_dim, generator=self.generator, device=self.device)
        return (drawn * 2 - 1).cpu().numpy()

    @property
    def period(self) -> int:
        """Updates after which the same parts are due again."""
        return math.lcm(self.config.actor_every, self.config.target_every, self.critic_loss.every)

    def update(self, replay: Replay) -> Metrics:
        metrics, replay.drawn = self.recorder(self.updates % self.period, lambda: (self.update_parts(replay), replay.drawn))
        self.updates += 1
        return metrics

    def update_parts(self, replay: Replay) -> Metrics:
        """Critic, objective, and every second time actor, temperature and targets."""
        replay.drawn = {}
        batch = replay.sample(self.config.batch_size)
        view = self.augment.draw(len(batch.action), batch.obs.channels, self.generator)
        metrics = self.update_critic(batch, view)
        if self.objective is not None and self.objective.place == "after_critic":
            metrics |= self.update_objective(replay)
        if self.updates % self.config.actor_every == 0:
            metrics |= self.update_actor(batch.obs, view)  # the same crops
        if self.updates % self.config.target_every == 0:
            self.momentum.step()
            if self.objective is not None:
                self.objective.after_step()
        if self.objective is not None and self.objective.place == "after_targets":
            metrics |= self.update_objective(replay)
        return metrics | self.critic_loss.after_update(self, batch, view, replay)

    def update_critic(self, batch: Batch, view: View) -> Metrics:
        n = len(batch.action)
        next_view = self.next_augment.draw(n, batch.next_obs.channels, self.generator)
        noise = self._normal(n)
        choices = self.critic_loss.draw(batch, self.generator)
        optimizers = [self.critic_optimizer, *self.critic_loss.optimizers.values()]
        for optimizer in optimizers:
            optimizer.zero_grad()
        total, means = torch.zeros((), device=self.device), {}
        for part in self._parts(n):
            obs = self.augment.view(batch.obs[part], view[part])
            next_obs = self.next_augment.view(batch.next_obs[part], next_view[part])
            target = self.target_value(next_obs, batch.reward[part], batch.not_done[part], noise[part])
            losses, sums = self.critic_loss.loss(self.critic, Part(obs, batch.action[part], target, part), choices)
            loss = losses.sum() / n
            loss.backward()
            total += loss.detach()
            means = {k: means.get(k, 0) + v / n for k, v in sums.items()}
        norms = {"grad/critic": self.critic_optimizer.norm()}
        norms |= {f"grad/{name}": optimizer.norm() for name, optimizer in self.critic_loss.optimizers.items()}
        for optimizer in optimizers:
            optimizer.step()
        return {"loss/critic": total, **means, "agent/batch_reward": batch.reward.mean(), **norms}

    @torch.no_grad()
    def target_value(self, next_obs: Tensor, reward: Tensor, not_done: Tensor, noise: Tensor) -> Tensor:
        """y = r + gamma * not_done * (min_i Q'_i(s', a') - alpha * log pi(a'|s')), a' ~ pi(s')."""
        seen = self.critic_loss.see(next_obs)
        _, action, log_pi, _ = self.actor(self.critic.encoder.trunk(seen), noise)
        q1, q2 = self.target(seen, action)
        return reward + not_done * self.config.discount * (torch.min(q1, q2) - self.log_alpha.exp() * log_pi)

    def update_objective(self, replay: Replay) -> Metrics:
        objective, optimizer = self.objective, self.objective_optimizer
        window = replay.sample_windows(objective.batch_size, objective.window)
        total = window.weight.sum().clamp_min(1.0)  # no good window at all: no gradient
        optimizer.zero_grad()
        sums: Metrics = {}
        for part in objective.parts(window, self.generator):
            loss, metrics = objective.loss(part)  # (B,)
            weight = part.window.weight / total
            (loss * weight).sum().backward()
            share = weight.sum()
            sums = {k: sums.get(k, 0) + v * share for k, v in metrics.items()}
        norm = optimizer.step()
        return sums | ({} if norm is None else {"grad/objective": norm})

    def update_actor(self, batch_obs: Frames, view: View) -> Metrics:
        n = len(batch_obs)
        noise = self._normal(n)
        self.actor_optimizer.zero_grad()
        self.alpha_optimizer.zero_grad()
        sums = {k: torch.zeros((), device=self.device) for k in ("loss/actor", "loss/alpha", "agent/entropy")}
        with _frozen(self.critic):
            for part in self._parts(n):
                obs = self.augment.view(batch_obs[part], view[part])
                actor_loss, alpha_loss, log_std = self.actor_losses(obs, noise[part])
                share = len(obs) / n
                (actor_loss * share).backward()
                (alpha_loss * share).backward()
                entropy = 0.5 * log_std.shape[-1] * (1 + np.log(2 * np.pi)) + log_std.sum(-1).mean()
                for name, value in zip(sums, (actor_loss, alpha_loss, entropy), strict=True):
                    sums[name] += value.detach() * share
        norm = self.actor_optimizer.norm()
        self.actor_optimizer.step()
        self.alpha_optimizer.step()
        return sums | {"agent/alpha": self.log_alpha.detach().exp(), "grad/actor": norm}

    def actor_losses(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E[alpha * log pi - min_i Q_i] and E[alpha * (-log pi - target entropy)]; the convolutions run once, detached."""
        with torch.no_grad():
            features = self.critic.encoder.trunk(self.critic_loss.see(obs))
            state = self.critic.encoder.head(features)
        _, action, log_pi, log_std = self.actor(features, noise)
        q1, q2 = self.critic.values(state, action)
        actor_loss = (self.log_alpha.exp().detach() * log_pi - torch.min(q1, q2)).mean()
        alpha_loss = (self.log_alpha.exp() * (-log_pi - self.target_entropy).detach()).mean()
        return actor_loss, alpha_loss, log_std

    def networks(self) -> dict[str, Any]:
        """What acting needs, and the rest of the parameters."""
        out = {
            "critic": self.critic.state_dict(),
            "actor": self.actor.state_dict(),
            "target": self.target.state_dict(),
            "log_alpha": self.log_alpha.detach(),
        }
        collaborators = {"objective": self.objective, "critic_loss": self.critic_loss}
        return out | {k: c.state_dict() for k, c in collaborators.items() if c is not None and c.state_dict()}

    def load_networks(self, state: dict[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.actor.load_state_dict(state["actor"])
        self.target.load_state_dict(state["target"])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        if self.objective is not None:
            self.objective.load_state_dict(state["objective"])
        self.critic_loss.load_state_dict(state.get("critic_loss", {}))

    def state_dict(self) -> dict[str, Any]:
        """Optimisers, counters and random stream."""
        optimizers = {k: v.state_dict() for k, v in self._optimizers().items()}
        return {"optimizers": optimizers, "updates": self.updates, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recorder.forget()
        for name, optimizer in self._optimizers().items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.updates = state["updates"]
        machine.restore(self.generator, state["generator"])

    def _optimizers(self) -> dict[str, Adam]:
        out = {"critic": self.critic_optimizer, "actor": self.actor_optimizer, "alpha": self.alpha_optimizer}
        out |= self.critic_loss.optimizers | self.critic_loss.own_optimizers
        return out if self.objective_optimizer is None else out | {"objective": self.objective_optimizer}

    def _normal(self, n: int) -> Tensor:
        return torch.randn(n, self.action_dim, generator=self.generator, device=self.device)

    def _parts(self, n: int) -> Iterator[slice]:
        """Images go through the convolutions in parts: gradients add up to the same, memory is bounded."""
        for start in range(0, n, self.chunk):
            yield slice(start, min(n, start + self.chunk))


def _chunk(images: int, device: torch.device) -> int:
    if images:
        return images
    return 128 if device.type == "cpu" else 1 << 30


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for these parameters: the actor's loss passes through the critic, it does not train it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
