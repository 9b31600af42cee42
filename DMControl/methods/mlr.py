"""MLR: build core/method/reconstruction.py around the encoder of SAC's critic."""

import copy

import torch
from torch import nn

from ..agents.networks import mlp
from ..agents.sac import SAC
from ..core.method.augment import Augmentation
from ..core.method.decoder import Decoder
from ..core.method.masks import Masks
from ..core.method.momentum import Momentum
from ..core.method.optim import Adam
from ..core.method.reconstruction import Reconstruction
from ..core.run.config import Config


def build(config: Config, agent: SAC) -> None:
    mlr, quirks, image, handles = config.mlr, config.quirks, config.image, agent.handles
    encoder, dim = handles.encoder, handles.latent
    masks = Masks(
        mlr.window,
        image.size,
        mlr.mask.patch,
        mlr.mask.block,
        mlr.mask.ratio,
        mlr.mask.strategy,
        ratio_per_block=quirks.mask_ratio_per_block,
    )
    pixels = mlr.target == "pixels"
    augment = Augmentation(
        config.augment.order, image.size, image.crop, config.augment.pad, config.augment.intensity, resample=quirks.resampled_crop,
        dtype=torch.float32 if pixels else handles.precision.dtype,
    )  # fmt: skip
    decoder = Decoder(
        dim, mlr.window, mlr.decoder.depth, mlr.decoder.width, mlr.decoder.heads, mlr.decoder.mlp_ratio,
        final_norm=not quirks.no_final_norm, precision=handles.precision,
    )  # fmt: skip
    projection = mlp(dim, mlr.hidden, dim, layers=1)
    prediction = mlp(dim, mlr.hidden, 3 * image.stack * image.crop**2 if pixels else dim, layers=1)
    embed_action = nn.Linear(handles.actions, dim) if mlr.action_tokens else None
    target_encoder = copy.deepcopy(encoder)
    redrawn = [projection, prediction, decoder] + ([embed_action] if embed_action else [])
    for module in redrawn:
        _truncated_normal(module)
    target_projection = copy.deepcopy(projection)
    if quirks.fc_reinit:  # new weights for the encoder's head, its target's, and the target projection
        for module in (encoder.head, target_encoder.head, target_projection):
            _truncated_normal(module)
    tau = mlr.tau if mlr.momentum else 1.0
    colour = torch.tensor(config.encoder.centre, device=handles.device).to(torch.uint8)
    for module in (projection, prediction, decoder, target_projection, *([embed_action] if embed_action else [])):
        module.to(handles.device)
    objective = Reconstruction(
        batch_size=mlr.batch_size,
        masks=masks,
        augment=augment,
        encoder=encoder,
        embed_action=embed_action,
        decoder=decoder,
        projection=projection,
        prediction=prediction,
        target_encoder=target_encoder,
        target_projection=target_projection,
        targets=Momentum((encoder, target_encoder, tau), (projection, target_projection, tau)),
        pixels=handles.pixels,
        one_mask=quirks.one_mask_per_batch,
        pixel_targets=pixels,
        chunk=max(1, handles.chunk // mlr.window),
        fill=(lambda _: colour) if mlr.mask.fill == "mean" else None,
    )
    lr = mlr.lr * (0.5 if quirks.half_mlr_lr else 1.0)
    agent.attach(objective, Adam(objective.trained(), lr, clip=mlr.clip, warmup=mlr.warmup, decay=mlr.decay))


def _truncated_normal(module: nn.Module) -> None:
    """Linear weights from N(0, 0.02) truncated at one sigma, biases 0; LayerNorms the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.02, b=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            with torch.no_grad():
                layer.weight.fill_(1.0)
                layer.bias.zero_()
