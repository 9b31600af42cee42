"""Optimisers that carry their schedule and their clip."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .errors import UserError


def warmup_factor(step: int, warmup: int, decay: str) -> float:
    """Linear from 5e-4 to 1 over `warmup` steps, then sqrt(warmup / step) or constant. The first update is step 0."""
    if warmup == 0:
        return 1.0
    if step < warmup:
        return 5e-4 + step * (1 - 5e-4) / warmup
    return (warmup / step) ** 0.5 if decay == "inverse_sqrt" else 1.0


class Adam:
    """Fused Adam with a learning-rate schedule and a gradient clip."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        clip: float | None = None,
        warmup: int = 0,
        decay: str = "constant",
        weight_decay: float = 0.0,
    ) -> None:
        if decay not in ("constant", "inverse_sqrt"):
            raise UserError(f"decay={decay} is unknown: use inverse_sqrt or constant")
        self.parameters = list(parameters)
        self.inner = torch.optim.Adam(self.parameters, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay, fused=True)
        self.lr, self.clip, self.warmup, self.decay, self.updates = lr, clip, warmup, decay, 0

    def zero_grad(self) -> None:
        self.inner.zero_grad(set_to_none=True)

    def step(self) -> Tensor | None:
        """One step; returns the gradient's norm where it is clipped."""
        norm = None
        if self.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for group in self.inner.param_groups:
            group["lr"] = self.lr * warmup_factor(self.updates, self.warmup, self.decay)
        self.inner.step()
        self.updates += 1
        return norm

    def state_dict(self) -> dict:
        return {"inner": self.inner.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        self.inner.load_state_dict(state["inner"])
        self.updates = state["updates"]
