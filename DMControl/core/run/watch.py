"""Find the update whose loss or gradient is not a finite number, and keep what it drew."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..method.frames import Frames


class Watch:
    """Updates since the last look: their metrics stay on the device until `look`, which waits for it once."""

    def __init__(self) -> None:
        self.recent: list[tuple[int, dict[str, Tensor], dict[str, Any]]] = []

    def add(self, update: int, metrics: dict[str, Tensor], drawn: dict[str, Any]) -> None:
        """An update was made from what the replay drew. An infinite gradient is not in its own loss, but in its norm."""
        self.recent.append((update, metrics, dict(drawn)))

    def look(self) -> tuple[int, dict[str, float], dict[str, Any]] | None:
        """The first of these updates with a number that is not finite: its number, metrics and draws. None where all is well."""
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
        return None  # finite numbers whose sum is not


def write_inspection(path: Path, facts: dict[str, Any], drawn: dict[str, Any]) -> None:
    """Tensors and plain values: torch.load(path, weights_only=True) reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**facts, **plain(drawn)}, path)


def plain(value: Any) -> Any:
    """Dataclasses and stacks as dicts of tensors on the host; of the frames only those that are used."""
    if isinstance(value, Frames):
        used, index = value.index.unique(return_inverse=True)
        return {"frames": value.store[used.to(value.store.device)].cpu(), "index": index.cpu()}  # (F, C, H, W), (N, S)
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value
