"""The Q network of Rainbow: convolutions, and a dueling head of noisy layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.method.encoder import Trunk, renormalise


class NoisyLinear(nn.Module):
    """y = (mu_w + sigma_w * e_out e_in^T) x + mu_b + sigma_b * e_out, without building the noise matrix."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        self.mean = nn.Linear(inputs, outputs)  # uniform in +-1/sqrt(inputs)
        self.sigma_weight = nn.Parameter(torch.full((outputs, inputs), std / inputs**0.5))
        self.sigma_bias = nn.Parameter(torch.full((outputs,), std / outputs**0.5))
        self.register_buffer("noise_in", torch.zeros(inputs))
        self.register_buffer("noise_out", torch.zeros(outputs))

    def resample(self, generator: torch.Generator) -> None:
        """e = sign(x) sqrt|x|, x ~ N(0, 1)."""
        for noise in (self.noise_in, self.noise_out):
            noise.normal_(generator=generator)
            noise.copy_(noise.sign() * noise.abs().sqrt())

    def forward(self, x: Tensor, noisy: bool) -> Tensor:
        y = self.mean(x)
        return y + self.noise_out * F.linear(x * self.noise_in, self.sigma_weight, self.sigma_bias) if noisy else y


class Dueling(nn.Module):
    """Latent (N, d) -> logits of p(z | s, a), (N, A, atoms)."""

    def __init__(self, latent: int, hidden: int, n_actions: int, atoms: int, noisy_std: float) -> None:
        super().__init__()
        self.shape = (n_actions, atoms)
        self.value_hidden = NoisyLinear(latent, hidden, noisy_std)
        self.value = NoisyLinear(hidden, atoms, noisy_std)
        self.advantage_hidden = NoisyLinear(latent, hidden, noisy_std)
        self.advantage = NoisyLinear(hidden, n_actions * atoms, noisy_std)

    def resample(self, generator: torch.Generator) -> None:
        for layer in self.children():
            layer.resample(generator)

    def forward(self, latent: Tensor, noisy: bool) -> Tensor:
        fixed = latent.detach()
        x = fixed + (latent - fixed) * 0.5**0.5  # scales the sum of both streams' gradients by 1/sqrt(2)
        value = self.value(F.relu(self.value_hidden(x, noisy)), noisy).unflatten(1, (1, -1))  # (N, 1, atoms)
        advantage = self.advantage(F.relu(self.advantage_hidden(x, noisy)), noisy).unflatten(1, self.shape)  # (N, A, atoms)
        return value + advantage - advantage.mean(1, keepdim=True)


class Encoder(nn.Module):
    """Convolutions, then features scaled to [0, 1]: (N, C, H, W), values 0..255 -> (N, d)."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, image: Tensor, scale: float = 1 / 255) -> Tensor:
        return renormalise(self.trunk(image, scale).float())


class Network(nn.Module):
    """Encoder and dueling head."""

    def __init__(self, trunk: Trunk, n_actions: int, hidden: int, atoms: int, noisy_std: float) -> None:
        super().__init__()
        self.encoder = Encoder(trunk)
        self.head = Dueling(trunk.features, hidden, n_actions, atoms, noisy_std)

    @property
    def trunk(self) -> Trunk:
        return self.encoder.trunk

    def forward(self, image: Tensor, noisy: bool) -> Tensor:
        """log p(z | s, a), (N, A, atoms)."""
        return self.log_p(self.encoder(image), noisy)

    def log_p(self, latent: Tensor, noisy: bool) -> Tensor:
        with self.trunk.precision.autocast():
            logits = self.head(latent, noisy)
        return logits.float().log_softmax(-1)
