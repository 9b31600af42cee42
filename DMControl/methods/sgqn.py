"""SGQN: the critic must give the same values when only the pixels that matter to it are left, and be able to say which these are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.critic_loss import TD, Metrics, Part, squared
from ..core.method.augment import View
from ..core.method.encoder import initialise
from ..core.method.frames import Frames
from ..core.method.optim import Adam
from ..core.run.config import Config
from ..replay import Batch, Replay
from .strong_augmentation import Strong, make

if TYPE_CHECKING:
    from ..agents.sac import SAC, Critic


class GuidedReLU(torch.autograd.Function):
    """A ReLU through which only positive gradients come back."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return gradient.clamp_min(0) * (x > 0)


def saliency(critic: "Critic", image: Tensor, action: Tensor) -> Tensor:
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
    """Description of an image and an action -> logits of the salient pixels, (N, 3 * S, H, W)."""

    def __init__(self, inputs: int, channels: int, side: int, out: int, size: int) -> None:
        super().__init__()
        self.shape, self.sizes = (channels, side, side), (2 * side, size)
        self.fc = nn.Linear(inputs, channels * side * side)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in ((channels, 128), (128, 64), (64, out)))
        initialise(self)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        x = torch.relu(self.fc(torch.cat([state, action], 1)).unflatten(1, self.shape))
        for conv, size in zip(self.convs, self.sizes, strict=False):
            x = torch.relu(F.interpolate(conv(x), size=(size, size)))
        return self.convs[-1](x)


@dataclass(frozen=True)
class Fill:
    colour: Tensor  # (): what hidden pixels are filled with


class SGQN(TD):
    def __init__(self, decoder: Decoder, critic: "Critic", strong: Strong, quantile: float, weight: float, lr: float, every: int) -> None:
        super().__init__()
        self.decoder, self.strong = decoder, strong
        self.quantile, self.weight, self.every = quantile, weight, every
        self.own_optimizers = {"sgqn": Adam([*decoder.parameters(), *critic.encoder.parameters()], lr)}

    def draw(self, batch: Batch, generator: torch.Generator) -> Fill:
        """One random grey between the darkest and the brightest value of the batch."""
        low, high = (extreme.float() for extreme in batch.obs.whole().aminmax())
        return Fill(low + (high - low) * torch.rand((), generator=generator, device=generator.device))

    def loss(self, critic: "Critic", part: Part, choices: Fill) -> tuple[Tensor, Metrics]:
        n, obs = len(part.action), part.obs.float()
        kept = salient(saliency(critic, obs, part.action), self.quantile)
        both = torch.cat([obs, obs * kept + choices.colour * (1 - kept)])
        q1, q2 = critic(both, part.action.repeat(2, 1))  # the gradient goes through both sides of the difference
        consistency = squared(q1[:n] - q1[n:], q2[:n] - q2[n:], torch.zeros_like(part.target))
        return squared(q1[:n], q2[:n], part.target) + self.weight * consistency, self.metrics(q1[:n])

    def after_update(self, agent: "SAC", batch: Batch, view: View, replay: Replay) -> Metrics:
        """Every second update: from the augmented view, the decoder says which pixels of the clean one are salient."""
        if agent.updates % self.every:
            return {}
        n, optimizer = len(batch.action), self.own_optimizers["sgqn"]
        choices, total = self.strong.draw(n, agent.generator), torch.zeros((), device=agent.device)
        optimizer.zero_grad()
        for rows in agent._parts(n):
            loss = self.attribution_loss(
                agent, batch.obs[rows], view[rows], batch.action[rows], choices if choices is None else choices[rows]
            )
            loss = loss * (len(batch.action[rows]) / n)
            loss.backward()
            total += loss.detach()
        norm = optimizer.norm()
        optimizer.step()
        return {"loss/auxiliary": total, "grad/auxiliary": norm}

    def attribution_loss(self, agent: "SAC", frames: Frames, view: View, action: Tensor, choices: Any) -> Tensor:
        obs = agent.augment.view(frames, view)
        wanted = salient(saliency(agent.critic, obs, action), self.quantile)
        state = agent.critic.encoder(self.strong.view(obs, choices))
        return F.binary_cross_entropy_with_logits(self.decoder(state, action), wanted)


def build(config: Config, agent: "SAC") -> SGQN:
    sgqn, trunk = config.sgqn, agent.critic.encoder.trunk
    decoder = Decoder(config.encoder.dim + agent.action_dim, trunk.channels, trunk.side, 3 * config.image.stack, config.image.crop)
    strong = make(config, agent.device)
    return SGQN(decoder.to(agent.device), agent.critic, strong, sgqn.quantile, sgqn.weight, sgqn.lr, sgqn.every)
