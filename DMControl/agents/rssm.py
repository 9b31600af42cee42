"""The recurrent state-space model of PlaNet and Dreamer: an encoder, a latent state driven by actions and pictures, and a decoder.

The latent state has a deterministic part, which a GRU computes, and a stochastic part, which is drawn. The prior draws it from the
deterministic part alone, the posterior also looks at the picture. In tensors of several steps time comes first: (T, B, ...).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.machine import Precision
from ..core.method.encoder import Trunk

SIDE = 64  # of an image: 64 -> 31 -> 14 -> 6 -> 2 in the encoder, 1 -> 5 -> 13 -> 30 -> 64 in the decoder
LOG_2PI = math.log(2 * math.pi)
MIN_STD = 0.1

Activation = Callable[[Tensor], Tensor]


class Gaussian(NamedTuple):
    """Independent normal distributions."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + self.std * noise

    def kl(self, other: "Gaussian") -> Tensor:
        """KL(self || other), summed over the last axis."""
        ratio = (self.std / other.std).square()
        apart = ((self.mean - other.mean) / other.std).square()
        return 0.5 * (ratio + apart - 1 - ratio.log()).sum(-1)

    def entropy(self) -> Tensor:
        return (self.std.log() + 0.5 * (1 + LOG_2PI)).sum(-1)


class State(NamedTuple):
    """A latent state. `features` is what all heads read."""

    stoch: Tensor  # (..., S)
    deter: Tensor  # (..., D)

    @property
    def features(self) -> Tensor:
        return torch.cat([self.stoch, self.deter], -1)


class Filtered(NamedTuple):
    """The states of a sequence after its pictures, and what was expected before them."""

    state: State
    posterior: Gaussian
    prior: Gaussian


def log_prob(mean: Tensor, value: Tensor) -> Tensor:
    """log N(value; mean, 1) of each entry."""
    return -0.5 * (value - mean).square() - 0.5 * LOG_2PI


def image_log_prob(mean: Tensor, image: Tensor) -> Tensor:
    """log N(image; mean, 1) of images (N, C, H, W), summed over their pixels: (N,)."""
    error = (mean - image).permute(0, 2, 3, 1).flatten(1)  # a view: images are channels_last
    return -0.5 * error.square().sum(1) - 0.5 * LOG_2PI * error.shape[1]


class ResetBeforeGRU(nn.Module):
    """The GRU of PlaNet, which resets the state before the matrix product and not after it, as torch's GRUCell does."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + size, 2 * size)  # reset, update
        self.candidate = nn.Linear(inputs + size, size)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        reset, update = torch.sigmoid(self.gates(torch.cat([x, h], -1))).chunk(2, -1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * h], -1)))
        return (1 - update) * candidate + update * h


class RSSM(nn.Module):
    """All layers are as wide as the deterministic part."""

    def __init__(self, actions: int, embed: int, stoch: int, deter: int, activation: Activation, cell: type[nn.Module]) -> None:
        super().__init__()
        self.stoch, self.deter, self.activation = stoch, deter, activation
        self.enter = nn.Linear(stoch + actions, deter)
        self.cell = cell(deter, deter)
        self.prior_hidden, self.prior_out = nn.Linear(deter, deter), nn.Linear(deter, 2 * stoch)
        self.posterior_hidden, self.posterior_out = nn.Linear(deter + embed, deter), nn.Linear(deter, 2 * stoch)

    def start(self, n: int) -> State:
        """The state before the first picture of n episodes."""
        weight = self.enter.weight
        return State(weight.new_zeros(n, self.stoch), weight.new_zeros(n, self.deter))

    def advance(self, state: State, action: Tensor) -> Tensor:
        """The deterministic part after an action."""
        x = self.activation(self.enter(torch.cat([state.stoch, action], -1)))
        return self.cell(x, state.deter)

    def prior(self, deter: Tensor) -> Gaussian:
        return gaussian(self.prior_out(self.activation(self.prior_hidden(deter))))

    def posterior(self, deter: Tensor, seen: Tensor) -> Gaussian:
        """seen: from `look`."""
        hidden = F.linear(deter, self.posterior_hidden.weight[:, : self.deter])
        return gaussian(self.posterior_out(self.activation(hidden + seen)))

    def look(self, embed: Tensor) -> Tensor:
        """What the pictures add to the posterior's hidden layer. It needs no state, and so is computed for all steps at once."""
        return F.linear(embed, self.posterior_hidden.weight[:, self.deter :], self.posterior_hidden.bias)

    def imagine(self, state: State, action: Tensor, noise: Tensor) -> State:
        """The next state without a picture."""
        deter = self.advance(state, action)
        return State(self.prior(deter).sample(noise), deter)

    def follow(self, state: State, action: Tensor, seen: Tensor, noise: Tensor) -> tuple[State, Gaussian]:
        """The next state with a picture, and the distribution that it was drawn from."""
        deter = self.advance(state, action)
        posterior = self.posterior(deter, seen)
        return State(posterior.sample(noise), deter), posterior

    def observe(self, embed: Tensor, action: Tensor, noise: Tensor) -> Filtered:
        """embed (T, B, E); action (T, B, A): action t led to picture t; noise (T, B, S), or (T, 1, S) for all rows alike."""
        state, states, posteriors = self.start(embed.shape[1]), [], []
        for one_action, seen, one_noise in zip(action, self.look(embed), noise, strict=True):
            state, posterior = self.follow(state, one_action, seen, one_noise)
            states.append(state)
            posteriors.append(posterior)
        deter = torch.stack([s.deter for s in states])
        stoch = torch.stack([s.stoch for s in states])
        found = Gaussian(torch.stack([p.mean for p in posteriors]), torch.stack([p.std for p in posteriors]))
        return Filtered(State(stoch, deter), found, self.prior(deter))

    def foresee(self, state: State, action: Tensor, noise: Tensor) -> State:
        """The states after actions (T, B, A), without pictures."""
        states = []
        for one_action, one_noise in zip(action, noise, strict=True):
            state = self.imagine(state, one_action, one_noise)
            states.append(state)
        return State(torch.stack([s.stoch for s in states]), torch.stack([s.deter for s in states]))


