"""Layers that follow one another; actor and critic of SAC."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.method.encoder import Encoder, Head, Trunk


def mlp(inputs: int, hidden: int, outputs: int, layers: int = 2, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """`layers` hidden layers with an activation after each, and a linear layer."""
    found: list[nn.Module] = []
    for _ in range(layers):
        found += [nn.Linear(inputs, hidden), activation()]
        inputs = hidden
    return nn.Sequential(*found, nn.Linear(inputs, outputs))


class Actor(nn.Module):
    """A head on the features of the critic's convolutions, then a tanh-Gaussian policy."""

    def __init__(
        self, trunk: Trunk, dim: int, action_dim: int, hidden: int, log_std: tuple[float, float], tanh: bool = False, exact: bool = False
    ) -> None:
        super().__init__()
        self.head = Head(trunk, dim, tanh)
        self.policy = mlp(dim, hidden, 2 * action_dim)
        self.low, self.high = log_std
        self.exact = exact  # whether log pi is exact for actions close to 1 and -1

    def forward(self, features: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features -> tanh(mu), tanh(mu + sigma * noise), log pi of the latter (N, 1), log sigma (N, A)."""
        mu, raw = self.policy(self.head(features)).chunk(2, -1)
        log_std = self.low + 0.5 * (self.high - self.low) * (torch.tanh(raw) + 1)
        if noise is None:
            noise = torch.zeros_like(mu)
        u = mu + log_std.exp() * noise
        action = torch.tanh(u)
        # log N(u; mu, sigma) - sum log(1 - tanh(u)^2)
        gaussian = (-0.5 * noise.square() - log_std).sum(-1, keepdim=True) - 0.5 * np.log(2 * np.pi) * noise.shape[-1]
        slope = 2 * (np.log(2) - u - F.softplus(-2 * u)) if self.exact else torch.log(F.relu(1 - action.square()) + 1e-6)
        log_pi = gaussian - slope.sum(-1, keepdim=True)
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
