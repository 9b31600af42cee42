"""Dreamer (Hafner et al., ICLR 2020): learn a model of the world, and in it an actor and a value function, by imagination alone.

From every state of the batch the actor imagines H steps. Rewards, values and dynamics are differentiable, and so the actor climbs
the gradient of its returns through all of them.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.machine import Precision
from ..core.method.objective import Metrics
from ..core.method.optim import Adam
from ..core.run.agent import Update
from ..core.run.config import Config
from ..replay import Chunk, Replay
from .networks import mlp
from .rssm import State, log_prob
from .rssm_agent import RSSMAgent
from .world_agent import parameters

MEAN_SCALE = 5.0  # the mean before the tanh lies within this
RAW_STD = math.log(math.exp(5.0) - 1)  # its softplus is 5: the std begins near 5
MIN_STD = 1e-4
CANDIDATES = 100  # samples of which an evaluation takes the most likely one


class Policy(NamedTuple):
    """tanh of a normal distribution."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        return torch.tanh(self.mean + self.std * noise)

    def log_prob(self, action: Tensor) -> Tensor:
        """log pi, summed over the action. The value before the tanh is found back from the action, as in the official code."""
        u = torch.atanh(action.clamp(-0.99999997, 0.99999997))
        gaussian = -0.5 * ((u - self.mean) / self.std).square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return (gaussian - 2 * (math.log(2) - u - F.softplus(-2 * u))).sum(-1)

    def mode(self, noise: Tensor) -> Tensor:
        """The most likely of the samples that noise (CANDIDATES, n, A) gives: (n, A)."""
        samples = self.sample(noise)
        best = self.log_prob(samples).argmax(0)  # (n,)
        return samples.gather(0, best[None, :, None].expand(1, -1, samples.shape[-1]))[0]

    def entropy(self) -> Tensor:
        """Of the normal distribution, before the tanh."""
        return (self.std.log() + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)


class Draw(NamedTuple):
    """The random choices of an update. The model's noise is shared by all rows, if quirks.shared_noise."""

    posterior: Tensor  # (T, 1 or B, S)
    state: Tensor  # (H, 1 or T * B, S)
    action: Tensor  # (H, T * B, A)


class Imagined(NamedTuple):
    """H imagined steps from each of N states, without the states themselves."""

    features: Tensor  # (H, N, S + D)
    reward: Tensor  # (H, N)
    value: Tensor  # (H, N)
    entropy: Tensor  # (H, N), of the policy


