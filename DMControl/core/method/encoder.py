"""The convolutional trunk and the heads that read it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import machine
from ..errors import UserError
from ..machine import Precision
from .geometry import convolved


class Trunk(nn.Module):
    """Images (N, C, H, W) with values 0..255 -> feature map (N, F, h, w). ReLUs follow all convolutions, the last only if `last_relu`."""

    def __init__(
        self,
        channels: int,
        size: int,
        filters: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        precision: Precision,
        centre: Sequence[float] = (),
        last_relu: bool = True,
        same: bool = False,
        measured: bool = False,
    ) -> None:
        """centre: the mean colour of a frame, which is subtracted; measured: the agent measures it, and it is saved with the weights.

        same: zeros around each convolution's input, as TensorFlow's SAME puts them: ceil(side / stride) rows come out.
        """
        super().__init__()
        self.precision, self.last_relu = precision, last_relu
        self.centred = measured or any(centre)
        mean = torch.tensor([*centre] or [0.0], dtype=torch.float32).repeat(channels // max(1, len(centre)))
        self.register_buffer("centre", mean, persistent=measured)
        layers, sizes = [], convolved(size, filters, kernels, strides, same)
        if self.centred and same:
            raise UserError(
                "encoder.centre and encoder.padding=same exclude each other: zeros around an image are no longer its mean colour"
            )
        self.around = [(zeros // 2, zeros - zeros // 2) for zeros, _ in sizes]  # before and after each convolution's input
        for out, kernel, stride in zip(filters, kernels, strides, strict=True):
            layers.append(nn.Conv2d(channels, out, kernel, stride))
            channels = out
        self.convs = nn.ModuleList(layers).to(memory_format=torch.channels_last)
        self.planar_gradients = machine.planar_gradients(precision, min(filters))
        self.channels, self.side = channels, sizes[-1][1]

    @property
    def features(self) -> int:
        return self.channels * self.side**2

    def forward(self, image: Tensor, scale: float = 1 / 255) -> Tensor:
        planar = self.planar_gradients and torch.is_grad_enabled()
        layout = torch.contiguous_format if planar else torch.channels_last
        x = image.to(self.precision.dtype, memory_format=layout)
        first = self.convs[0]
        weight = first.weight * scale  # (x - centre) * scale is part of the first convolution, which saves a pass over the pixels
        bias = first.bias - weight.sum((2, 3)) @ self.centre if self.centred else first.bias
        with self.precision.autocast():
            x = self._convolve(0, x, weight, bias, layout)
            for i, conv in enumerate(self.convs[1:], 1):
                x = self._convolve(i, torch.relu_(x), conv.weight, conv.bias, layout)
            x = torch.relu_(x) if self.last_relu else x
        return x

    def _convolve(self, i: int, x: Tensor, weight: Tensor, bias: Tensor, layout: torch.memory_format) -> Tensor:
        before, after = self.around[i]
        if before != after:
            x = F.pad(x, (before, after, before, after))
        padding = before if before == after else 0
        return F.conv2d(x, weight.contiguous(memory_format=layout), bias, self.convs[i].stride, padding)


class Head(nn.Module):
    """Feature map -> Linear -> LayerNorm (-> tanh): the latent of size d that the agent's networks read."""

    def __init__(self, trunk: Trunk, dim: int, tanh: bool = False) -> None:
        super().__init__()
        self.precision, self.tanh = trunk.precision, tanh
        self.fc = nn.Linear(trunk.features, dim)
        self.ln = nn.LayerNorm(dim)

    def before_tanh(self, features: Tensor) -> Tensor:
        flat = features.permute(0, 2, 3, 1).flatten(1)  # (N, h*w*F), in memory order, so that nothing is copied
        with self.precision.autocast():
            x = self.fc(flat)
        return self.ln(x.float())

    def forward(self, features: Tensor) -> Tensor:
        x = self.before_tanh(features)
        return torch.tanh(x) if self.tanh else x


class Encoder(nn.Module):
    """Trunk and head."""

    def __init__(self, trunk: Trunk, dim: int, tanh: bool = False) -> None:
        super().__init__()
        self.trunk, self.head = trunk, Head(trunk, dim, tanh)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk(image))


def delta_orthogonal_(weight: Tensor) -> None:
    """Zero, but for an orthogonal matrix with ReLU gain at the middle of the kernel."""
    middle = weight.shape[2] // 2
    with torch.no_grad():
        weight.zero_()
        tap = torch.empty(weight.shape[:2])
        nn.init.orthogonal_(tap, nn.init.calculate_gain("relu"))
        weight[:, :, middle, middle] = tap


def initialise(module: nn.Module, conv: str = "delta_orthogonal") -> None:
    """Linear layers: orthogonal. Convolutions: `conv`, which is delta_orthogonal, orthogonal or kaiming. Biases: zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            if conv == "delta_orthogonal":
                delta_orthogonal_(layer.weight)
            elif conv == "orthogonal":
                with torch.no_grad():  # torch's orthogonal_ needs contiguous weights
                    layer.weight.copy_(nn.init.orthogonal_(torch.empty(layer.weight.shape), nn.init.calculate_gain("relu")))
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


def renormalise(features: Tensor) -> Tensor:
    """Each sample's features scaled to [0, 1]: (x - min) / (max - min); 0 where all are equal (the official code divides 0 by 0)."""
    flat = features.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return (flat - low) / (high - low).clamp_min(1e-12)
