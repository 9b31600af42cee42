"""SGQN: the critic must give the same values when it sees only its salient pixels, and a decoder must predict which these are."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.chunks import rows_of
from ..agents.critic_loss import CriticLoss, Transitions, squared
from ..agents.networks import Critic
from ..agents.sac import SAC, SACHandles
from ..core.method.augment import Augmentation, View
from ..core.method.objective import Metrics, Objective
from ..core.method.optim import Adam
from ..core.method.pixel_path import PixelPath
from ..core.method.sequence import Sequence
from ..core.method.strong_augmentation import StrongAugmentation
from ..core.run.config import Config
from ..replay import Batch
from .strong_augmentation import make


class GuidedReLU(torch.autograd.Function):
    """A ReLU that passes back only positive gradients."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return gradient.clamp_min(0) * (x > 0)


def saliency(critic: Critic, image: Tensor, action: Tensor) -> Tensor:
    """|dQ1 / dpixel| by guided backpropagation, the largest of each pixel's three colours: (N, S, H, W)."""
    trunk = critic.encoder.trunk
    with torch.enable_grad():
        pixels = image.detach().float().requires_grad_()
        x = (pixels - trunk.centre[:, None, None]) / 255
        for number, conv in enumerate(trunk.convs):
            x = conv(x)
            x = GuidedReLU.apply(x) if number < len(trunk.convs) - 1 or trunk.last_relu else x
        x = torch.cat([critic.encoder.head(x), action], 1)
        for layer in critic.q1:
            x = GuidedReLU.apply(x) if isinstance(layer, nn.ReLU) else layer(x)
        (gradient,) = torch.autograd.grad(x.sum(), pixels)
    return gradient.abs().unflatten(1, (-1, 3)).amax(2)


def salient(values: Tensor, quantile: float) -> Tensor:
    """1 where a pixel reaches its frame's quantile: (N, S, H, W) -> (N, 3 * S, H, W) float."""
    flat = values.flatten(2)
    rank = -int(-quantile * (flat.shape[2] - 1) // 1) + 1  # the smallest value at or above the interpolated quantile
    threshold = flat.kthvalue(rank, dim=2, keepdim=True).values
    return (flat >= threshold).view_as(values).float().repeat_interleave(3, 1)


class Decoder(nn.Module):
    """Description of an image and an action -> logits of the salient pixels, (N, 3 * S, H, W). Weights keep PyTorch's initialisation."""

    def __init__(self, inputs: int, channels: int, side: int, out: int, size: int) -> None:
        super().__init__()
        self.shape, self.sizes = (channels, side, side), (2 * side, size)
        self.fc = nn.Linear(inputs, channels * side * side)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in ((channels, 128), (128, 64), (64, out)))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        x = torch.relu(self.fc(torch.cat([state, action], 1)).unflatten(1, self.shape))
        for conv, size in zip(self.convs, self.sizes, strict=False):
            x = torch.relu(F.interpolate(conv(x), size=(size, size)))
        return self.convs[-1](x)


class Consistency(CriticLoss):
    """The critic's part: Q must not change when all but the salient pixels become one random grey."""

    def __init__(self, pixels: PixelPath, augment: Augmentation, quantile: float, weight: float) -> None:
        super().__init__(pixels)
        self.augment, self.quantile, self.weight = augment, quantile, weight

    def draw(self, batch: Batch, view: View, generator: torch.Generator) -> Tensor:
        """A grey between the smallest and the largest value in the augmented batch, ()."""
        low, high = (extreme.float() for extreme in self.augment.view(batch.obs, view).aminmax())
        return low + (high - low) * torch.rand((), generator=generator, device=generator.device)

    def loss(self, critic: Critic, part: Transitions, choices: Tensor) -> tuple[Tensor, Tensor]:
        n, obs = len(part.action), self.pixels(part.obs).float()  # what the networks see
        keep = salient(saliency(critic, obs, part.action), self.quantile)
        both = torch.cat([obs, obs * keep + choices * (1 - keep)])
        q1, q2 = critic(both, part.action.repeat(2, 1))  # the gradient goes through both sides of the difference
        consistency = squared(q1[:n] - q1[n:], q2[:n] - q2[n:], torch.zeros_like(part.target))
        return squared(q1[:n], q2[:n], part.target) + self.weight * consistency, q1[:n]


@dataclass(frozen=True)
class AttributionPart:
    """Some observations of the agent's batch, with their augmentations."""

    sequence: Sequence
    view: View  # the critic's
    choices: Any  # of the strong augmentation


class Attribution(Objective):
    """A decoder predicts from the strongly augmented view which pixels of the clean view are salient."""

    after_targets = True
    columns = ("loss/sgqn",)

    def __init__(self, decoder: Decoder, handles: SACHandles, strong: StrongAugmentation, quantile: float, every: int) -> None:
        super().__init__()
        self.decoder, self.encoder, self.encode, self.pixels = decoder, handles.encoder, handles.encode, handles.pixels
        self.saliency, self.chunk = functools.partial(saliency, handles.critic), handles.chunk
        self.augment, self.strong, self.quantile, self.every = handles.augment, strong, quantile, every

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Iterator[AttributionPart]:
        choices = self.strong.draw(len(sequence), generator)
        for rows in rows_of(len(sequence), self.chunk):
            yield AttributionPart(sequence[rows], view[rows], choices if choices is None else choices[rows])

    def loss(self, part: AttributionPart) -> tuple[Tensor, Metrics]:
        """The mean loss of the part, repeated for each observation."""
        obs, action = self.augment.view(part.sequence.obs, part.view), part.sequence.action[:, 0]
        wanted = salient(self.saliency(self.pixels(obs), action), self.quantile)
        state = self.encode(self.strong.view(obs, part.choices))
        loss = F.binary_cross_entropy_with_logits(self.decoder(state, action), wanted)
        return loss.expand(len(action)), {"loss/sgqn": loss.detach()}


def build(config: Config, agent: SAC) -> None:
    sgqn, handles = config.sgqn, agent.handles
    trunk = handles.encoder.trunk
    decoder = Decoder(handles.latent + handles.actions, trunk.channels, trunk.side, trunk.convs[0].in_channels, handles.size)
    strong = make(config, handles.device)
    agent.critic_loss = Consistency(agent.pixels, handles.augment, sgqn.quantile, sgqn.weight)
    objective = Attribution(decoder.to(handles.device), handles, strong, sgqn.quantile, sgqn.every)
    agent.attach(objective, Adam(objective.trained(), sgqn.lr))
