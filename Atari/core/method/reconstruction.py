"""Mask-based latent reconstruction: Figure 1 of the paper, top to bottom."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .augment import Augmentation, View
from .decoder import Decoder
from .frames import Frames
from .masks import Masks
from .momentum import Momentum
from .objective import Metrics, Objective
from .sequence import Sequence

OTHERS = 4  # `dependence` predicts each target from the inputs of this many other sequences


@dataclass(frozen=True)
class MaskedSequence:
    """Some sequences of an update, with their masks and augmentations."""

    sequence: Sequence
    hidden: Tensor  # (B * K, size, size) bool: 1 where a pixel is hidden
    masked_view: View
    target_view: View
    fill: Tensor | None = None  # the colour of hidden pixels, a uint8 value per colour of a frame; None: black


class Reconstruction(Objective):
    """MLR. The encoder belongs to the agent; the projection too on Atari, but to this objective on DMControl."""

    columns = ("loss/mlr",)
    diagnostics = ("mlr/mask_ratio", "mlr/target_distance", "mlr/loss_own", "mlr/loss_other", "mlr/loss_constant")

    def __init__(
        self,
        *,
        masks: Masks,
        augment: Augmentation,
        encoder: Callable[[Tensor], Tensor],
        embed_action: Callable[[Tensor], Tensor] | None,
        decoder: Decoder,
        projection: Callable[[Tensor], Tensor],
        prediction: nn.Module,
        target_encoder: Callable[[Tensor], Tensor],
        target_projection: Callable[[Tensor], Tensor],
        targets: Momentum,
        pixels: Callable[[Tensor], Tensor] = lambda image: image,
        clip_heads: bool = False,
        one_mask: bool = True,
        pixel_targets: bool = False,
        batch_size: int | None = None,
        chunk: int | None = None,
        fill: Callable[[Frames], Tensor] | None = None,
    ) -> None:
        """fill: the frames of an update -> the colour of hidden pixels, a uint8 value per colour of a frame; None: black."""
        super().__init__()
        self.window, self.batch_size, self.chunk = masks.window, batch_size, chunk
        self.masks, self.augment, self.one_mask, self.pixel_targets = masks, augment, one_mask, pixel_targets
        self.encoder, self.embed_action, self.decoder = encoder, embed_action, decoder
        self.projection, self.prediction = projection, prediction
        self.target_encoder, self.target_projection = target_encoder, target_projection
        self.targets, self.pixels, self.clip_heads = targets, pixels, clip_heads
        self.fill = fill

    def parts(self, sequence: Sequence, generator: torch.Generator, view: View | None = None) -> Iterator[MaskedSequence]:
        b, k = sequence.action.shape[:2]
        cells = self.masks.draw(1 if self.one_mask else b, generator)
        hidden = self.masks.pixels(cells)  # (1 or B, K, size, size)
        assert hidden.shape[:2] == (len(cells), k) and len(sequence.obs) == b * k, f"mask {hidden.shape} of sequences {b} x {k}"
        masked_view = self.augment.draw(b * k, sequence.obs.channels, generator)
        target_view = self.augment.draw(b * k, sequence.obs.channels, generator)
        fill = None if self.fill is None else self.fill(sequence.obs)
        chunk = self.chunk or b
        for start in range(0, b, chunk):
            stop = min(b, start + chunk)
            rows = slice(start * k, stop * k)
            own = hidden.expand(stop - start, -1, -1, -1) if self.one_mask else hidden[start:stop]
            yield MaskedSequence(sequence[start:stop], own.flatten(0, 1), masked_view[rows], target_view[rows], fill)

    def loss(self, part: MaskedSequence) -> tuple[Tensor, Metrics]:
        states, actions, targets = self.encode(part)
        loss = self.compare(self.predict(states, actions), targets).mean(1)  # (B,)
        valid = part.sequence.valid
        return loss, {"loss/mlr": (loss.detach() * valid).sum() / valid.sum().clamp_min(1.0)}

    def encode(self, part: MaskedSequence) -> tuple[Tensor, Tensor | None, Tensor]:
        """Masked states (B, K, d), action tokens (B, K, d), targets (B, K, p)."""
        b, k = part.sequence.action.shape[:2]
        masked = self.augment.view(part.sequence.obs, part.masked_view, part.hidden, part.fill)  # mask, then augment: (B*K, C, h, w)
        clear = self.augment.view(part.sequence.obs, part.target_view)
        states = self.encoder(self.pixels(masked)).view(b, k, -1)
        actions = None if self.embed_action is None else self.embed_action(part.sequence.action)
        return states, actions, self.target(clear).view(b, k, -1)

    def predict(self, states: Tensor, actions: Tensor | None) -> Tensor:
        decoded = self.decoder(states, actions)  # decode: (B, K, d)
        assert decoded.shape == states.shape, f"{decoded.shape}, {states.shape}"
        return self.prediction(self.projection(decoded))  # project and predict: (B, K, p)

    @torch.no_grad()
    def target(self, clear: Tensor) -> Tensor:
        """The targets: what the momentum branch gives for the unmasked view, or the pixels of that view."""
        if self.pixel_targets:
            return clear.flatten(1).float() / 255
        return self.target_projection(self.target_encoder(self.pixels(clear)))

    def compare(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Per step: the squared distance of the unit vectors, 2 - 2 cos; for pixel targets the mean squared error."""
        assert predicted.shape == targets.shape, f"{predicted.shape}, {targets.shape}"
        if self.pixel_targets:
            return (predicted - targets).square().mean(-1)
        return distance(predicted, targets)

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        own = [self.decoder] + ([m for m in (self.prediction, self.embed_action) if m is not None] if self.clip_heads else [])
        return {"decoder": [p for module in own for p in module.parameters()]}

    @torch.no_grad()
    def diagnose(self, sequence: Sequence, generator: torch.Generator) -> tuple[dict[str, float], dict[str, Tensor]]:
        pictures = self.pictures(sequence, generator)
        numbers = {"mlr/mask_ratio": self.masks.draw(1, generator).float().mean().item(), "mlr/target_distance": self.targets.distance()}
        return numbers | self.dependence(sequence, generator), pictures

    def pictures(self, sequence: Sequence, generator: torch.Generator) -> dict[str, Tensor]:
        """The newest frames of one sequence, without and with a mask: (K, C, size, size) uint8."""
        one = sequence[0:1]
        hidden = self.masks.pixels(self.masks.draw(1, generator))[0]  # (K, size, size)
        frames = Frames(one.obs.store, one.obs.index[:, -1:]).whole()
        fill = torch.zeros_like(frames) if self.fill is None else self.fill(one.obs)[:, None, None]
        return {"frames": frames, "masked": torch.where(hidden[:, None], fill, frames)}

    def dependence(self, sequence: Sequence, generator: torch.Generator) -> dict[str, float]:
        """Whether the prediction depends on the input. Three losses: with a sequence's own states and actions (own), with those of
        another sequence that shares no frame with it (other), and with the mean target as every prediction (constant).

        own = other if the prediction ignores the input. All three are 0 if all targets are the same.
        """
        valid, frames = sequence.valid > 0, sequence.obs.index.view(len(sequence), -1)
        seen = [self.encode(part) for part in self.parts(sequence, generator)]
        states, targets, frames = torch.cat([s for s, _, _ in seen])[valid], torch.cat([t for _, _, t in seen])[valid], frames[valid]
        actions = None if self.embed_action is None else torch.cat([a for _, a, _ in seen])[valid]
        other = []
        for shift in range(1, min(len(frames), 1 + OTHERS)):
            loss = self.compare(self.predict(states.roll(shift, 0), None if actions is None else actions.roll(shift, 0)), targets)
            apart = (frames[:, :, None] != frames.roll(shift, 0)[:, None, :]).flatten(1).all(1)
            other.append(loss[apart].flatten())
        if sum(map(len, other)) == 0:
            return {}
        constant = self.compare(targets.mean((0, 1)).expand_as(targets), targets)
        losses = {"own": self.compare(self.predict(states, actions), targets), "other": torch.cat(other), "constant": constant}
        return {f"mlr/loss_{name}": loss.mean().item() for name, loss in losses.items()}


def distance(predicted: Tensor, targets: Tensor) -> Tensor:
    """|| a/|a| - b/|b| ||^2 with norms of at least 1e-3."""
    a, b = F.normalize(predicted, dim=-1, eps=1e-3), F.normalize(targets, dim=-1, eps=1e-3)
    return (a - b).square().sum(-1)
