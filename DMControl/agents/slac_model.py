"""SLAC's model of the world: a chain of latents z1 and z2, from which pictures and rewards are predicted.

The posterior looks at the pictures for z1 alone; z2 follows from z1 as in the prior. In tensors of several steps time comes first.
A sequence may cross the beginning of an episode, where the networks of a first step apply again.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.machine import Precision
from ..core.run.config import Config
from .networks import mlp
from .rssm import LOG_2PI, SIDE, Gaussian, from_pixel, to_pixel

SLOPE = 0.2  # of the leaky ReLUs
MIN_STD = 1e-5


class Conditional(nn.Module):
    """A normal distribution, given some inputs."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = mlp(inputs, width, 2 * outputs, activation=partial(nn.LeakyReLU, SLOPE))

    def forward(self, *given: Tensor) -> Gaussian:
        mean, raw = self.layers(torch.cat(given, -1)).chunk(2, -1)
        return Gaussian(mean, F.softplus(raw) + MIN_STD)


class Compressor(nn.Module):
    """Images (N, 3, 64, 64), 0..255 -> features (N, 8 * depth). Sides: 64, 32, 16, 8, 4, 1. TensorFlow's padding is not symmetric."""

    def __init__(self, depth: int, centre: Sequence[float], precision: Precision) -> None:
        """centre: a colour that is subtracted from the pixels."""
        super().__init__()
        self.precision, self.features = precision, 8 * depth
        self.centred = any(centre)
        self.register_buffer("centre", torch.tensor([*centre] or [0.0] * 3).view(3, 1, 1), persistent=False)
        widths, kernels = (3, depth, 2 * depth, 4 * depth, 8 * depth), (5, 3, 3, 3)
        layers = [nn.Conv2d(i, o, k, 2) for i, o, k in zip(widths[:-1], widths[1:], kernels, strict=True)]
        self.convs = nn.ModuleList([*layers, nn.Conv2d(8 * depth, 8 * depth, 4)]).to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        x = image.to(self.precision.dtype, memory_format=torch.channels_last)
        x = (x - self.centre.to(x.dtype) if self.centred else x) / 255
        with self.precision.autocast():
            for conv in self.convs[:-1]:
                before = (conv.kernel_size[0] - 2) // 2  # of 3 missing rows one, of 1 none
                x = F.leaky_relu(conv(F.pad(x, (before, before + 1) * 2)), SLOPE)
            x = F.leaky_relu(to_pixel(self.convs[-1], x), SLOPE)
        return x.float()


