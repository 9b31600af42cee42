"""PlaNet (Hafner et al., ICML 2019): learn a model of the world, and plan in it. There is no policy.

At each step many sequences of actions are tried out in the model. The best of them say where to try next, and so on; the first
action of the last mean is taken, and the rest is planned anew.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..core.machine import Precision
from ..core.method.frames import Frames
from ..core.method.objective import Metrics
from ..core.method.optim import Adam
from ..core.run.agent import Update
from ..core.run.config import Config
from ..replay import Chunk, Replay
from .rssm import SIDE, ResetBeforeGRU, State, flat
from .rssm_agent import Fit, RSSMAgent
from .world_agent import parameters

BITS = 5  # of a colour
EPS = 1e-4  # of Adam
VARIANCE = 1e-6  # added to the variance of the best sequences


class PlaNet(RSSMAgent):
    def __init__(self, config: Config, action_dim: int, precision: Precision, generator: torch.Generator) -> None:
        own, relu = config.planet, (torch.relu, nn.ReLU)
        super().__init__(config, own, action_dim, precision, generator, relu, ResetBeforeGRU, 3, centre=0.0)
        self.place()
        model = parameters(self.encoder, self.rssm, self.decoder, self.reward)
        self.optimizers = {"model": Adam(model, own.model_lr, eps=EPS, clip=own.clip)}

    def update_parts(self, replay: Replay) -> Update:
        """The model alone learns."""
        own = self.config
        chunk = replay.sample_chunks(own.batch_size, own.length)
        noise = self._normal(own.length, own.batch_size, own.stoch)
        pixel_noise = self.pixel_noise(len(chunk.obs), self.generator)
        self.optimizers["model"].zero_grad()
        metrics = self.model_gradient(chunk, noise, pixel_noise)
        return Update({**metrics, "agent/batch_reward": chunk.reward.mean(), **self.take_steps()}, {"batch": chunk})

    def model_gradient(self, chunk: Chunk, noise: Tensor, pixel_noise: Tensor) -> Metrics:
        fit = self.fit(chunk, noise, pixel_noise)
        loss = self.loss(fit)
        loss.backward()
        return {"loss/model": loss.detach(), **fit.metrics()}

    def loss(self, fit: Fit) -> Tensor:
        """max(0, KL - free nats) in each step, on average, - log p(image) - 10 log p(reward)."""
        divergence = (fit.kl - self.config.free_nats).clamp_min(0).mean()
        return divergence - fit.image - self.config.reward_scale * fit.reward

    def prepare(self, obs: Frames, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Five bits per colour, and noise below one level. Encoder and decoder see the same."""
        image = five_bits(obs.whole(), noise)
        return image, image

    def embed(self, pixels: Tensor) -> Tensor:
        return flat(self.encoder(pixels, scale=1.0))

    def pixel_noise(self, n: int, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(n, SIDE, SIDE, 3, generator=generator, device=self.device)
        return drawn.permute(0, 3, 1, 2)  # channels_last, as the images

    def pictures(self, mean: Tensor) -> Tensor:
        return (((mean + 0.5) * 2**BITS).floor() * 2 ** (8 - BITS)).clamp(0, 255).to(torch.uint8)

    def policy(self, state: State, explore: bool, generator: torch.Generator) -> Tensor:
        own, n = self.config, len(state.stoch)
        noises = (
            (
                self._normal(n, own.candidates, own.horizon, self.action_dim, generator=generator),
                self._normal(own.horizon, n * own.candidates, own.stoch, generator=generator),
            )
            for _ in range(own.iterations)
        )
        return self.plan(state, noises)[:, 0]

    def plan(self, state: State, noises: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """The cross-entropy method: plans (n, H, A) from n states. noises: in each iteration (n, N, H, A) and (H, n * N, S)."""
        own, n = self.config, len(state.stoch)
        mean = state.stoch.new_zeros(n, own.horizon, self.action_dim)
        std = torch.ones_like(mean)
        start = State(*(part.repeat_interleave(own.candidates, 0) for part in state))
        for action_noise, state_noise in noises:
            actions = (action_noise * std[:, None] + mean[:, None]).clamp(-1, 1)  # (n, N, H, A)
            mean, std = refit(actions, self.predicted_return(start, actions, state_noise), own.elites)
        return mean

    def predicted_return(self, start: State, actions: Tensor, noise: Tensor) -> Tensor:
        """The sum of the predicted rewards of each sequence of actions: (n, N)."""
        ahead = self.rssm.foresee(start, actions.flatten(0, 1).transpose(0, 1), noise)
        return self.reward(ahead.features)[..., 0].sum(0).view(actions.shape[:2])


def refit(actions: Tensor, returns: Tensor, elites: int) -> tuple[Tensor, Tensor]:
    """Mean and std (n, H, A) of the best sequences."""
    best = returns.topk(elites, 1).indices  # (n, K)
    chosen = actions.gather(1, best[:, :, None, None].expand(-1, -1, *actions.shape[2:]))
    return chosen.mean(1), (chosen.var(1, unbiased=False) + VARIANCE).sqrt()


def five_bits(image: Tensor, noise: Tensor) -> Tensor:
    """Values 0..255 and uniform noise in [0, 1) -> values in [-0.5, 0.5)."""
    level = (image.to(torch.uint8) >> 8 - BITS).to(torch.float32, memory_format=torch.channels_last)
    return level.add_(noise).mul_(2**-BITS).sub_(0.5)
