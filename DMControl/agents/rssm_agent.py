"""How Dreamer and PlaNet learn their model, and how they follow an episode with it."""

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..core.machine import Precision
from ..core.method.frames import Frames
from ..core.method.objective import Metrics
from ..core.run.agent import Update
from ..core.run.config import Config
from ..replay import Chunk, Replay
from .networks import mlp
from .rssm import RSSM, Activation, Decoder, Filtered, State, flat, image_log_prob, initialise, log_prob, make_encoder
from .world_agent import WorldAgent


class Fit(NamedTuple):
    """How well the model explains a batch; what its loss is made of."""

    filtered: Filtered
    image: Tensor  # mean log p(image)
    reward: Tensor  # mean log p(reward)
    kl: Tensor  # (T, B)

    def metrics(self) -> Metrics:
        return {
            "loss/image": -self.image.detach(),
            "loss/reward": -self.reward.detach(),
            "model/kl": self.kl.detach().mean(),
            "model/prior_entropy": self.filtered.prior.entropy().detach().mean(),
            "model/posterior_entropy": self.filtered.posterior.entropy().detach().mean(),
        }


class RSSMAgent(WorldAgent):
    """Encoder, latent state, decoder and reward head. The acting state is (stoch, deter, newest action)."""

    columns = ("loss/model", "loss/image", "loss/reward", "model/kl", "model/prior_entropy", "model/posterior_entropy")
    columns += ("agent/batch_reward", "grad/model")

    def __init__(
        self, config: Config, own: Config, action_dim: int, precision: Precision, generator: torch.Generator,
        activation: tuple[Activation, type[nn.Module]], cell: type[nn.Module], reward_layers: int, centre: float = 127.5,
    ) -> None:  # fmt: skip
        """own: the settings of this method; centre: of the pixels that the encoder takes."""
        super().__init__(config, action_dim, precision, generator)
        self.config, self.window = own, own.length
        self.encoder = make_encoder(own.filters, precision, [centre] * 3)
        self.rssm = RSSM(action_dim, self.encoder.features, own.stoch, own.deter, activation[0], cell)
        features = own.stoch + own.deter
        self.decoder = Decoder(features, own.filters, precision)
        self.reward = mlp(features, own.hidden, 1, reward_layers, activation[1])
        self.modules = {"encoder": self.encoder, "rssm": self.rssm, "decoder": self.decoder, "reward": self.reward}

    def place(self) -> None:
        """Initialise all networks, and bring them to the device."""
        for module in self.modules.values():
            initialise(module)
            module.to(self.device)

    @property
    def memory(self) -> int:
        return self.config.stoch + self.config.deter + self.action_dim

    def prepare(self, obs: Frames, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the encoder takes, and the decoder's target: pixels in [-0.5, 0.5]."""
        pixels = obs.whole()
        return pixels, pixels.to(torch.float32, memory_format=torch.channels_last).div_(255).sub_(0.5)

    def embed(self, pixels: Tensor) -> Tensor:
        return flat(self.encoder(pixels))

    def fit(self, chunk: Chunk, noise: Tensor, pixel_noise: Tensor | None = None) -> Fit:
        """Follow the sequences, and measure how well the model explains them. noise (T, 1 or B, S): of the posterior."""
        pixels, target = self.prepare(chunk.obs, pixel_noise)
        embed = self.embed(pixels).unflatten(0, chunk.reward.shape)
        filtered = self.rssm.observe(embed, chunk.action, noise)
        features = filtered.state.features  # (T, B, S + D)
        image = image_log_prob(self.decoder(features.flatten(0, 1)), target)
        reward = log_prob(self.reward(features)[..., 0], chunk.reward)
        return Fit(filtered, image.mean(), reward.mean(), filtered.posterior.kl(filtered.prior))

    def update(self, replay: Replay, step: int) -> Update:
        replay.require_chunk(self.window)  # here, since a recorded update only repeats its operations
        return super().update(replay, step)

    @abstractmethod
    def policy(self, state: State, explore: bool, generator: torch.Generator) -> Tensor:
        """Actions (n, A) of latent states."""

    @torch.no_grad()
    def act(
        self, obs: Frames, state: Tensor, explore: bool, generator: torch.Generator | None = None, elsewhere: bool = False
    ) -> tuple[np.ndarray, Tensor]:
        """Follow the episode by one picture, then choose an action. With `explore`, noise is added to it."""
        stream = generator or (self.generator if explore else self.judging)
        n, own = len(obs), self.config
        stoch, deter, action = state.split([own.stoch, own.deter, self.action_dim], -1)
        pixels, _ = self.prepare(obs, self.pixel_noise(n, stream))
        seen = self.rssm.look(self.embed(pixels))
        latent, _ = self.rssm.follow(State(stoch, deter), action, seen, self._normal(n, own.stoch, generator=stream))
        action = self.policy(latent, explore, stream)
        if explore:
            action = (action + own.exploration * self._normal(n, self.action_dim, generator=stream)).clamp(-1, 1)
        return action.cpu().numpy(), torch.cat([latent.stoch, latent.deter, action], -1)

    def pixel_noise(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Noise of n images, where the method adds some."""
        return None

    @torch.no_grad()
    def dream(self, frames: Tensor, action: Tensor, context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        length, n = frames.shape[:2]
        pixels, _ = self.prepare(Frames.of_images(frames.flatten(0, 1)), self.pixel_noise(length * n, generator))
        embed = self.embed(pixels).unflatten(0, (length, n))
        noise = self._normal(length, n, self.config.stoch, generator=generator)
        state = self.rssm.observe(embed, action, noise).state
        reconstructed = self.decoder(state.features.flatten(0, 1))
        last = State(state.stoch[context - 1], state.deter[context - 1])
        ahead = self.rssm.foresee(last, action[context:], noise[context:])
        predicted = torch.cat([reconstructed[: context * n], self.decoder(ahead.features.flatten(0, 1))])
        return self.pictures(reconstructed).view(frames.shape), self.pictures(predicted).view(frames.shape)

    def pictures(self, mean: Tensor) -> Tensor:
        """Decoded images, in [-0.5, 0.5] -> uint8."""
        return ((mean + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)
