"""SLAC (Lee et al., NeurIPS 2020): learn a latent model of the world, and SAC on top of it.

The critic reads a latent state drawn from the model's posterior. The actor needs no model to act: it reads the newest frames, as the
model's compressor describes them, and the actions between them. SAC's losses do not train the model.
"""

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.machine import Precision
from ..core.method.frames import Frames
from ..core.method.momentum import Momentum
from ..core.method.objective import Metrics
from ..core.method.optim import Adam
from ..core.run.agent import Update
from ..core.run.config import Config
from ..replay import Replay
from .networks import mlp
from .rssm import initialise
from .slac_model import Chain, Model, Steps
from .world_agent import WorldAgent

LOG_STD = (-20.0, 2.0)


class Draw(NamedTuple):
    """The noise of an update."""

    z1: Tensor  # (T, B, z1)
    z2: Tensor  # (T, B, z2)
    next_action: Tensor  # (B, A), of the target
    action: Tensor  # (B, A), of the actor's loss
    temperature: Tensor  # (B, A), of the temperature's loss


class Batch(NamedTuple):
    """What SAC reads of a batch: its newest step."""

    state: Tensor  # (B, z1 + z2)
    next_state: Tensor  # (B, z1 + z2)
    seen: Tensor  # (B, L * F + (L - 1) * A)
    next_seen: Tensor  # (B, L * F + (L - 1) * A)
    action: Tensor  # (B, A)
    reward: Tensor  # (B,)
    discount: Tensor  # (B,): 0 where the task ended