class Dreamer(RSSMAgent):
    columns = (*RSSMAgent.columns, "loss/actor", "loss/value", "agent/return", "agent/value", "agent/entropy", "grad/actor", "grad/value")

    def __init__(self, config: Config, action_dim: int, precision: Precision, generator: torch.Generator) -> None:
        own, elu = config.dreamer, (F.elu, nn.ELU)
        super().__init__(config, own, action_dim, precision, generator, elu, nn.GRUCell, 2)
        features = own.stoch + own.deter
        self.actor = mlp(features, own.hidden, 2 * action_dim, 4, nn.ELU)
        self.value = mlp(features, own.hidden, 1, 3, nn.ELU)
        self.modules |= {"actor": self.actor, "value": self.value}
        self.place()
        tf1 = own.version == "tf1"
        self.bootstrap_early, eps = tf1, 1e-4 if tf1 else 1e-7
        model = parameters(self.encoder, self.rssm, self.decoder, self.reward)
        self.optimizers = {
            "model": Adam(model, own.model_lr, eps=eps, clip=own.clip),
            "actor": Adam(self.actor.parameters(), own.actor_lr, eps=eps, clip=own.clip),
            "value": Adam(self.value.parameters(), own.value_lr, eps=eps, clip=own.clip),
        }
        self.shared_noise, self.model_updates = config.quirks.shared_noise, own.model_updates

    def update_parts(self, replay: Replay) -> Update:
        """Model, actor and value; the first `model_updates` train the model alone. All gradients are taken before any step."""
        own = self.config
        chunk = replay.sample_chunks(own.batch_size, own.length)
        draw = self.draw()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        metrics, start = self.model_gradient(chunk, draw)
        trained = ["model"]
        if self.updates >= self.model_updates:
            metrics |= self.behaviour_gradients(start, draw)
            trained += ["actor", "value"]
        return Update({**metrics, "agent/batch_reward": chunk.reward.mean(), **self.take_steps(*trained)}, {"batch": chunk})

    def draw(self) -> Draw:
        own = self.config
        starts = own.length * own.batch_size
        rows = (1, 1) if self.shared_noise else (own.batch_size, starts)
        return Draw(
            self._normal(own.length, rows[0], own.stoch),
            self._normal(own.horizon, rows[1], own.stoch),
            self._normal(own.horizon, starts, self.action_dim),
        )

    def model_gradient(self, chunk: Chunk, draw: Draw) -> tuple[Metrics, State]:
        """max(free nats, mean KL) - log p(image) - log p(reward). Returns the states of the batch as well."""
        fit = self.fit(chunk, draw.posterior)
        loss = fit.kl.mean().clamp_min(self.config.free_nats) - fit.image - fit.reward
        loss.backward()
        start = State(*(part.detach().flatten(0, 1) for part in fit.filtered.state))
        return {"loss/model": loss.detach(), **fit.metrics()}, start

    def behaviour_gradients(self, start: State, draw: Draw) -> Metrics:
        """The actor climbs the imagined returns; the value function learns them."""
        imagined = self.imagine(start, draw)
        returns = self.returns(imagined)  # (H - 1, N)
        weight = self.config.discount ** torch.arange(len(returns), device=self.device)[:, None]
        actor_loss = -(weight * returns).mean()
        actor_loss.backward(inputs=list(self.actor.parameters()), retain_graph=True)
        value_loss = -(weight * log_prob(imagined.value[:-1], returns.detach())).mean()
        value_loss.backward(inputs=list(self.value.parameters()))
        return {
            "loss/actor": actor_loss.detach(),
            "loss/value": value_loss.detach(),
            "agent/return": returns.detach().mean(),
            "agent/value": imagined.value.detach().mean(),
            "agent/entropy": imagined.entropy.detach().mean(),
        }

    def imagine(self, start: State, draw: Draw) -> Imagined:
        """Act in the model. The actor sees states without passing a gradient back through them."""
        state, features, entropies = start, [], []
        for state_noise, action_noise in zip(draw.state, draw.action, strict=True):
            policy = self.policy_of(state.features.detach())
            state = self.rssm.imagine(state, policy.sample(action_noise), state_noise)
            features.append(state.features)
            entropies.append(policy.entropy())
        every = torch.stack(features)
        return Imagined(every, self.reward(every)[..., 0], self.value(every)[..., 0], torch.stack(entropies))

    def returns(self, imagined: Imagined) -> Tensor:
        """The lambda-returns of all imagined states but the last, whose value ends them."""
        reward, value = imagined.reward[:-1], imagined.value[:-1]
        bootstrap = value[-1] if self.bootstrap_early else imagined.value[-1]
        return lambda_return(reward, value, torch.full_like(reward, self.config.discount), bootstrap, self.config.return_lambda)

    def policy_of(self, features: Tensor) -> Policy:
        mean, raw = self.actor(features).chunk(2, -1)
        return Policy(MEAN_SCALE * torch.tanh(mean / MEAN_SCALE), F.softplus(raw + RAW_STD) + MIN_STD)

    def policy(self, state: State, explore: bool, generator: torch.Generator) -> Tensor:
        policy, shape = self.policy_of(state.features), (len(state.stoch), self.action_dim)
        if explore:
            return policy.sample(self._normal(*shape, generator=generator))
        return policy.mode(self._normal(CANDIDATES, *shape, generator=generator))


def lambda_return(reward: Tensor, value: Tensor, discount: Tensor, bootstrap: Tensor, lam: float) -> Tensor:
    """R_k = r_k + discount_k ((1 - lambda) v_{k+1} + lambda R_{k+1}); the last v and R are the bootstrap. Steps come first."""
    following = torch.cat([value[1:], bootstrap[None]])
    found, later = [], bootstrap
    for r, d, v in zip(reward.flip(0), discount.flip(0), following.flip(0), strict=True):
        later = r + d * ((1 - lam) * v + lam * later)
        found.append(later)
    return torch.stack(found[::-1])
