"""SAC+AE: SAC, and a decoder that must restore the observation from the encoder's latent.

Its target has five bits per colour and noise below one level. An L2 penalty with a small weight keeps the latent short; weight
decay does the same for the decoder's weights. Nothing is augmented.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.chunks import rows_of
from ..agents.planet import five_bits
from ..agents.sac import SAC, SACHandles
from ..core.method.augment import View
from ..core.method.encoder import Trunk, initialise
from ..core.method.objective import Metrics, Objective
from ..core.method.optim import Adam
from ..core.method.sequence import Sequence
from ..core.run.config import Config


class Decoder(nn.Module):
    """Descriptions (N, d) -> images (N, C, H, W): the encoder's layers in reverse. ReLUs follow all layers but the last."""

    def __init__(self, trunk: Trunk, dim: int, size: int) -> None:
        super().__init__()
        self.precision, self.shape = trunk.precision, (trunk.side, trunk.side, trunk.channels)
        sides = [size]
        for conv in trunk.convs:
            sides.append((sides[-1] - conv.kernel_size[0]) // conv.stride[0] + 1)
        layers = []
        for conv, inner, outer in zip(reversed(trunk.convs), sides[:0:-1], sides[-2::-1], strict=True):
            kernel, stride = conv.kernel_size[0], conv.stride[0]
            missing = outer - (inner - 1) * stride - kernel  # rows that no kernel reaches
            layers.append(nn.ConvTranspose2d(conv.out_channels, conv.in_channels, kernel, stride, output_padding=missing))
        self.fc = nn.Linear(dim, trunk.features)
        self.convs = nn.ModuleList(layers).to(memory_format=torch.channels_last)

    def forward(self, description: Tensor) -> Tensor:
        with self.precision.autocast():
            x = torch.relu(self.fc(description)).unflatten(1, self.shape).permute(0, 3, 1, 2)  # (N, F, h, w), channels_last
            for conv in self.convs[:-1]:
                x = torch.relu_(conv(x))
            x = self.convs[-1](x)
        return x.float()


@dataclass(frozen=True)
class Part:
    """Some observations of the agent's batch."""

    obs: Tensor  # (N, C, H, W), 0..255
    noise: Tensor  # (N, C, H, W)


class SACAE(Objective):
    after_targets = True
    columns = ("loss/reconstruction", "loss/latent")
    diagnostics = ("sac_ae/pixel_error",)

    def __init__(self, handles: SACHandles, decoder: Decoder, weight: float, latent_weight: float) -> None:
        super().__init__()
        self.encoder, self.decoder, self.encode = handles.encoder, decoder, handles.encode
        self.augment, self.chunk, self.size = handles.augment, handles.chunk, handles.size
        self.weight, self.latent_weight = weight, latent_weight

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Iterator[Part]:
        obs = sequence.obs
        noise = torch.rand(len(obs), self.size, self.size, obs.channels, generator=generator, device=generator.device)
        noise = noise.permute(0, 3, 1, 2)  # channels_last, as the decoder's images
        for rows in rows_of(len(obs), self.chunk):
            yield Part(self.augment.view(obs[rows], view[rows]), noise[rows])

    def loss(self, part: Part) -> tuple[Tensor, Metrics]:
        """Mean squared error over the pixels, and the penalty on the description."""
        description = self.encode(part.obs)
        pixels = [image.permute(0, 2, 3, 1).flatten(1) for image in (self.decoder(description), five_bits(part.obs, part.noise))]  # views
        error = F.mse_loss(*pixels, reduction="none").sum(1) / pixels[0].shape[1]  # (N,)
        penalty = 0.5 * description.square().sum(1)
        losses = self.weight * (error + self.latent_weight * penalty)
        return losses, {"loss/reconstruction": error.detach().mean(), "loss/latent": penalty.detach().mean()}

    @torch.no_grad()
    def diagnose(self, sequence: Sequence, generator: torch.Generator) -> tuple[dict[str, float], dict[str, Tensor]]:
        """The newest frames, what the decoder makes of them, and how far apart these are in grey levels (root mean square)."""
        frames = sequence.obs.centre_crop(self.size)
        restored = ((self.decoder(self.encode(frames)) + 0.5) * 256).clamp(0, 255)
        error = (frames - restored).square().mean().sqrt().item()
        pictures = {"frames": frames[:, -3:], "reconstructions": restored[:, -3:].round().to(torch.uint8)}
        return {"sac_ae/pixel_error": error}, pictures


def build(config: Config, agent: SAC) -> None:
    if not config.sac_ae.weight:
        return  # SAC alone
    settings, handles = config.sac_ae, agent.handles
    decoder = Decoder(handles.encoder.trunk, handles.latent, handles.size)
    initialise(decoder, config.encoder.init)
    objective = SACAE(handles, decoder.to(handles.device), settings.weight, settings.latent_weight)
    agent.attach(
        objective,
        Adam(objective.encoder.parameters(), settings.encoder_lr),
        Adam(decoder.parameters(), settings.decoder_lr, weight_decay=settings.weight_decay),
    )
    if config.quirks.whole_catch_up:
        agent.held = max(0, config.train.catch_up - 1)