class Critic(nn.Module):
    def __init__(self, latent: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.q1, self.q2 = mlp(latent + actions, hidden, 1), mlp(latent + actions, hidden, 1)

    def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([state, action], -1)
        return self.q1(both)[..., 0], self.q2(both)[..., 0]


class SLAC(WorldAgent):
    columns = ("loss/model", "loss/image", "loss/reward", "model/kl", "loss/critic", "loss/actor", "loss/alpha", "agent/q", "agent/alpha")
    columns += ("agent/entropy", "agent/batch_reward", "grad/model", "grad/critic", "grad/actor", "grad/alpha")

    def __init__(self, config: Config, action_dim: int, precision: Precision, generator: torch.Generator) -> None:
        super().__init__(config, action_dim, precision, generator)
        self.config = own = config.slac
        self.model_updates = config.train.catch_up
        self.stochastic_evaluation = config.quirks.stochastic_evaluation
        self.window = own.length + 1
        self.model = Model(action_dim, own, precision)
        self.features = self.model.compressor.features
        self.actor = mlp(own.length * self.features + (own.length - 1) * action_dim, own.hidden, 2 * action_dim)
        self.critic = Critic(own.z1 + own.z2, action_dim, own.hidden)
        for module in (self.model, self.actor, self.critic):
            initialise(module)
            module.to(self.device)
        self.target = copy.deepcopy(self.critic)
        self.temperature = nn.ParameterDict({"log_alpha": torch.tensor(math.log(own.init_temperature), device=self.device)})
        self.modules = {name: getattr(self, name) for name in ("model", "actor", "critic", "target", "temperature")}
        rates = {"model": own.model_lr, "critic": own.lr, "actor": own.lr, "alpha": own.lr}
        trained = {"model": self.model, "critic": self.critic, "actor": self.actor, "alpha": self.temperature}
        self.optimizers = {name: Adam(trained[name].parameters(), rate) for name, rate in rates.items()}
        self.momentum = Momentum((self.critic, self.target, own.tau))

    def reset_targets(self) -> None:
        self.momentum.copy()

    @property
    def log_alpha(self) -> Tensor:
        return self.temperature["log_alpha"]

    def update_parts(self, replay: Replay) -> Update:
        """The model; after its first updates SAC as well. All gradients are taken before any step."""
        own, alone = self.config, self.updates < self.model_updates
        history = replay.sample_histories(own.model_batch if alone else own.batch_size, own.length)
        steps = Steps(history.action, history.reward, history.not_done, history.first, history.last)
        draw = self.draw(steps.reward.shape[1])
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        metrics, features, chain = self.model_gradient(history.obs, steps, draw)
        if not alone:
            metrics |= self.sac_gradients(self.newest_step(features, chain.latent, steps), draw)
        metrics |= self.take_steps("model") if alone else self.take_steps()
        if not alone:
            self.momentum.step()
        return Update({**metrics, "agent/batch_reward": history.reward[-2].mean()}, {"batch": history})

    def draw(self, n: int) -> Draw:
        actions = (self._normal(n, self.action_dim) for _ in range(3))
        return Draw(self._normal(self.window, n, self.config.z1), self._normal(self.window, n, self.config.z2), *actions)

    def model_gradient(self, obs: Frames, steps: Steps, draw: Draw) -> tuple[Metrics, Tensor, Chain]:
        """KL - log p(image) - log p(reward), of the first `model_batch` sequences. Returns features and latents of all, detached."""
        shape, m = steps.reward.shape, self.config.model_batch
        images = obs.whole().unflatten(0, shape)
        own, rest = slice(m), slice(m, None)
        features, chain = self.follow(images, steps, draw, own)
        parts = self.model.losses(chain, images[:, own].flatten(0, 1), steps.rows(own))
        loss = parts["kl"] + parts["image"] + parts["reward"]
        loss.backward()
        features, chain = features.detach(), Chain(chain.z1.detach(), chain.z2.detach(), chain.q1)
        if shape[1] > m:
            with torch.no_grad():
                more, others = self.follow(images, steps, draw, rest)
            features = torch.cat([features, more], 1)
            chain = Chain(torch.cat([chain.z1, others.z1], 1), torch.cat([chain.z2, others.z2], 1), chain.q1)
        t = shape[0]
        metrics = {"loss/image": parts["image"] / t, "loss/reward": parts["reward"] / (t - 1), "model/kl": parts["kl"] / t}
        return {"loss/model": loss.detach(), **{name: value.detach() for name, value in metrics.items()}}, features, chain

    def follow(self, images: Tensor, steps: Steps, draw: Draw, rows: slice) -> tuple[Tensor, Chain]:
        """Features (T, B, F) and posterior of these rows. images: (T, B, 3, 64, 64)."""
        features = self.model.compressor(images[:, rows].flatten(0, 1)).unflatten(0, (len(images), -1))
        return features, self.model.follow(features, steps.rows(rows), draw.z1[:, rows], draw.z2[:, rows])

    def newest_step(self, features: Tensor, latent: Tensor, steps: Steps) -> Batch:
        seen = actor_input(features[:-1], steps.action[:-2], steps.first[:-1])
        next_seen = actor_input(features[1:], steps.action[1:-1], steps.first[1:])
        return Batch(latent[-2], latent[-1], seen, next_seen, steps.action[-2], steps.reward[-2], steps.discount[-2])

    def sac_gradients(self, batch: Batch, draw: Draw) -> Metrics:
        target = self.target_value(batch, draw.next_action)
        q1, q2 = self.critic(batch.state, batch.action)
        critic_loss = 0.5 * F.mse_loss(q1, target) + 0.5 * F.mse_loss(q2, target)
        critic_loss.backward(inputs=list(self.critic.parameters()))
        action, log_pi, entropy = self.policy(batch.seen, draw.action)
        actor_loss = (self.log_alpha.exp().detach() * log_pi - torch.min(*self.critic(batch.state, action))).mean()
        actor_loss.backward(inputs=list(self.actor.parameters()))
        with torch.no_grad():
            _, drawn_log_pi, _ = self.policy(batch.seen, draw.temperature)
        alpha_loss = (self.log_alpha * (-drawn_log_pi + self.action_dim)).mean()  # of log alpha, not of alpha, as the code has it
        alpha_loss.backward()
        values = {"loss/critic": critic_loss, "loss/actor": actor_loss, "loss/alpha": alpha_loss, "agent/q": q1.mean()}
        values |= {"agent/alpha": self.log_alpha.exp(), "agent/entropy": entropy.mean()}
        return {name: value.detach() for name, value in values.items()}

    @torch.no_grad()
    def target_value(self, batch: Batch, noise: Tensor) -> Tensor:
        """y = r + gamma * discount * (min_i Q'_i(z', a') - alpha * log pi(a'))"""
        action, log_pi, _ = self.policy(batch.next_seen, noise)
        value = torch.min(*self.target(batch.next_state, action)) - self.log_alpha.exp() * log_pi
        return batch.reward + self.config.discount * batch.discount * value

    def policy(self, seen: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (n, A), their log pi (n,), and the entropy of the normal distribution before the tanh (n,)."""
        mean, raw = self.actor(seen).chunk(2, -1)
        log_std = raw.clamp(*LOG_STD)
        u = mean + log_std.exp() * noise
        gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_pi = (gaussian - 2 * (math.log(2) - u - F.softplus(-2 * u))).sum(-1)
        return torch.tanh(u), log_pi, (log_std + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)

    @property
    def memory(self) -> int:
        return (self.config.length - 1) * (self.features + self.action_dim) + 1

    @torch.no_grad()
    def act(
        self, obs: Frames, state: Tensor, explore: bool, generator: torch.Generator | None = None, elsewhere: bool = False
    ) -> tuple[np.ndarray, Tensor]:
        """The acting state: features of the newest L - 1 frames, the actions after them, and whether the episode has begun."""
        stream, before = generator or (self.generator if explore else self.judging), self.config.length - 1
        past, actions, begun = state.split([before * self.features, before * self.action_dim, 1], -1)
        feature = self.model.compressor(obs.whole())
        past = torch.where(begun > 0, past, feature.repeat(1, before))
        frames = torch.cat([past, feature], -1)
        noise = self._normal(len(obs), self.action_dim, generator=stream)
        action, _, _ = self.policy(torch.cat([frames, actions], -1), noise * float(explore or self.stochastic_evaluation))
        followed = torch.cat([frames[:, self.features :], actions[:, self.action_dim :], action, torch.ones_like(begun)], -1)
        return action.cpu().numpy(), followed

    @torch.no_grad()
    def dream(self, frames: Tensor, action: Tensor, context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        length, n = frames.shape[:2]
        nothing = torch.zeros(length, n, device=self.device)
        taken = torch.cat([action[1:], torch.zeros_like(action[:1])])  # of the step that leaves a frame
        steps = Steps(taken, nothing, nothing, nothing > 0, nothing > 0)
        z1, z2 = (self._normal(length, n, size, generator=generator) for size in (self.config.z1, self.config.z2))
        features = self.model.compressor(frames.flatten(0, 1)).unflatten(0, (length, n))
        chain = self.model.follow(features, steps, z1, z2)
        ahead = self.model.foresee(chain.z1[context - 1], chain.z2[context - 1], action[context:], z1[context:], z2[context:])
        predicted = torch.cat([chain.latent[:context], ahead])
        return tuple(self.pictures(latent).view(frames.shape) for latent in (chain.latent, predicted))

    def pictures(self, latent: Tensor) -> Tensor:
        return (self.model.decoder(latent.flatten(0, 1)) * 255).round().clamp(0, 255).to(torch.uint8)


def actor_input(features: Tensor, action: Tensor, first: Tensor) -> Tensor:
    """features (L, B, F), the actions between them (L - 1, B, A) -> (B, L * F + (L - 1) * A).

    Frames before the newest beginning of an episode are replaced by the frame there, and their actions by zeros.
    """
    place = torch.arange(len(features), device=features.device)[:, None]
    begin = (place * first).amax(0)  # (B,)
    frames = features.gather(0, torch.maximum(place, begin)[..., None].expand_as(features))
    actions = action * (place[:-1] >= begin)[..., None]
    return torch.cat([frames.transpose(0, 1).flatten(1), actions.transpose(0, 1).flatten(1)], -1)