def gaussian(out: Tensor) -> Gaussian:
    mean, raw = out.chunk(2, -1)
    return Gaussian(mean, F.softplus(raw) + MIN_STD)


def make_encoder(depth: int, precision: Precision, centre: Sequence[float] = (127.5,) * 3) -> Trunk:
    """Images (N, 3, 64, 64) -> maps (N, 8 * depth, 2, 2). Pixels enter as x / 255 - 0.5, unless `centre` is another."""
    return Trunk(3, SIDE, [depth, 2 * depth, 4 * depth, 8 * depth], [4] * 4, [2] * 4, precision, centre)


def flat(features: Tensor) -> Tensor:
    """Maps (N, F, h, w) -> (N, h * w * F) in fp32, in memory order, so that nothing is moved."""
    return features.permute(0, 2, 3, 1).flatten(1).float()


class Decoder(nn.Module):
    """Features (N, F) -> mean images (N, 3, 64, 64)."""

    def __init__(self, features: int, depth: int, precision: Precision) -> None:
        super().__init__()
        self.precision = precision
        self.fc = nn.Linear(features, 32 * depth)
        widths, kernels = (32 * depth, 4 * depth, 2 * depth, depth, 3), (5, 5, 6, 6)
        layers = [nn.ConvTranspose2d(i, o, k, 2) for i, o, k in zip(widths[:-1], widths[1:], kernels, strict=True)]
        layers[1].output_padding = (1, 1)  # 14 rows, of which 13 stay: odd sizes are several times slower on a CPU
        self.convs = nn.ModuleList(layers).to(memory_format=torch.channels_last)

    def forward(self, features: Tensor) -> Tensor:
        with self.precision.autocast():
            x = torch.relu_(from_pixel(self.convs[0], self.fc(features)))
            x = torch.relu(self.convs[1](x)[..., :-1, :-1])
            x = torch.relu_(self.convs[2](x))
            x = self.convs[3](x)
        return x.float()


def from_pixel(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Maps of one pixel, (N, F), through a transposed convolution -> (N, F', k, k). As a matrix product it is faster."""
    side = conv.kernel_size[0]
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (k * k * F', F)
    out = F.linear(x, weight, conv.bias.repeat(side * side))
    return out.view(-1, side, side, conv.out_channels).permute(0, 3, 1, 2)  # channels_last


def to_pixel(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Maps of the kernel's size, (N, F, k, k), through a convolution -> (N, F'), as a matrix product."""
    return F.linear(x.permute(0, 2, 3, 1).flatten(1), conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias)


def initialise(module: nn.Module) -> None:
    """Keras's: Glorot's uniform weights, biases 0, the state's weights of a GRU orthogonal. PlaNet's GRU opens its gates with 1."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            with torch.no_grad():  # with the fans of a contiguous weight
                layer.weight.copy_(nn.init.xavier_uniform_(torch.empty(layer.weight.shape)))
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.GRUCell):
            nn.init.xavier_uniform_(layer.weight_ih)
            nn.init.orthogonal_(layer.weight_hh)
            nn.init.zeros_(layer.bias_ih)
            nn.init.zeros_(layer.bias_hh)
    for layer in module.modules():
        if isinstance(layer, ResetBeforeGRU):
            nn.init.ones_(layer.gates.bias)