class Decoder(nn.Module):
    """Latents (N, z1 + z2) -> mean images (N, 3, 64, 64): the compressor in reverse. The last layer is leaky too."""

    def __init__(self, latent: int, depth: int, precision: Precision) -> None:
        super().__init__()
        self.precision = precision
        widths, kernels = (8 * depth, 4 * depth, 2 * depth, depth, 3), (3, 3, 3, 5)
        # each output is two rows and columns too large: one is enough, but odd sizes are several times slower on a CPU
        layers = [nn.ConvTranspose2d(i, o, k, 2, (k - 3) // 2, 1) for i, o, k in zip(widths[:-1], widths[1:], kernels, strict=True)]
        self.convs = nn.ModuleList([nn.ConvTranspose2d(latent, 8 * depth, 4), *layers]).to(memory_format=torch.channels_last)

    def forward(self, latent: Tensor) -> Tensor:
        with self.precision.autocast():
            x = F.leaky_relu(from_pixel(self.convs[0], latent), SLOPE)
            for conv in self.convs[1:]:
                x = F.leaky_relu(conv(x)[..., :-2, :-2], SLOPE)
        return x.float()


class Steps(NamedTuple):
    """B sequences of T frames. action, reward and discount are those of the step that leaves a frame; of the last frame nothing is used."""

    action: Tensor  # (T, B, A)
    reward: Tensor  # (T, B)
    discount: Tensor  # (T, B): 0 where the step ended the task
    first: Tensor  # (T, B) bool: the frame begins an episode
    last: Tensor  # (T, B) bool: no step leaves the frame, as its episode ended there

    def rows(self, part: slice) -> "Steps":
        return Steps(*(value[:, part] for value in self))


class Chain(NamedTuple):
    """The posterior along sequences."""

    z1: Tensor  # (T, B, z1)
    z2: Tensor  # (T, B, z2)
    q1: Gaussian  # of z1

    @property
    def latent(self) -> Tensor:
        return torch.cat([self.z1, self.z2], -1)


class Model(nn.Module):
    def __init__(self, actions: int, own: Config, precision: Precision) -> None:
        """own: the settings of the method."""
        super().__init__()
        depth, z1, z2 = own.filters, own.z1, own.z2
        self.z1, self.z2, self.pixel_variance, width = z1, z2, own.pixel_variance, 8 * depth
        self.compressor = Compressor(depth, own.centre, precision)
        self.decoder = Decoder(z1 + z2, depth, precision)
        self.z1_posterior_first = Conditional(width, width, z1)
        self.z1_posterior = Conditional(width + z2 + actions, width, z1)
        self.z1_prior = Conditional(z2 + actions, width, z1)
        self.z2_first = Conditional(z1, width, z2)  # of prior and posterior
        self.z2_next = Conditional(z1 + z2 + actions, width, z2)  # of prior and posterior
        self.reward = Conditional(2 * (z1 + z2) + actions, width, 1)

    def follow(self, features: Tensor, steps: Steps, noise1: Tensor, noise2: Tensor) -> Chain:
        """Samples of the posterior. features (T, B, F), noise (T, B, .)."""
        at_first = self.z1_posterior_first(features)
        z1 = at_first.mean[0] + at_first.std[0] * noise1[0]
        z2 = self.z2_first(z1).sample(noise2[0])
        found = [(z1, z2, at_first.mean[0], at_first.std[0])]
        for t in range(1, len(features)):
            action, first = steps.action[t - 1], steps.first[t][:, None]
            later = self.z1_posterior(features[t], z2, action)
            q1 = Gaussian(torch.where(first, at_first.mean[t], later.mean), torch.where(first, at_first.std[t], later.std))
            z1 = q1.sample(noise1[t])
            z2 = torch.where(first, self.z2_first(z1).sample(noise2[t]), self.z2_next(z1, z2, action).sample(noise2[t]))
            found.append((z1, z2, *q1))
        z1s, z2s, means, stds = (torch.stack(values) for values in zip(*found, strict=True))
        return Chain(z1s, z2s, Gaussian(means, stds))

    def prior(self, chain: Chain, steps: Steps) -> Gaussian:
        """What z1 was expected to be, given the posterior's sample of the frame before: N(0, 1) at a first frame."""
        expected = self.z1_prior(chain.z2[:-1], steps.action[:-1])
        first = steps.first[1:, :, None]
        mean = torch.where(first, torch.zeros_like(expected.mean), expected.mean)
        std = torch.where(first, torch.ones_like(expected.std), expected.std)
        begin = torch.zeros_like(mean[:1])
        return Gaussian(torch.cat([begin, mean]), torch.cat([begin + 1, std]))

    def losses(self, chain: Chain, image: Tensor, steps: Steps) -> dict[str, Tensor]:
        """KL, -log p(image) and -log p(reward), each summed over a sequence, as means over the batch. image: (T * B, 3, 64, 64), 0..255."""
        kl = chain.q1.kl(self.prior(chain, steps))  # (T, B)
        mean = self.decoder(chain.latent.flatten(0, 1))
        target = image.to(torch.float32, memory_format=torch.channels_last) / 255
        error = (mean - target).permute(0, 2, 3, 1).flatten(1).square().sum(1)
        constant = 0.5 * (3 * SIDE**2) * (LOG_2PI + math.log(self.pixel_variance))
        images = error.view(kl.shape) / (2 * self.pixel_variance) + constant
        rewards = -self.reward_log_prob(chain, steps)
        return {"kl": kl.sum(0).mean(), "image": images.sum(0).mean(), "reward": rewards.sum(0).mean()}

    def reward_log_prob(self, chain: Chain, steps: Steps) -> Tensor:
        """log p(r_t | z_t, a_t, z_{t+1}), (T - 1, B); 0 where frame t is an episode's last."""
        told = self.reward(chain.z1[:-1], chain.z2[:-1], steps.action[:-1], chain.z1[1:], chain.z2[1:])
        error = (steps.reward[:-1] - told.mean[..., 0]) / told.std[..., 0]
        log_prob = -0.5 * error.square() - told.std[..., 0].log() - 0.5 * LOG_2PI
        return log_prob * ~steps.last[:-1]

    def foresee(self, z1: Tensor, z2: Tensor, action: Tensor, noise1: Tensor, noise2: Tensor) -> Tensor:
        """The latents (T, B, z1 + z2) after actions (T, B, A), without pictures."""
        found = []
        for one, n1, n2 in zip(action, noise1, noise2, strict=True):
            z1 = self.z1_prior(z2, one).sample(n1)
            z2 = self.z2_next(z1, z2, one).sample(n2)
            found.append(torch.cat([z1, z2], -1))
        return torch.stack(found)
