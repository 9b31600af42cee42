"""The Q network of Rainbow: convolutions, and a head of noisy or plain layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.method.encoder import Trunk, initialise, renormalise
from .settings import Settings
from .values import Distribution, Scalar


class NoisyLinear(nn.Module):
    """y = (mu_w + sigma_w * e_out e_in^T) x + mu_b + sigma_b * e_out, without building the noise matrix. std=None: no noise at all."""

    def __init__(self, inputs: int, outputs: int, std: float | None, bias_fan: int | None = None) -> None:
        super().__init__()
        self.mean = nn.Linear(inputs, outputs)  # uniform in +-1/sqrt(inputs)
        self.noisy = std is not None
        if self.noisy:
            self.sigma_weight = nn.Parameter(torch.full((outputs, inputs), std / inputs**0.5))
            self.sigma_bias = nn.Parameter(torch.full((outputs,), std / (bias_fan or outputs) ** 0.5))
            self.register_buffer("noise_in", torch.zeros(inputs))
            self.register_buffer("noise_out", torch.zeros(outputs))

    def resample(self, generator: torch.Generator) -> None:
        """e = sign(x) sqrt|x|, x ~ N(0, 1)."""
        for noise in (self.noise_in, self.noise_out) if self.noisy else ():
            noise.normal_(generator=generator)
            noise.copy_(noise.sign() * noise.abs().sqrt())

    def forward(self, x: Tensor, noisy: bool) -> Tensor:
        y = self.mean(x)
        return y + self.noise_out * F.linear(x * self.noise_in, self.sigma_weight, self.sigma_bias) if noisy and self.noisy else y


class Dueling(nn.Module):
    """Latent (N, d) -> outputs of each action, (N, A, outputs). Value and advantage have a hidden layer each."""

    def __init__(
        self, latent: int, hidden: int, n_actions: int, outputs: int, noisy_std: float | None, scale_gradient: bool = True
    ) -> None:
        super().__init__()
        self.shape, self.scale_gradient = (n_actions, outputs), scale_gradient
        self.value_hidden = NoisyLinear(latent, hidden, noisy_std)
        self.value = NoisyLinear(hidden, outputs, noisy_std)
        self.advantage_hidden = NoisyLinear(latent, hidden, noisy_std)
        self.advantage = NoisyLinear(hidden, n_actions * outputs, noisy_std)

    def resample(self, generator: torch.Generator) -> None:
        for layer in self.children():
            layer.resample(generator)

    def forward(self, x: Tensor, noisy: bool) -> Tensor:
        if self.scale_gradient:
            fixed = x.detach()
            x = fixed + (x - fixed) * 0.5**0.5  # scales the sum of both streams' gradients by 1/sqrt(2)
        value = self.value(F.relu(self.value_hidden(x, noisy)), noisy).unflatten(1, (1, -1))  # (N, 1, outputs)
        advantage = self.advantage(F.relu(self.advantage_hidden(x, noisy)), noisy).unflatten(1, self.shape)  # (N, A, outputs)
        return value + advantage - advantage.mean(1, keepdim=True)


class OneHidden(nn.Module):
    """Dopamine's head: one hidden layer, which splits into value and advantage at the outputs, or does not split at all."""

    def __init__(self, latent: int, hidden: int, n_actions: int, outputs: int, noisy_std: float | None, dueling: bool) -> None:
        super().__init__()
        self.shape = (n_actions, outputs)
        self.hidden = NoisyLinear(latent, hidden, noisy_std, bias_fan=latent)
        self.advantage = NoisyLinear(hidden, n_actions * outputs, noisy_std, bias_fan=hidden)  # without a split: the outputs themselves
        self.value = NoisyLinear(hidden, outputs, noisy_std, bias_fan=hidden) if dueling else None

    def resample(self, generator: torch.Generator) -> None:
        for layer in self.children():
            layer.resample(generator)
        if self.value is not None and self.value.noisy:
            self.value.noise_in.copy_(self.advantage.noise_in)  # Dopamine draws both from one key

    def forward(self, x: Tensor, noisy: bool) -> Tensor:
        x = F.relu(self.hidden(x, noisy))
        advantage = self.advantage(x, noisy).unflatten(1, self.shape)  # (N, A, outputs)
        if self.value is None:
            return advantage
        return self.value(x, noisy).unflatten(1, (1, -1)) + advantage - advantage.mean(1, keepdim=True)


class Encoder(nn.Module):
    """Convolutions, then features scaled to [0, 1] if `scaled`: (N, C, H, W), values 0..255 -> (N, d)."""

    def __init__(self, trunk: Trunk, scaled: bool = True) -> None:
        super().__init__()
        self.trunk, self.scaled = trunk, scaled

    def forward(self, image: Tensor, scale: float = 1 / 255) -> Tensor:
        features = self.trunk(image, scale).float()
        return renormalise(features) if self.scaled else features.flatten(1)


class Network(nn.Module):
    """Encoder and head."""

    def __init__(self, encoder: Encoder, head: Dueling | OneHidden, value: Distribution | Scalar) -> None:
        super().__init__()
        self.encoder, self.head, self.value = encoder, head, value

    @property
    def trunk(self) -> Trunk:
        return self.encoder.trunk

    def forward(self, image: Tensor, noisy: bool) -> Tensor:
        return self.read(self.encoder(image), noisy)

    def read(self, latent: Tensor, noisy: bool) -> Tensor:
        """log p(z | s, a), (N, A, atoms), or Q(s, a), (N, A)."""
        with self.trunk.precision.autocast():
            outputs = self.head(latent, noisy)
        return self.value.read(outputs.float())


def xavier(network: Network) -> None:
    """Dopamine's start: convolutions and plain layers by Glorot's uniform rule, their biases zero. Noisy layers stay as they are."""
    plain = [layer.mean for layer in network.head.children() if not layer.noisy]
    for layer in [*network.trunk.convs, *plain]:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def make_network(settings: Settings, trunk: Trunk, n_actions: int, device: torch.device) -> Network:
    s = settings
    value = Distribution(s.v_min, s.v_max, s.atoms, device) if s.value == "distribution" else Scalar()
    std = s.noisy_std if s.noisy else None
    if s.head == "streams":
        head: Dueling | OneHidden = Dueling(trunk.features, s.hidden, n_actions, value.outputs, std, s.scale_head_gradient)
    else:
        head = OneHidden(trunk.features, s.hidden, n_actions, value.outputs, std, dueling=s.head == "dueling")
    network = Network(Encoder(trunk, s.scale_features), head, value)
    if s.init == "xavier":
        xavier(network)
    elif s.init == "kaiming":
        initialise(network.trunk, "kaiming")
    return network.to(device)
