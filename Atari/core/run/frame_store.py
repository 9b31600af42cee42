"""The frames of a replay: a ring that stores each frame once and writes it to disk once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .. import machine
from ..errors import UserError


class FrameStore:
    """Frame f is in slot f % slots. The store is on the training device, or in RAM if the GPU has too little memory."""

    def __init__(self, slots: int, channels: int, size: int, device: torch.device, blank: bool = False) -> None:
        """blank: add one frame behind the ring that stays black."""
        self.slots = slots
        shape = (slots + blank, channels, size, size)
        need = int(np.prod(shape))
        self.device = device
        if device.type == "cuda" and need > 0.8 * machine.free_memory(device):
            self.device = torch.device("cpu")
        free = machine.free_memory(self.device)
        if need > free:
            raise UserError(
                f"the replay needs {machine.gigabytes(need)}, but {machine.gigabytes(free)} are free on {self.device}: "
                "lower replay.capacity or the size of the frames"
            )
        # torch.full touches the memory, so that a lack of it shows now and not after hours
        self.frames = torch.full(shape, 0, dtype=torch.uint8, device=self.device)
        self.saved = 0  # number of frames written to disk
        self.segments: list[dict[str, Any]] = []  # their files

    def put(self, number: int, frame: np.ndarray) -> None:  # (H, W, C) uint8
        self.frames[number % self.slots] = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)

    def save(self, added: int, write: Callable[[int, memoryview, int], dict[str, Any]]) -> list[dict[str, Any]]:
        """Write the frames since the last save with `write(first, data, count)`. Returns all files that hold current frames."""
        first, fresh = max(self.saved, added - self.slots), []
        while first < added:
            slot = first % self.slots
            count = min(added - first, self.slots - slot)
            fresh.append(write(first, self.frames[slot : slot + count].cpu().numpy().data, count))
            first += count
        self.segments = [s for s in self.segments + fresh if s["first"] + s["count"] > added - self.slots]
        self.saved = added
        return list(self.segments)

    def load(self, added: int, segments: list[dict[str, Any]], read: Callable[[dict[str, Any]], bytes]) -> None:
        for segment in segments:
            data = np.frombuffer(read(segment), np.uint8).reshape(segment["count"], *self.frames.shape[1:])
            number = torch.arange(segment["first"], segment["first"] + segment["count"])
            keep = (number >= added - self.slots) & (number < added)
            self.frames[(number[keep] % self.slots).to(self.device)] = torch.from_numpy(data.copy())[keep].to(self.device)
        self.segments, self.saved = list(segments), added

    def __str__(self) -> str:
        return f"{machine.gigabytes(self.frames.nbytes)} on {self.device}"
