"""MLR on this tree: the objective of core.reconstruction around Rainbow's convolutions and the first layers of its head."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..agents.rainbow import Dueling, Network, Rainbow
from ..core.method.augment import Augmentation
from ..core.method.decoder import Decoder
from ..core.method.encoder import Trunk, renormalise
from ..core.method.masks import Masks
from ..core.method.momentum import Momentum
from ..core.method.reconstruction import Reconstruction


class Projection(nn.Module):
    """First layers of the two streams of a Q head, side by side, without noise and without ReLU: (..., 2 * hidden)."""

    def __init__(self, head: Dueling) -> None:
        super().__init__()
        self.value = copy.deepcopy(head.value_hidden.mean)
        self.advantage = copy.deepcopy(head.advantage_hidden.mean)

    def forward(self, latent: Tensor) -> Tensor:
        return torch.cat([self.value(latent), self.advantage(latent)], -1)


class TargetEncoder(nn.Module):
    """Convolutions of the momentum branch and the scaling to [0, 1]."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(trunk)

    def forward(self, image: Tensor) -> Tensor:
        return renormalise(self.trunk(image).float())


class ActionToken(nn.Module):
    """One-hot action -> Linear: (B, K) -> (B, K, d)."""

    def __init__(self, n_actions: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_actions, latent)

    def forward(self, action: Tensor) -> Tensor:
        choices = torch.arange(self.linear.in_features, device=action.device)
        return self.linear((action[..., None] == choices).float())  # F.one_hot would look at the values, and wait for them


def build(
    agent: Rainbow,
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
    pixel_targets: bool = False,
    chunk: int | None = None,
) -> Reconstruction:
    """The objective. width 0 is the width of the latent, as published; any other puts a linear bottleneck around the blocks.

    Attach it with `agent.attach(objective, weight, clipped={"decoder": objective.decoder.parameters()})`: officially the
    action tokens and the prediction head are clipped in no group.
    """
    network, settings = agent.network, agent.settings
    latent, projected = network.trunk.features, 2 * settings.hidden
    precision = network.trunk.precision
    decoder = Decoder(latent, masks.window, depth, width or latent, heads, mlp_ratio, final_norm, precision)
    target_encoder, target_projection = TargetEncoder(network.trunk), Projection(network.head)
    pixels = network.trunk.convs[0].in_channels * augment.out**2
    momentum = Momentum(
        (network.trunk, target_encoder.trunk, tau),
        (network.head.value_hidden.mean, target_projection.value, tau),
        (network.head.advantage_hidden.mean, target_projection.advantage, tau),
    )
    return Reconstruction(
        batch_size=settings.batch_size,
        masks=masks,
        augment=augment,
        encoder=_masked_encoder(network, masked_input_0_255),
        embed_action=ActionToken(agent.n_actions, latent) if action_tokens else None,
        decoder=decoder,
        projection=_projection(network.head),
        prediction=nn.Linear(projected, pixels if pixel_targets else projected),
        target_encoder=target_encoder,
        target_projection=target_projection,
        momentum=momentum,
        one_mask=one_mask,
        pixel_targets=pixel_targets,
        chunk=chunk,
    ).to(agent.device)


def _masked_encoder(network: Network, input_0_255: bool) -> Callable[[Tensor], Tensor]:
    """The agent's own encoder. Officially the masked images reach the first convolution undivided, on 0..255."""
    scale = 1.0 if input_0_255 else 1 / 255
    return lambda image: network.latent(image, scale)


def _projection(head: Dueling) -> Callable[[Tensor], Tensor]:
    """The agent's own layers, so that MLR's gradient trains their mean weights; outside the head's gradient scaling."""

    def project(latent: Tensor) -> Tensor:
        return torch.cat([head.value_hidden.mean(latent), head.advantage_hidden.mean(latent)], -1)

    return project
