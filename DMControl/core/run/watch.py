"""Find the update with a loss or gradient that is not finite, and keep its samples."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..method.frames import Frames


class Watch:
    """Holds the updates since the last `look`. Their metrics stay on the device, and `look` waits for it once."""

    def __init__(self) -> None:
        self.recent: list[tuple[int, dict[str, Tensor], dict[str, Any]]] = []

    def add(self, update: int, metrics: dict[str, Tensor], drawn: dict[str, Any]) -> None:
        """Add an update. The metrics include gradient norms, because a gradient can be infinite while the loss is finite."""
        self.recent.append((update, metrics, dict(drawn)))

    def look(self) -> tuple[int, dict[str, float], dict[str, Any]] | None:
        """Number, metrics and samples of the first update with a metric that is not finite; None if all are finite."""
        recent, self.recent = self.recent, []
        if not recent:
            return None
        values = torch.stack([v.float() for _, metrics, _ in recent for v in metrics.values()])
        if math.isfinite(values.sum().item()):
            return None
        for update, metrics, drawn in recent:
            read = {name: value.item() for name, value in metrics.items()}
            if not all(math.isfinite(v) for v in read.values()):
                return update, read, drawn
        return None  # all are finite, only their sum is not


def write_inspection(path: Path, facts: dict[str, Any], drawn: dict[str, Any]) -> None:
    """Write tensors and plain values, which torch.load(path, weights_only=True) can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**facts, **plain(drawn)}, path)


def plain(value: Any) -> Any:
    """Convert dataclasses and Frames to dicts of tensors on the host, with only the frames that are used."""
    if isinstance(value, Frames):
        used, index = value.index.unique(return_inverse=True)
        return {"frames": value.store[used.to(value.store.device)].cpu(), "index": index.cpu()}  # (F, C, H, W), (N, S)
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value
