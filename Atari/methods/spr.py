"""SPR: latents of the future, predicted step by step by a model of the dynamics, must agree with those of a copy of the encoder.

The predictions begin with the latent that the RL loss reads. Projections are the first layers of the Q head.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.rainbow import Rainbow, RainbowHandles
from ..core.errors import UserError
from ..core.machine import Precision
from ..core.method.augment import View
from ..core.method.encoder import renormalise
from ..core.method.frames import Frames
from ..core.method.momentum import Momentum
from ..core.method.objective import Metrics, Objective
from ..core.method.reconstruction import distance
from ..core.method.sequence import Sequence
from ..core.run.config import Config
from .mlr import Projection, projection


class Dynamics(nn.Module):
    """Latent and action -> latent one step on: convolution, ReLU, batch norm, convolution, ReLU, features scaled to [0, 1].

    The batch norm always uses the statistics of its own batch, so a batch cannot be computed in parts.
    """

    def __init__(self, channels: int, side: int, actions: int, precision: Precision) -> None:
        super().__init__()
        self.shape, self.precision = (channels, side, side), precision
        self.first = nn.Conv2d(channels + actions, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        """(N, d) and (N, A), one-hot -> (N, d)."""
        planes = action[:, :, None, None].expand(-1, -1, *self.shape[1:])  # one constant plane per action
        x = torch.cat([latent.unflatten(1, self.shape), planes], 1)
        with self.precision.autocast():
            x = self.norm(F.relu(self.first(x)).float())
            x = F.relu(self.second(x))
        return renormalise(x.float())

    def roll(self, latent: Tensor, actions: Tensor) -> list[Tensor]:
        """Latents (N, d) and actions (N, K, A) -> the K latents after each action, (N, d) each."""
        out = []
        for action in actions.unbind(1):
            latent = self(latent, action)
            out.append(latent)
        return out


@dataclass(frozen=True)
class Windows:
    """The windows of an update, with their random choices."""

    sequence: Sequence  # B windows of K + 1 observations, and the latents of the first ones
    target_view: View  # of the target images
    actions: Tensor | None = None  # of the virtual trajectories, (B, M, K)


class SPR(Objective):
    """From the latent of a window's first observation, predict the next K. Their targets are K augmented observations."""

    shares_state = True
    copies = 0  # M, further views of the first observation among the target images

    def __init__(self, config: Config, handles: RainbowHandles) -> None:
        super().__init__()
        spr, quirks, encoder, head = config.spr, config.quirks, handles.encoder, handles.head
        self.steps, self.window, self.scale, self.actions = spr.steps, spr.steps + 1, spr.weight, handles.actions
        self.actions_run_on, self.mask_includes_end = quirks.actions_run_on, quirks.mask_includes_end
        self.clip_prediction = not quirks.unclipped_heads
        self.columns = ("loss/spr", *(f"loss/spr_{k}" for k in range(1, spr.steps + 1)))
        self.augment, self.pixels, self.projection = handles.augment, handles.pixels, projection(head)
        self.dynamics = make_dynamics(handles)
        projected = 2 * head.value_hidden.mean.out_features
        self.prediction = nn.Linear(projected, projected)
        self.target_encoder, self.target_projection = copy.deepcopy(encoder), Projection(head)
        self.targets = Momentum(
            (encoder, self.target_encoder, spr.tau),
            (head.value_hidden.mean, self.target_projection.value, spr.tau),
            (head.advantage_hidden.mean, self.target_projection.advantage, spr.tau),
        )
        self.to(handles.device)

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Iterator[Windows]:
        yield self.draw(sequence, generator)

    def draw(self, sequence: Sequence, generator: torch.Generator) -> Windows:
        images = len(sequence) * (self.steps + self.copies)
        return Windows(sequence, self.augment.draw(images, sequence.obs.channels, generator))

    def loss(self, part: Windows) -> tuple[Tensor, Metrics]:
        return self.forward_loss(part.sequence, self.target(part))

    @torch.no_grad()
    def target(self, part: Windows) -> Tensor:
        """Target projections (B, K + M, p): of the observations 1 to K, then of M further views of the first. All are one batch."""
        obs = part.sequence.obs
        stacks = obs.index.unflatten(0, (-1, self.window))  # (B, K + 1, S)
        wanted = torch.cat([stacks[:, 1:], stacks[:, :1].expand(-1, self.copies, -1)], 1)  # (B, K + M, S)
        image = self.augment.view(Frames(obs.store, wanted.flatten(0, 1)), part.target_view)
        return self.target_projection(self.target_encoder(self.pixels(image))).unflatten(0, wanted.shape[:2])

    def answer(self, latents: Tensor) -> Tensor:
        return self.prediction(self.projection(latents))

    def forward_loss(self, sequence: Sequence, targets: Tensor) -> tuple[Tensor, Metrics]:
        """The weighted mean over the steps ahead, (B,). z_k = dynamics(z_{k-1}, a_{k-1}), so the window's last action has no part in it."""
        actions = self.one_hot(sequence.action[:, : self.steps])  # (B, K, A)
        if not self.actions_run_on:
            actions = actions * self.reached(sequence.done)[:, : self.steps, None]
        ahead = torch.stack(self.dynamics.roll(sequence.state, actions), 1)  # (B, K, d)
        apart = distance(self.answer(ahead), targets[:, : self.steps])  # (B, K)
        counted = self.counted(sequence.done)[:, 1:]
        metrics = {f"loss/spr_{k}": mean_where(*both) for k, both in enumerate(zip(apart.T, counted.T, strict=True), 1)}
        return self.scale * (apart * counted).mean(1), {"loss/spr": mean_where(apart, counted), **metrics}

    def counted(self, done: Tensor) -> Tensor:
        """1 where the observation k of a window counts as a target, (B, K + 1)."""
        return (done.cumsum(1) == 0).float() if self.mask_includes_end else self.reached(done)

    def reached(self, done: Tensor) -> Tensor:
        """1 where the episode reaches observation k: no step before k ended it. (B, K + 1)"""
        return (done.cumsum(1) - done == 0).float()

    def one_hot(self, action: Tensor) -> Tensor:
        """(...) -> (..., A). F.one_hot reads the values on the host."""
        return (action[..., None] == torch.arange(self.actions, device=action.device)).float()

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"dynamics": [*self.dynamics.parameters(), *(self.prediction.parameters() if self.clip_prediction else [])]}


def make_dynamics(handles: RainbowHandles) -> Dynamics:
    trunk = handles.encoder.trunk
    return Dynamics(trunk.channels, trunk.side, handles.actions, trunk.precision)


def mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of the values that count."""
    return (values.detach() * counted).sum() / counted.sum().clamp_min(1.0)


def check(config: Config, agent: Rainbow) -> None:
    if config.rainbow.batch_size * agent.handles.encoder.trunk.side < 2:
        raise UserError("rainbow.batch_size=1 is too small for the batch norm of spr, whose latents are a single place: use at least 2")


def build(config: Config, agent: Rainbow) -> None:
    """Without a weight this is the Baseline."""
    if config.spr.weight:
        check(config, agent)
        agent.attach(SPR(config, agent.handles))
