"""Strong augmentation: blend another image into each observation, or apply a random convolution."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError, nearest

KINDS = ("overlay", "conv", "none")
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # area, as a share of the image, and aspect ratio of a resized crop
TRIES = 10  # draws per crop; if none fits into the image, the whole image is used


@dataclass(frozen=True)
class Overlay:
    """For each observation: the image, the crop from it, and whether it is mirrored."""

    image: Tensor  # (N,) int64
    centre: Tensor  # (N, 2), in -1..1
    extent: Tensor  # (N, 2), half sides; x negative where mirrored

    def __getitem__(self, rows: slice) -> "Overlay":
        return Overlay(self.image[rows], self.centre[rows], self.extent[rows])


class StrongAugmentation:
    """`draw` makes the random choices and `view` applies them. The frames of a stack share one image or kernel."""

    def __init__(self, kind: str, alpha: float, bank: Tensor | None = None) -> None:
        if kind not in KINDS:
            raise UserError(f"augment={kind} is unknown: {nearest(kind, KINDS)}")
        self.kind, self.alpha, self.bank = kind, alpha, bank  # bank: (M, side, side, colours) uint8, on the training device

    def draw(self, n: int, generator: torch.Generator) -> Overlay | Tensor | None:
        device = generator.device
        if self.kind == "overlay":
            area, ratio = torch.rand(2, n, TRIES, generator=generator, device=device)
            area = SCALE[0] + (SCALE[1] - SCALE[0]) * area
            low, high = math.log(RATIO[0]), math.log(RATIO[1])
            ratio = (low + (high - low) * ratio).exp()
            tried = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 2)  # (N, TRIES, 2)
            fits = (tried <= 1).all(2)
            first = fits.int().argmax(1)[:, None, None].expand(-1, 1, 2)
            extent = torch.where(fits.any(1)[:, None], tried.gather(1, first)[:, 0], 1.0)
            uniform = torch.rand(n, 3, generator=generator, device=device)
            centre = (2 * uniform[:, :2] - 1) * (1 - extent)
            mirror = torch.where(uniform[:, 2:] < 0.5, -1.0, 1.0)
            image = torch.randint(0, len(self.bank), (n,), generator=generator, device=device)
            return Overlay(image, centre, torch.cat([extent[:, :1] * mirror, extent[:, 1:]], 1))
        if self.kind == "conv":
            return torch.randn(n, 3, 3, 3, 3, generator=generator, device=device)
        return None

    def view(self, obs: Tensor, choices: Overlay | Tensor | None) -> Tensor:
        """(N, colours * S, H, W) with values 0..255 -> the same, as float. conv takes RGB."""
        n, channels, height, width = obs.shape
        if self.kind == "overlay":
            image = self.cut(choices, height, width).repeat(1, channels // self.bank.shape[-1], 1, 1)
            return torch.lerp(obs.float(), image, self.alpha).clamp_(0, 255)
        if self.kind == "conv":
            frames = obs.float().unflatten(1, (-1, 3)).transpose(0, 1).flatten(1, 2) / 255  # (S, N * 3, H, W)
            padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")
            out = torch.sigmoid(F.conv2d(padded, choices.flatten(0, 1), groups=n)) * 255
            return out.unflatten(1, (n, 3)).transpose(0, 1).flatten(1, 2)
        return obs.float()

    def cut(self, choices: Overlay, height: int, width: int) -> Tensor:
        """The crops from the images, bilinear: (N, colours, H, W) float."""
        x = (2 * torch.arange(width, device=choices.centre.device) + 1) / width - 1
        y = (2 * torch.arange(height, device=choices.centre.device) + 1) / height - 1
        x = choices.centre[:, :1] + choices.extent[:, :1] * x  # (N, W)
        y = choices.centre[:, 1:] + choices.extent[:, 1:] * y
        grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)
        images = self.bank[choices.image].permute(0, 3, 1, 2).float()
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
