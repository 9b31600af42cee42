"""MLR: build core/method/reconstruction.py around Rainbow's encoder and the first layers of its head."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..agents.networks import Dueling, Encoder
from ..agents.rainbow import Rainbow, RainbowHandles
from ..core.method.augment import Augmentation
from ..core.method.decoder import Decoder
from ..core.method.frames import Frames
from ..core.method.masks import Masks
from ..core.method.momentum import Momentum
from ..core.method.reconstruction import Reconstruction
from ..core.run.config import Config


class Projection(nn.Module):
    """A copy of the first layers of both streams of a Q head, without noise and ReLU: (..., d) -> (..., 2 * hidden)."""

    def __init__(self, head: Dueling) -> None:
        super().__init__()
        self.value = copy.deepcopy(head.value_hidden.mean)
        self.advantage = copy.deepcopy(head.advantage_hidden.mean)

    def forward(self, latent: Tensor) -> Tensor:
        return torch.cat([self.value(latent), self.advantage(latent)], -1)


class ActionToken(nn.Module):
    """One-hot action -> Linear: (B, K) -> (B, K, d)."""

    def __init__(self, n_actions: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_actions, latent)

    def forward(self, action: Tensor) -> Tensor:
        choices = torch.arange(self.linear.in_features, device=action.device)
        return self.linear((action[..., None] == choices).float())  # F.one_hot reads the values on the host


def make(
    handles: RainbowHandles,
    *,
    masks: Masks,
    augment: Augmentation,
    depth: int,
    width: int,
    heads: int,
    mlp_ratio: float,
    final_norm: bool,
    tau: float,
    action_tokens: bool,
    one_mask: bool,
    masked_input_0_255: bool,
    clip_heads: bool = False,
    pixel_targets: bool = False,
    chunk: int | None = None,
    fill: Callable[[Frames], Tensor] | None = None,
) -> Reconstruction:
    """Build the objective. width: of the decoder. 0: that of the latent, as published; else linear layers surround the blocks."""
    encoder, head, latent = handles.encoder, handles.head, handles.latent
    projected = 2 * head.value_hidden.mean.out_features
    decoder = Decoder(latent, masks.window, depth, width or latent, heads, mlp_ratio, final_norm, encoder.trunk.precision)
    target_encoder, target_projection = copy.deepcopy(encoder), Projection(head)
    pixels = encoder.trunk.convs[0].in_channels * augment.out**2
    return Reconstruction(
        masks=masks,
        augment=augment,
        encoder=_masked_encoder(encoder, masked_input_0_255),
        embed_action=ActionToken(handles.actions, latent) if action_tokens else None,
        decoder=decoder,
        projection=projection(head),
        prediction=nn.Linear(projected, pixels if pixel_targets else projected),
        target_encoder=target_encoder,
        target_projection=target_projection,
        targets=Momentum(
            (encoder, target_encoder, tau),
            (head.value_hidden.mean, target_projection.value, tau),
            (head.advantage_hidden.mean, target_projection.advantage, tau),
        ),
        clip_heads=clip_heads,
        one_mask=one_mask,
        pixels=handles.pixels,
        pixel_targets=pixel_targets,
        chunk=chunk,
        fill=fill,
    ).to(handles.device)


def mean_grey(frames: Frames) -> Tensor:
    """The mean of every fourth row of the newest frames, (1,) uint8."""
    newest = Frames(frames.store, frames.index[:, -1:])
    _, _, height, width = frames.store.shape
    rows = torch.arange(0, height, 4, device=frames.device)[None]
    return newest.crop(rows, rows.new_zeros((1, 1)), width).float().mean().round().to(torch.uint8)[None]


def build(config: Config, agent: Rainbow) -> None:
    m, quirks, handles = config.mlr, config.quirks, agent.handles
    masks = Masks(m.window, config.env.size, m.mask.patch, m.mask.block, m.mask.ratio, m.mask.strategy, count_kept=quirks.count_kept)
    objective = make(
        handles,
        masks=masks,
        augment=handles.augment,
        depth=m.decoder.depth,
        width=m.decoder.width,
        heads=m.decoder.heads,
        mlp_ratio=m.decoder.mlp_ratio,
        final_norm=not quirks.no_final_norm,
        tau=m.tau if m.momentum else 1.0,
        action_tokens=m.action_tokens,
        one_mask=quirks.one_mask_per_batch,
        masked_input_0_255=quirks.masked_input_0_255,
        clip_heads=not quirks.unclipped_heads,
        pixel_targets=m.target == "pixels",
        chunk=m.chunk or None,
        fill=mean_grey if m.mask.fill == "mean" else None,
    )
    agent.attach(objective, m.weight, m.lr or None)


def _masked_encoder(encoder: Encoder, input_0_255: bool) -> Callable[[Tensor], Tensor]:
    """The agent's encoder. In the official code the masked branch does not divide the images by 255."""
    scale = 1.0 if input_0_255 else 1 / 255
    return lambda image: encoder(image, scale)


def projection(head: Dueling) -> Callable[[Tensor], Tensor]:
    """The agent's layers themselves: MLR trains their mean weights, without the gradient scaling of the head."""

    def project(latent: Tensor) -> Tensor:
        return torch.cat([head.value_hidden.mean(latent), head.advantage_hidden.mean(latent)], -1)

    return project
