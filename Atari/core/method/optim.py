"""Adam with a learning-rate schedule and a gradient clip."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError


def warmup_factor_on_device(step: Tensor, warmup: int, decay: str) -> Tensor:
    """warmup_factor for a step count that is on the device."""
    if warmup == 0:
        return torch.ones_like(step)
    rising = 5e-4 + step * ((1 - 5e-4) / warmup)
    after = (warmup / step.clamp_min(1)).sqrt() if decay == "inverse_sqrt" else torch.ones_like(step)
    return torch.where(step < warmup, rising, after)


def warmup_factor(step: int, warmup: int, decay: str) -> float:
    """Linear from 5e-4 to 1 over `warmup` steps, then sqrt(warmup / step) or constant. The first update is step 0."""
    if warmup == 0:
        return 1.0
    if step < warmup:
        return 5e-4 + step * (1 - 5e-4) / warmup
    return (warmup / step) ** 0.5 if decay == "inverse_sqrt" else 1.0


class MetaAdam(torch.optim.Optimizer):
    """Allocates the moments of Adam for parameters on `meta`, where torch's fused Adam fails."""

    def __init__(self, parameters: list[nn.Parameter], *settings: Any, **more: Any) -> None:
        super().__init__(parameters, {})

    def step(self) -> None:
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None and not self.state[p]):
            self.state[p] = {name: torch.empty_like(p) for name in ("exp_avg", "exp_avg_sq")}


class Adam:
    """Fused Adam with a learning-rate schedule and a gradient clip.

    Except on a CPU, the rate and the count of updates are on the device, so that a recorded CUDA graph follows the schedule.
    """

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
        self.lr, self.clip, self.warmup, self.decay = lr, clip, warmup, decay
        device = self.parameters[0].device
        self.on_device = device.type != "cpu"
        self.count = torch.zeros((), dtype=torch.float64, device=device) if self.on_device else 0
        self.rate = torch.full((), lr, device=device) if self.on_device else lr
        make = MetaAdam if device.type == "meta" else torch.optim.Adam
        self.inner = make(self.parameters, self.rate, tuple(betas), eps, weight_decay, fused=True, capturable=self.on_device)

    def zero_grad(self) -> None:
        self.inner.zero_grad(set_to_none=True)

    def leave_out(self, parameters: Iterable[nn.Parameter]) -> None:
        """Leave these parameters as they are."""
        out = {id(p) for p in parameters}
        for group in self.inner.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in out]

    def step(self) -> Tensor | None:
        """Take a step. Returns the gradient norm before clipping, or None without a clip."""
        norm = None
        if self.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        if self.on_device:
            self.rate.copy_(self.lr * warmup_factor_on_device(self.count, self.warmup, self.decay))
        else:
            self._set(self.lr * warmup_factor(self.count, self.warmup, self.decay))
        self.inner.step()
        self.count += 1
        return norm

    def norm(self) -> Tensor:
        """The norm of the current gradient."""
        found = [p.grad for p in self.parameters if p.grad is not None]
        return nn.utils.get_total_norm(found) if found else torch.zeros((), device=self.parameters[0].device)

    @property
    def updates(self) -> int:
        return int(self.count)

    def state_dict(self) -> dict:
        return {"inner": self.inner.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        self.inner.load_state_dict(state["inner"])
        self._set(self.rate)  # the checkpoint may come from another kind of device
        if self.on_device:
            self.count.fill_(state["updates"])
        else:
            self.count = state["updates"]

    def _set(self, rate: Tensor | float) -> None:
        for group in self.inner.param_groups:
            group["lr"], group["capturable"] = rate, self.on_device
