"""SPR: latents of the future, predicted step by step by a model of the dynamics, must agree with those of a slow copy of the encoder.

This is PlayVirtual's port of SPR to SAC. Public code has three variants of it, A, B and C; they differ in weight, rates and clip.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..agents.chunks import rows_of
from ..agents.networks import mlp
from ..agents.sac import SAC, SACHandles
from ..core.method.augment import Augmentation, View
from ..core.method.frames import Frames
from ..core.method.momentum import Momentum
from ..core.method.objective import Metrics, Objective
from ..core.method.optim import Adam
from ..core.method.reconstruction import distance
from ..core.method.sequence import Sequence
from ..core.run.config import Config


class Dynamics(nn.Module):
    """Latent and action -> latent one step on. Not residual; weights keep PyTorch's initialisation."""

    def __init__(self, latent: int, actions: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(latent + actions, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, latent))

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        return self.layers(torch.cat([latent, action], -1))

    def roll(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Latents (..., d) and actions (..., K, A) -> the latents after each action, (..., K, d)."""
        out = []
        for action in actions.unbind(-2):
            latent = self(latent, action)
            out.append(latent)
        return torch.stack(out, -2)


@dataclass(frozen=True)
class Windows:
    """Some windows of an update, with their random choices."""

    sequence: Sequence  # B windows of K + 1 observations
    view: View  # of the first observations, B images
    target_view: View  # of the target images, `each` of every window
    each: int
    actions: Tensor | None = None  # of the virtual trajectories, (B, M, K, A)

    def __getitem__(self, rows: slice) -> "Windows":
        images = slice(rows.start * self.each, rows.stop * self.each)
        actions = None if self.actions is None else self.actions[rows]
        return Windows(self.sequence[rows], self.view[rows], self.target_view[images], self.each, actions)


class SPR(Objective):
    """From the first observation of a window, predict the next K latents. Their targets are K augmented observations."""

    copies = 0  # M, further views of the first observation among the target images

    def __init__(self, spr: Config, handles: SACHandles, augment: Augmentation) -> None:
        super().__init__()
        dim = handles.latent
        self.steps, self.window, self.batch_size, self.chunk = spr.steps, spr.steps + 1, spr.batch_size, handles.chunk
        self.scale = spr.weight * (1 if spr.variant == "B" else spr.steps)
        self.columns = ("loss/spr", *(f"loss/spr_{k}" for k in range(1, spr.steps + 1)))
        self.augment, self.pixels, self.encoder = augment, handles.pixels, handles.encoder
        self.dynamics = Dynamics(dim, handles.actions, spr.width)
        self.projection, self.prediction = (mlp(dim, spr.hidden, dim, layers=1) for _ in range(2))
        self.target_encoder, self.target_projection = copy.deepcopy(handles.encoder), mlp(dim, spr.hidden, dim, layers=1)
        self.targets = Momentum((self.encoder, self.target_encoder, spr.tau), (self.projection, self.target_projection, spr.tau))
        self.to(handles.device)

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Iterator[Windows]:
        drawn = self.draw(sequence, generator)
        for rows in rows_of(len(sequence), self.chunk):
            yield drawn[rows]

    def draw(self, sequence: Sequence, generator: torch.Generator) -> Windows:
        b, each, channels = len(sequence), self.steps + self.copies, sequence.obs.channels
        view, target_view = (self.augment.draw(n, channels, generator) for n in (b, b * each))
        return Windows(sequence, view, target_view, each)

    def loss(self, part: Windows) -> tuple[Tensor, Metrics]:
        return self.forward_loss(part, self.state(part), self.target(part))

    def state(self, part: Windows) -> Tensor:
        """z_0 of each window, (B, d)."""
        first = Frames(part.sequence.obs.store, self.stacks(part)[:, 0])
        return self.encoder(self.pixels(self.augment.view(first, part.view)))

    @torch.no_grad()
    def target(self, part: Windows) -> Tensor:
        """Target projections (B, K + M, p): of the observations 1 to K, then of M further views of the first. All are one batch."""
        stacks = self.stacks(part)
        wanted = torch.cat([stacks[:, 1:], stacks[:, :1].expand(-1, self.copies, -1)], 1)  # (B, K + M, S)
        frames = Frames(part.sequence.obs.store, wanted.flatten(0, 1))
        blocks = rows_of(len(frames), self.chunk)
        latents = [self.target_encoder(self.pixels(self.augment.view(frames[rows], part.target_view[rows]))) for rows in blocks]
        return self.target_projection(torch.cat(latents)).unflatten(0, wanted.shape[:2])

    def stacks(self, part: Windows) -> Tensor:
        """The frames of each observation, (B, K + 1, S)."""
        return part.sequence.obs.index.unflatten(0, (-1, self.window))

    def answer(self, latents: Tensor) -> Tensor:
        return self.prediction(self.projection(latents))

    def forward_loss(self, part: Windows, state: Tensor, targets: Tensor) -> tuple[Tensor, Metrics]:
        """The weighted mean over the steps ahead, (B,). z_k = dynamics(z_{k-1}, a_{k-1}), so the window's last action has no part in it."""
        ahead = self.dynamics.roll(state, part.sequence.action[:, : self.steps])  # (B, K, d)
        apart = distance(self.answer(ahead), targets[:, : self.steps])  # (B, K)
        means = over_valid(apart.detach(), part.sequence.valid)  # (K,)
        metrics = {f"loss/spr_{k}": mean for k, mean in enumerate(means, 1)}
        return self.scale * apart.mean(1), {"loss/spr": means.mean(), **metrics}


def over_valid(values: Tensor, valid: Tensor) -> Tensor:
    """The mean over the valid windows of values (B, ...)."""
    return valid @ values / valid.sum().clamp_min(1.0)


class ClippedTwice(Adam):
    """Clips the gradient of `part`, then that of all parameters together, so that the part's can shrink twice."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, clip: float, part: list[nn.Parameter]) -> None:
        super().__init__(parameters, lr, clip=clip)
        self.part = part

    def step(self) -> Tensor:
        norm = self.norm()
        nn.utils.clip_grad_norm_(self.part, self.clip)
        super().step()
        return norm


def make_optimizers(config: Config, objective: SPR) -> list[Adam]:
    """The optimisers of a variant. All clips are the first one's, and all optimisers step with the clipped gradient."""
    spr, quirks = config.spr, config.quirks
    everything, encoder = list(objective.trained()), list(objective.encoder.parameters())
    if spr.variant == "B":
        return [Adam(everything, spr.lr), Adam(encoder, 2 * spr.encoder_lr)]
    rate = 0.5 if quirks.half_spr_lr else 1.0
    own = spr.variant == "A"
    if own and quirks.double_clip:
        first: Adam = ClippedTwice(everything, rate * spr.lr, spr.clip, encoder)
    else:
        first = Adam(everything, rate * spr.lr, clip=spr.clip)
    return [first, Adam(encoder, rate * spr.encoder_lr)] if own and quirks.two_adams else [first]


def make_augmentation(config: Config, agent: SAC) -> Augmentation:
    image, augment = config.image, config.augment
    return Augmentation(augment.order, image.size, image.crop, augment.pad, augment.intensity, dtype=agent.handles.precision.dtype)


def attach(config: Config, agent: SAC, objective: SPR) -> None:
    agent.attach(objective, *make_optimizers(config, objective))


def build(config: Config, agent: SAC) -> None:
    """Without a weight this is the Baseline."""
    if config.spr.weight:
        attach(config, agent, SPR(config.spr, agent.handles, make_augmentation(config, agent)))
