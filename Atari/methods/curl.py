"""CURL: Rainbow, and a contrastive objective: a crop of an observation must pick out another crop of it among those of the batch.

Only the objective sees crops; Rainbow's own loss does not. Keys come from a slow copy of encoder and description.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.rainbow import Rainbow, RainbowHandles
from ..core.method.augment import Gather, View
from ..core.method.frames import Frames
from ..core.method.momentum import Momentum
from ..core.method.objective import Metrics, Objective
from ..core.method.sequence import Sequence
from ..core.run.config import Config

SCALE = 0.1  # of the logits


class Description(nn.Module):
    """Latent -> what is compared, (N, size): two layers, each with a LayerNorm that has no weights of its own."""

    def __init__(self, latent: int, hidden: int, size: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.rand(latent, hidden), torch.rand(hidden, size)])  # W_h, W_c, uniform in [0, 1)
        self.biases = nn.ParameterList([torch.zeros(hidden), torch.zeros(size)])

    def forward(self, latent: Tensor) -> Tensor:
        x = latent @ self.weights[0] + self.biases[0]
        x = F.layer_norm(x, x.shape[1:]).relu() @ self.weights[1] + self.biases[1]
        return F.layer_norm(x, x.shape[1:])


class CURL(Objective):
    columns = ("loss/curl", "curl/accuracy")

    def __init__(self, curl: Config, handles: RainbowHandles, in_priorities: bool) -> None:
        super().__init__()
        self.size, self.cut, self.pad = handles.size, curl.cut, curl.pad
        self.weight, self.in_priorities = curl.weight, in_priorities
        self.pixels, self.augment = handles.pixels, handles.augment
        self.encoder, self.describe = handles.encoder, Description(handles.latent, curl.hidden, curl.size)
        self.similarity = nn.Parameter(torch.rand(curl.size, curl.size))  # W
        self.target_encoder, self.target_describe = copy.deepcopy(self.encoder), copy.deepcopy(self.describe)
        self.targets = Momentum((self.encoder, self.target_encoder, curl.tau), (self.describe, self.target_describe, curl.tau))
        self.to(handles.device)

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"network": list(self.trained())}  # one norm over everything

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Iterator[tuple[Frames, View, View]]:
        obs = sequence.obs
        yield obs, *(self.draw(len(obs), generator) for _ in range(2))  # one part, because each loss needs the whole batch

    def draw(self, n: int, generator: torch.Generator) -> View:
        """Crop a few pixels off, repeat the edges around, and crop again: 84 to 80 to 88 to 84."""

        def along() -> Tensor:
            first, second = (
                torch.randint(choices, (n, 1), generator=generator, device=generator.device)
                for choices in (self.cut + 1, 2 * self.pad - self.cut + 1)
            )
            inner = torch.arange(self.size, device=generator.device) + second - self.pad
            return first + inner.clamp(0, self.size - self.cut - 1)  # (n, size)

        return View((Gather(along(), along(), None),))

    def loss(self, part: tuple[Frames, View, View]) -> tuple[Tensor, Metrics]:
        """Cross-entropy of the anchors' logits, with their own keys as classes. Its mean counts for every sample alike."""
        logits = self.logits(*part)
        own = torch.arange(len(logits), device=logits.device)
        loss = F.cross_entropy(logits, own)
        hits = (logits.argmax(1) == own).float().mean()
        return loss.expand(len(logits)), {"loss/curl": loss.detach(), "curl/accuracy": hits}

    def logits(self, obs: Frames, anchor: View, key: View) -> Tensor:
        """z_anchor W z_key^T, (B, B), a row per anchor; less the row's largest, then scaled."""
        queries = self.describe(self.encoder(self.pixels(self.augment.view(obs, anchor))))
        with torch.no_grad():
            keys = self.target_describe(self.target_encoder(self.pixels(self.augment.view(obs, key))))
        logits = queries @ self.similarity @ keys.T
        return SCALE * (logits - logits.amax(1, keepdim=True))

    def priority(self, metrics: Metrics) -> Tensor | float:
        return self.weight * metrics["loss/curl"] if self.in_priorities else 0.0


def build(config: Config, agent: Rainbow) -> None:
    """Without a weight this is Rainbow alone."""
    curl = config.curl
    if curl.weight:
        agent.attach(CURL(curl, agent.handles, config.quirks.objective_in_priorities), curl.weight)
