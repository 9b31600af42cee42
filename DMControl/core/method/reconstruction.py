"""Mask-based latent reconstruction: Figure 1 of the paper, top to bottom."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .augment import Augmentation, View
from .decoder import Decoder
from .frames import Frames
from .masks import Masks
from .momentum import Momentum

Metrics = dict[str, Tensor]
GAUGED, OTHERS = 16, 4  # windows that an evaluation looks at; others that each is answered from


@dataclass(frozen=True)
class Window:
    """B windows of K consecutive observations; `obs` holds them window by window, n = b * K + k."""

    obs: Frames  # B * K stacks
    action: Tensor  # (B, K, A), or (B, K) where actions are discrete
    weight: Tensor  # (B,): 0 for a window that must not count
    step_done: Tensor | None = None  # (B, K): 1 from the step on at which the episode is over

    def __len__(self) -> int:
        return len(self.action)

    def __getitem__(self, part: slice) -> "Window":
        k = self.action.shape[1]
        start, stop, _ = part.indices(len(self))
        done = None if self.step_done is None else self.step_done[part]
        return Window(self.obs[start * k : stop * k], self.action[part], self.weight[part], done)


@dataclass(frozen=True)
class Part:
    """Some windows of an update with what was drawn for them."""

    window: Window
    hidden: Tensor  # (n, size, size) bool per image: 1 where a pixel is hidden
    masked_view: View
    target_view: View


class Objective(Protocol):
    """What an RL algorithm asks of an auxiliary objective. It never asks which one it has."""

    window: int  # consecutive observations it wants to see
    batch_size: int
    place: str  # "after_critic" or "after_targets": when in an update it takes its step

    def trained(self) -> Iterator[nn.Parameter]: ...  # what its gradient moves

    def parts(self, window: Window, generator: torch.Generator) -> Iterator: ...  # draw once, hand out in parts

    def loss(self, part: Part) -> tuple[Tensor, Metrics]: ...  # per window, (B,)

    def after_step(self) -> None: ...  # move the targets

    def pictures(self, window: Window, generator: torch.Generator) -> dict[str, Tensor]: ...

    def gauges(self, window: Window, generator: torch.Generator) -> dict[str, float]: ...  # read at each evaluation


class Reconstruction(nn.Module):
    """MLR. The encoder and the projection belong to the agent or to this objective, as the tree decides."""

    place = "after_critic"

    def __init__(
        self,
        *,
        batch_size: int,
        masks: Masks,
        augment: Augmentation,
        encoder: Callable[[Tensor], Tensor],
        embed_action: Callable[[Tensor], Tensor] | None,
        decoder: Decoder,
        projection: Callable[[Tensor], Tensor],
        prediction: nn.Module,
        target_encoder: Callable[[Tensor], Tensor],
        target_projection: Callable[[Tensor], Tensor],
        momentum: Momentum,
        one_mask: bool = True,
        pixel_targets: bool = False,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.window, self.batch_size, self.chunk = masks.window, batch_size, chunk
        self.masks, self.augment, self.one_mask, self.pixel_targets = masks, augment, one_mask, pixel_targets
        self.encoder, self.embed_action, self.decoder = encoder, embed_action, decoder
        self.projection, self.prediction = projection, prediction
        self.target_encoder, self.target_projection = target_encoder, target_projection
        self.momentum = momentum

    def parts(self, window: Window, generator: torch.Generator) -> Iterator[Part]:
        """Draw this update's mask and views once; hand the windows out in parts that bound the memory."""
        b, k = window.action.shape[:2]
        cells = self.masks.draw(1 if self.one_mask else b, generator)
        hidden = self.masks.pixels(cells)  # (1 or B, K, size, size)
        assert hidden.shape[:2] == (len(cells), k) and len(window.obs) == b * k, f"mask {hidden.shape} of windows {b} x {k}"
        masked_view = self.augment.draw(b * k, window.obs.channels, generator)
        target_view = self.augment.draw(b * k, window.obs.channels, generator)
        chunk = self.chunk or b
        for start in range(0, b, chunk):
            stop = min(b, start + chunk)
            rows = slice(start * k, stop * k)
            own = hidden.expand(stop - start, -1, -1, -1) if self.one_mask else hidden[start:stop]
            yield Part(window[start:stop], own.flatten(0, 1), masked_view[rows], target_view[rows])

    def loss(self, part: Part) -> tuple[Tensor, Metrics]:
        states, actions, targets = self.see(part)
        loss = self.compare(self.predict(states, actions), targets)  # (B, K)
        good = (part.window.weight > 0).float()
        per_window = loss.mean(1)  # (B,)
        return per_window, {"loss/mlr": (per_window.detach() * good).sum() / good.sum().clamp_min(1.0)}

    def see(self, part: Part) -> tuple[Tensor, Tensor | None, Tensor]:
        """Masked states (B, K, d), action tokens (B, K, d), targets (B, K, p)."""
        b, k = part.window.action.shape[:2]
        masked = self.augment.view(part.window.obs, part.masked_view, part.hidden)  # mask, then augment: (B*K, C, h, w)
        clear = self.augment.view(part.window.obs, part.target_view)
        states = self.encoder(masked).view(b, k, -1)  # encode
        actions = None if self.embed_action is None else self.embed_action(part.window.action)
        return states, actions, self.targets(clear).view(b, k, -1)

    def predict(self, states: Tensor, actions: Tensor | None) -> Tensor:
        decoded = self.decoder(states, actions)  # decode: (B, K, d)
        assert decoded.shape == states.shape, f"{decoded.shape}, {states.shape}"
        return self.prediction(self.projection(decoded))  # project and predict: (B, K, p)

    @torch.no_grad()
    def targets(self, clear: Tensor) -> Tensor:
        """What the momentum branch gives for the unmasked view, or the pixels of that view themselves."""
        if self.pixel_targets:
            return clear.flatten(1).float() / 255
        return self.target_projection(self.target_encoder(clear))

    def compare(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Squared distance of the unit vectors, 2 - 2 cos, per step; of the pixels themselves in pixel space."""
        assert predicted.shape == targets.shape, f"{predicted.shape}, {targets.shape}"
        if self.pixel_targets:
            return (predicted - targets).square().mean(-1)
        return distance(predicted, targets)

    def after_step(self) -> None:
        self.momentum.step()

    def trained(self) -> Iterator[nn.Parameter]:
        return (p for p in self.parameters() if p.requires_grad)

    @torch.no_grad()
    def pictures(self, window: Window, generator: torch.Generator) -> dict[str, Tensor]:
        """One window's newest frames, as they were and as the masked branch sees them: (K, C, size, size) uint8."""
        one = window[0:1]
        hidden = self.masks.pixels(self.masks.draw(1, generator))[0]  # (K, size, size)
        frames = Frames(one.obs.store, one.obs.index[:, -1:]).whole()
        return {"frames": frames, "masked": frames * ~hidden[:, None]}

    @torch.no_grad()
    def gauges(self, window: Window, generator: torch.Generator) -> dict[str, float]:
        """The hidden share of a fresh mask; how far the momentum branch is behind; and, where windows without a frame in common are at
        hand, the loss as it is, where each is answered from another one's states and actions, and where the mean target is the answer
        to all: own and other are alike where the answer does not depend on what was seen, all three are 0 where all targets are one."""
        found = {"mlr/mask_ratio": self.masks.draw(1, generator).float().mean().item(), "mlr/target_distance": self.momentum.distance()}
        good, frames = window.weight > 0, window.obs.index.view(len(window), -1)
        seen = [self.see(part) for part in self.parts(window, generator)]
        states, targets, frames = torch.cat([s for s, _, _ in seen])[good], torch.cat([t for _, _, t in seen])[good], frames[good]
        actions = None if self.embed_action is None else torch.cat([a for _, a, _ in seen])[good]
        other = []
        for away in range(1, min(len(frames), 1 + OTHERS)):
            loss = self.compare(self.predict(states.roll(away, 0), None if actions is None else actions.roll(away, 0)), targets)
            apart = (frames[:, :, None] != frames.roll(away, 0)[:, None, :]).flatten(1).all(1)
            other.append(loss[apart].flatten())
        if sum(map(len, other)) == 0:
            return found
        constant = self.compare(targets.mean((0, 1)).expand_as(targets), targets)
        losses = {"own": self.compare(self.predict(states, actions), targets), "other": torch.cat(other), "constant": constant}
        return found | {f"mlr/loss_{name}": loss.mean().item() for name, loss in losses.items()}


def distance(predicted: Tensor, targets: Tensor) -> Tensor:
    """|| a/|a| - b/|b| ||^2 with the norms floored at 1e-3."""
    a, b = F.normalize(predicted, dim=-1, eps=1e-3), F.normalize(targets, dim=-1, eps=1e-3)
    return (a - b).square().sum(-1)
