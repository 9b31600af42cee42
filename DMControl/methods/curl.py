"""CURL: SAC, and a contrastive objective: a crop of an observation must pick out another crop of it among those of the batch.

Anchors are the critic's own crops and go through its encoder; positives go through the encoder of the target critic.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.chunks import rows_of
from ..agents.sac import SAC, SACHandles
from ..core.method.augment import View
from ..core.method.encoder import Encoder
from ..core.method.frames import Frames
from ..core.method.objective import Metrics, Objective
from ..core.method.optim import Adam
from ..core.method.sequence import Sequence
from ..core.run.config import Config


class CURL(Objective):
    after_targets = True
    columns = ("loss/curl", "curl/accuracy")

    def __init__(self, handles: SACHandles, weight: float) -> None:
        super().__init__()
        self.encoder, self.target_encoder, self.weight = handles.encoder, handles.target_encoder, weight
        self.pixels, self.augment, self.chunk = handles.pixels, handles.augment, handles.chunk
        self.similarity = nn.Parameter(torch.rand(handles.latent, handles.latent, device=handles.device))  # W

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Iterator[tuple[Frames, View, View]]:
        obs = sequence.obs
        yield obs, view, self.augment.draw(len(obs), obs.channels, generator)  # one part, because each loss needs the whole batch

    def loss(self, part: tuple[Frames, View, View]) -> tuple[Tensor, Metrics]:
        """Cross-entropy of each anchor's logits, with its own positive as the class."""
        logits = self.logits(*part)
        own = torch.arange(len(logits), device=logits.device)
        losses = F.cross_entropy(logits, own, reduction="none")  # (B,)
        hits = (logits.argmax(1) == own).float().mean()
        return self.weight * losses, {"loss/curl": losses.detach().mean(), "curl/accuracy": hits}

    def logits(self, obs: Frames, anchor: View, positive: View) -> Tensor:
        """z_anchor W z_positive^T: (B, B), a row per anchor."""
        queries = self.describe(self.encoder, obs, anchor)
        with torch.no_grad():
            keys = self.describe(self.target_encoder, obs, positive)
        return queries @ self.similarity @ keys.T

    def describe(self, encoder: Encoder, obs: Frames, view: View) -> Tensor:
        """What the encoder says before its tanh: (B, latent)."""
        images = (self.pixels(self.augment.view(obs[rows], view[rows])) for rows in rows_of(len(obs), self.chunk))
        return torch.cat([encoder.head.before_tanh(encoder.trunk(image)) for image in images])


def build(config: Config, agent: SAC) -> None:
    if not config.curl.weight:
        return  # SAC alone
    objective = CURL(agent.handles, config.curl.weight)
    optimizers = [Adam(objective.trained(), config.curl.lr)]
    if config.quirks.two_encoder_steps:
        optimizers.append(Adam(objective.encoder.parameters(), config.curl.lr))
    agent.attach(objective, *optimizers)
