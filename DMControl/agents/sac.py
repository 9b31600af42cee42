"""Soft actor-critic from pixels. Without an auxiliary objective this is the paper's Baseline."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.machine import Precision
from ..core.method.augment import Augmentation, View
from ..core.method.encoder import Encoder, Trunk, initialise
from ..core.method.frames import Frames
from ..core.method.momentum import Momentum
from ..core.method.objective import Handles, Metrics, Objective, add_gradient, backward_in_parts
from ..core.method.optim import Adam
from ..core.method.pixel_path import PixelPath
from ..core.method.sequence import Sequence
from ..core.run.agent import Agent, Update
from ..core.run.config import Config
from ..core.run.recorder import Recorder
from ..replay import Batch, Replay
from .chunks import images_at_once, rows_of
from .critic_loss import CriticLoss, Transitions
from .networks import Actor, Critic

DIAGNOSED = 16  # sequences for `diagnose`


@dataclass(frozen=True)
class SACHandles(Handles):
    """The encoder is the critic's."""

    critic: Critic  # images and actions -> Q1 and Q2
    target_encoder: Encoder  # the encoder of the target critic
    precision: Precision
    chunk: int  # images per pass through the convolutions


class SAC(Agent):
    """The agent."""

    def __init__(self, config: Config, action_dim: int, precision: Precision, generator: torch.Generator) -> None:
        sac, image, encoder = config.sac, config.image, config.encoder
        self.config, self.device, self.generator = sac, precision.device, generator
        self.crop, self.action_dim, self.chunk = image.crop, action_dim, images_at_once(config.chunk, precision.device)
        self.latent, layers = encoder.dim, len(encoder.strides)
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
        self.actor = Actor(trunk, encoder.dim, action_dim, sac.hidden, tuple(sac.log_std), encoder.tanh, sac.exact_log_prob)
        initialise(self.critic, encoder.init)
        initialise(self.actor, encoder.init)
        self.critic.to(self.device)
        self.actor.to(self.device)
        self.target = copy.deepcopy(self.critic)
        self.log_alpha = nn.Parameter(torch.tensor(float(np.log(sac.init_temperature)), device=self.device))
        self.target_entropy = -float(action_dim)

        self.critic_optimizer = Adam(self.critic.parameters(), sac.lr, weight_decay=sac.weight_decay)
        self.actor_optimizer = Adam(self.actor.parameters(), sac.lr)
        self.alpha_optimizer = Adam([self.log_alpha], sac.alpha_lr, betas=tuple(sac.alpha_betas))
        self.momentum = Momentum(
            (self.critic.encoder, self.target.encoder, sac.encoder_tau),
            (self.critic.q1, self.target.q1, sac.critic_tau),
            (self.critic.q2, self.target.q2, sac.critic_tau),
        )
        no_intensity = config.quirks.rl_without_intensity
        names = [n for n in config.augment.order if n != "intensity" or not no_intensity]
        self.augment = Augmentation(
            names, image.size, image.crop, config.augment.pad, config.augment.intensity, not config.quirks.rl_crop_misses_last,
            dtype=precision.dtype,
        )  # fmt: skip
        self.next_augment = self.augment
        if not config.augment.next_obs:
            self.next_augment = Augmentation([n for n in names if n == "crop"], image.size, image.crop, dtype=precision.dtype)
        self.pixels = PixelPath()
        self.critic_loss = CriticLoss(self.pixels)
        self.objective: Objective | None = None
        self.objective_optimizers: list[Adam] = []
        self.recorder = Recorder(self.device, [generator], config.compile)
        self.updates = 0
        self.held = 0  # updates at the start that count as one with the next, so that actor and targets move in each

    @property
    def handles(self) -> SACHandles:
        """The parts of the agent that an objective may use."""

        def pixels(image: Tensor) -> Tensor:
            with torch.no_grad():  # only the critic's loss trains the pixel path
                return self.pixels(image)

        encoder = self.critic.encoder
        return SACHandles(
            encoder, pixels, self.augment, self.latent, self.crop, self.action_dim, self.device,
            self.critic, self.target.encoder, encoder.trunk.precision, self.chunk,
        )  # fmt: skip

    def set_pixel_path(self, pixels: PixelPath) -> None:
        """Transform the images in front of every encoder."""
        self.pixels = pixels
        self.critic_loss = CriticLoss(pixels)

    def attach(self, objective: Objective, *optimizers: Adam) -> None:
        """Also train the encoder by an auxiliary objective. All its optimisers take a step with the same gradient."""
        if objective.batch_size is None and objective.window > 1:
            raise ValueError(f"an objective with window={objective.window} needs a batch_size: SAC's own batch holds single transitions")
        if objective.shares_state:
            raise ValueError("SAC does not share the latents of its loss: set shares_state=False and encode the observations")
        self.objective, self.objective_optimizers = objective, list(optimizers)

    @property
    def window(self) -> int:
        return 0 if self.objective is None else self.objective.window

    @property
    def columns(self) -> tuple[str, ...]:
        own = ("loss/critic", "loss/actor", "loss/alpha", "agent/q", "agent/alpha", "agent/entropy", "agent/batch_reward")
        own += ("grad/critic", "grad/actor", *self.pixels.columns)
        return own if self.objective is None else (*own, *self.objective.columns, "grad/objective")

    @property
    def diagnostics(self) -> tuple[str, ...]:
        return () if self.objective is None else self.objective.diagnostics

    def begin(self, n: int) -> Tensor:
        return torch.zeros(n, 0)  # SAC has no memory

    @torch.no_grad()
    def act(
        self, obs: Frames, state: Tensor, explore: bool, generator: torch.Generator | None = None, elsewhere: bool = False
    ) -> tuple[np.ndarray, Tensor]:
        """Centre-cropped observations -> actions (N, A) in [-1, 1]. elsewhere: in a world other than that of the training."""
        features = self.critic.encoder.trunk(self.pixels(obs.centre_crop(self.crop), elsewhere))
        noise = self._normal(len(obs), generator) if explore else None
        mean, action, _, _ = self.actor(features, noise)
        return (action if explore else mean).cpu().numpy(), state

    def random_action(self) -> np.ndarray:
        drawn = torch.rand(self.action_dim, generator=self.generator, device=self.device)
        return (drawn * 2 - 1).cpu().numpy()

    @property
    def period(self) -> int:
        """The parts of an update repeat after this many updates."""
        return math.lcm(self.config.actor_every, self.config.target_every, 1 if self.objective is None else self.objective.every)

    @property
    def counted(self) -> int:
        """The number of the next update, as the periods of its parts count."""
        return max(0, self.updates - self.held)

    def update(self, replay: Replay, step: int) -> Update:
        if self.objective is not None:
            self.objective.at_step(step)
        metrics, drawn = self.recorder(self.counted % self.period, lambda: self.update_parts(replay))
        self.updates += 1
        return Update(metrics, drawn)

    def update_parts(self, replay: Replay) -> Update:
        """Critic and objective; every `actor_every` updates actor and temperature; every `target_every` updates the targets."""
        objective = self.objective
        due = objective is not None and self.counted % objective.every == 0
        batch = replay.sample(self.config.batch_size)
        drawn: dict[str, Any] = {"batch": batch}
        view = self.augment.draw(len(batch.action), batch.obs.channels, self.generator)
        metrics = self.update_critic(batch, view)
        if due and not objective.after_targets:
            metrics |= self.update_objective(*self.draw_sequences(replay, batch, view, drawn))
        if self.counted % self.config.actor_every == 0:
            metrics |= self.update_actor(batch.obs, view)  # the same crops
        if self.counted % self.config.target_every == 0:
            self.momentum.step()
            if objective is not None and not objective.after_targets:
                objective.move_targets()
        if due and objective.after_targets:
            metrics |= self.update_objective(*self.draw_sequences(replay, batch, view, drawn))
            objective.move_targets()
        return Update(metrics, drawn)

    def update_critic(self, batch: Batch, view: View) -> Metrics:
        n = len(batch.action)
        k = self.critic_loss.target_views
        next_frames = batch.next_obs.repeat(k)
        next_view = self.next_augment.draw(k * n, next_frames.channels, self.generator)
        noise = self._normal(k * n)
        choices = self.critic_loss.draw(batch, view, self.generator)

        def share(rows: slice) -> tuple[Tensor, Metrics]:
            obs = self.augment.view(batch.obs[rows], view[rows])
            views = slice(k * rows.start, k * rows.stop)
            next_obs = self.next_augment.view(next_frames[views], next_view[views])
            target = self.target_value(next_obs, batch.reward[rows], batch.not_done[rows], noise[views])
            losses, q1 = self.critic_loss.loss(self.critic, Transitions(obs, batch.action[rows], target, rows), choices)
            loss = losses.sum() / n
            seen = {name: value * len(q1) / n for name, value in self.pixels.metrics().items()}
            return loss, {"loss/critic": loss.detach(), "agent/q": q1.detach().sum() / n, **seen}

        optimizers = {"critic": self.critic_optimizer} | ({} if self.pixels.optimizer is None else {"pixels": self.pixels.optimizer})
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        metrics = backward_in_parts(rows_of(n, self.chunk), share)
        norms = {f"grad/{name}": optimizer.norm() for name, optimizer in optimizers.items()}
        for optimizer in optimizers.values():
            optimizer.step()
        return {**metrics, "agent/batch_reward": batch.reward.mean(), **norms}

    @torch.no_grad()
    def target_value(self, next_obs: Tensor, reward: Tensor, not_done: Tensor, noise: Tensor) -> Tensor:
        """y = r + gamma * not_done * (min_i Q'_i(s', a') - alpha * log pi(a'|s')), a' ~ pi(s'). The mean over the views of s'."""
        seen = self.pixels(next_obs)
        _, action, log_pi, _ = self.actor(self.critic.encoder.trunk(seen), noise)
        q1, q2 = self.target(seen, action)
        value = torch.min(q1, q2) - self.log_alpha.exp() * log_pi
        if len(value) > len(reward):
            value = value.view(len(reward), -1).mean(1, keepdim=True)
        return reward + not_done * self.config.discount * value

    def draw_sequences(self, replay: Replay, batch: Batch, view: View, drawn: dict[str, Any]) -> tuple[Sequence, View | None]:
        """The batch of the objective: its own sequences, or the critic's batch with the critic's view."""
        if self.objective.batch_size is None:
            return batch.as_sequence(), view
        drawn["sequence"] = replay.sample_sequences(self.objective.batch_size, self.objective.window)
        return drawn["sequence"], None

    def update_objective(self, sequence: Sequence, view: View | None = None) -> Metrics:
        first, *more = self.objective_optimizers
        for optimizer in self.objective_optimizers:
            optimizer.zero_grad()
        weight = sequence.valid * sequence.weight / sequence.valid.sum().clamp_min(1.0)  # without any valid sequence the gradient is 0
        metrics = add_gradient(self.objective, sequence, weight, self.generator, view)
        norm = first.norm() if first.clip is None else None
        clipped = first.step()
        for optimizer in more:
            optimizer.step()
        return metrics | {"grad/objective": clipped if norm is None else norm}

    def update_actor(self, batch_obs: Frames, view: View) -> Metrics:
        n = len(batch_obs)
        noise = self._normal(n)

        def share(rows: slice) -> tuple[Tensor, Metrics]:
            obs = self.augment.view(batch_obs[rows], view[rows])
            actor_loss, alpha_loss, log_std = self.actor_losses(obs, noise[rows])
            part = len(obs) / n
            entropy = 0.5 * log_std.shape[-1] * (1 + np.log(2 * np.pi)) + log_std.sum(-1).mean()
            values = {"loss/actor": actor_loss, "loss/alpha": alpha_loss, "agent/entropy": entropy}
            return actor_loss * part + alpha_loss * part, {name: value.detach() * part for name, value in values.items()}

        self.actor_optimizer.zero_grad()
        self.alpha_optimizer.zero_grad()
        with _frozen(self.critic):
            metrics = backward_in_parts(rows_of(n, self.chunk), share)
        norm = self.actor_optimizer.norm()
        self.actor_optimizer.step()
        self.alpha_optimizer.step()
        return metrics | {"agent/alpha": self.log_alpha.detach().exp(), "grad/actor": norm}

    def actor_losses(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E[alpha * log pi - min_i Q_i] and E[alpha * (-log pi - target entropy)]; the convolutions get no gradient."""
        with torch.no_grad():
            features = self.critic.encoder.trunk(self.pixels(obs))
            state = self.critic.encoder.head(features)
        _, action, log_pi, log_std = self.actor(features, noise)
        q1, q2 = self.critic.values(state, action)
        actor_loss = (self.log_alpha.exp().detach() * log_pi - torch.min(q1, q2)).mean()
        alpha_loss = (self.log_alpha.exp() * (-log_pi - self.target_entropy).detach()).mean()
        return actor_loss, alpha_loss, log_std

    @torch.no_grad()
    def diagnose(self, replay: Replay, seed: int) -> tuple[dict[str, float], dict[str, Tensor]]:
        if self.objective is None or not self.objective.diagnostics or len(replay) <= 2 * self.objective.window:
            return {}, {}
        generator = torch.Generator(self.device).manual_seed(seed)  # does not advance the random stream of the run
        return self.objective.diagnose(replay.sample_sequences(DIAGNOSED, self.objective.window, generator), generator)

    def seen(self, obs: Frames, elsewhere: bool = False) -> dict[str, Tensor]:
        return self.pixels.pictures(obs.centre_crop(self.crop), elsewhere)

    @property
    def transferable(self) -> dict[str, nn.Module]:
        found = {"encoder": self.critic.encoder, "critic": nn.ModuleList([self.critic.q1, self.critic.q2]), "actor": self.actor}
        return found if self.pixels.optimizer is None else found | {"masker": self.pixels}

    def reset_targets(self) -> None:
        self.momentum.copy()
        if self.objective is not None:
            self.objective.reset_targets()

    def networks(self) -> dict[str, Any]:
        return super().networks() | {"log_alpha": self.log_alpha.detach()}

    def load_networks(self, state: dict[str, Any]) -> None:
        super().load_networks(state)
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])

    @property
    def modules(self) -> dict[str, nn.Module]:
        found = {"critic": self.critic, "actor": self.actor, "target": self.target, "pixels": self.pixels, "objective": self.objective}
        return {name: module for name, module in found.items() if module is not None}

    @property
    def optimizers(self) -> dict[str, Adam]:
        out = {"critic": self.critic_optimizer, "actor": self.actor_optimizer, "alpha": self.alpha_optimizer}
        out |= {f"objective{number}": optimizer for number, optimizer in enumerate(self.objective_optimizers)}
        return out if self.pixels.optimizer is None else out | {"pixels": self.pixels.optimizer}

    def _normal(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, self.action_dim, generator=generator or self.generator, device=self.device)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Compute no gradients for these parameters: the actor's loss uses the critic but does not train it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
