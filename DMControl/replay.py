"""Replay in which each frame is stored once.

Frames are numbered from the start of the run; frame f lies in slot f % slots of a ring. Transition j remembers the number of
its newest frame and its age in the episode; its next observation ends at the following frame. An episode of T transitions
thus takes T + 1 frames.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .core import machine
from .core.errors import UserError
from .core.method.frames import Frames, stack_index
from .core.method.reconstruction import Window


@dataclass(frozen=True)
class Batch:
    obs: Frames
    action: Tensor  # (N, A)
    reward: Tensor  # (N, 1)
    next_obs: Frames
    not_done: Tensor  # (N, 1)


class Replay:
    def __init__(
        self, capacity: int, episode_length: int, stack: int, size: int, action_dim: int, device: torch.device, generator: torch.Generator
    ) -> None:
        self.capacity, self.stack, self.size, self.device, self.generator = capacity, stack, size, device, generator
        self.slots = capacity + -(-capacity // episode_length) + stack + 1
        need = self.bytes_needed(self.slots, size)
        self.store_device = device
        if device.type == "cuda" and need > 0.8 * machine.free_memory(device):
            self.store_device = torch.device("cpu")
        free = machine.free_memory(self.store_device)
        if need > free:
            raise UserError(
                f"the replay of {capacity} transitions needs {machine.gigabytes(need)}, but only {machine.gigabytes(free)} "
                f"are free on {self.store_device}: lower replay.capacity or image.size"
            )
        # touched here, so that memory that is not there is missed at once and not after hours
        self.frames = torch.full((self.slots, 3, size, size), 0, dtype=torch.uint8, device=self.store_device)
        self.action = torch.zeros(capacity, action_dim, device=device)
        self.reward = torch.zeros(capacity, 1, device=device)
        self.not_done = torch.zeros(capacity, 1, device=device)
        self.frame = torch.zeros(capacity, dtype=torch.int64, device=device)  # number of the newest frame of obs
        self.age = torch.zeros(capacity, dtype=torch.int64, device=device)  # steps since the reset
        self.ends = torch.zeros(capacity, dtype=torch.bool, device=device)  # the episode's last transition
        self.host = np.zeros((capacity, 2), np.int64)  # frame and age again, for the bookkeeping below
        self.added = 0  # transitions, ever
        self.frames_added = 0  # frames, ever
        self.oldest = 0  # first transition whose frames are all still there
        self.current_age = 0
        self.bounds = torch.zeros(2, dtype=torch.int64, device=device)  # oldest and added again, for the draws
        self.drawn: dict[str, Any] = {}  # what the newest update read, for an inspection
        self.saved_frames = 0
        self.segments: list[dict[str, Any]] = []

    @staticmethod
    def bytes_needed(slots: int, size: int) -> int:
        return slots * size * size * 3

    def __len__(self) -> int:
        return self.added - self.oldest

    def __str__(self) -> str:
        return f"replay: {machine.gigabytes(self.frames.nbytes)} on {self.store_device} for {self.capacity} transitions"

    def start(self, frame: np.ndarray) -> None:
        """The first frame of an episode."""
        self._put(frame)
        self.current_age = 0

    def add(self, action: np.ndarray, reward: float, terminal: bool, last: bool, next_frame: np.ndarray) -> None:
        """One transition from the newest frame to the next one."""
        j = self.added % self.capacity
        newest = self.frames_added - 1
        self.action[j] = torch.from_numpy(action)
        self.reward[j] = reward
        self.not_done[j] = float(not terminal)
        self.frame[j], self.age[j], self.ends[j] = newest, self.current_age, last
        self.host[j] = newest, self.current_age
        self.added += 1
        self.current_age += 1
        self._put(next_frame)

    def newest(self) -> Frames:
        """The current observation."""
        frame = torch.tensor([self.frames_added - 1], device=self.device)
        return self._stacks(frame, torch.tensor([self.current_age], device=self.device))

    def sample(self, n: int, purpose: str = "batch") -> Batch:
        """n transitions, uniformly with replacement."""
        self._require(1)
        j = self._draw(n, 0, self.generator) % self.capacity
        frame, age = self.frame[j], self.age[j]
        batch = Batch(self._stacks(frame, age), self.action[j], self.reward[j], self._stacks(frame + 1, age + 1), self.not_done[j])
        assert len(batch.obs) == len(batch.next_obs) == len(batch.action) == n, f"batch of {n}: {len(batch.obs)} observations"
        self.drawn[purpose] = batch
        return batch

    def sample_windows(self, n: int, length: int, generator: torch.Generator | None = None) -> Window:
        """n windows of `length` consecutive transitions that hold no end of an episode.

        As the official code does, twice as many starts are drawn and the first n good ones are kept. Should there be fewer,
        the rest of the batch has weight 0.
        """
        self._require(length + 1)
        start = self._draw(2 * n, length, generator or self.generator)
        steps = torch.arange(length, device=self.device)
        bad = self.ends[(start[:, None] + steps) % self.capacity].any(1)
        keep = bad.to(torch.uint8).argsort(stable=True)[:n]  # good ones first, in the order drawn
        j = (start[keep][:, None] + steps) % self.capacity  # (n, length)
        obs = self._stacks(self.frame[j].flatten(), self.age[j].flatten())
        window = Window(obs, self.action[j], (~bad[keep]).float())
        assert len(obs) == n * length and window.action.shape[:2] == (n, length), f"windows of {length}: {window.action.shape}"
        self.drawn["window"] = window
        return window

    def state_dict(self) -> dict[str, Any]:
        """All but the frames, which `unsaved_frames` hands out."""
        names = ("action", "reward", "not_done", "frame", "age", "ends")
        count = min(self.added, self.capacity)
        arrays = {name: getattr(self, name)[:count].clone() for name in names}
        counters = {name: getattr(self, name) for name in ("added", "frames_added", "oldest", "current_age", "capacity", "slots")}
        return {"arrays": arrays, "counters": counters}

    def save_frames(self, write: Any) -> list[dict[str, Any]]:
        """Write the frames that are new since the last save with `write(first, data, count)`; list the files now needed."""
        first, fresh = max(self.saved_frames, self.frames_added - self.slots), []
        while first < self.frames_added:
            slot = first % self.slots
            count = min(self.frames_added - first, self.slots - slot)
            fresh.append(write(first, self.frames[slot : slot + count].cpu().numpy().data, count))
            first += count
        needed = self.frames_added - self.slots
        self.segments = [s for s in self.segments + fresh if s["first"] + s["count"] > needed]
        self.saved_frames = self.frames_added
        return list(self.segments)

    def load_state_dict(self, state: dict[str, Any], segments: list[dict[str, Any]], read: Any) -> None:
        counters = dict(state["counters"])
        if counters["capacity"] != self.capacity or counters["slots"] != self.slots:
            raise UserError(f"the saved replay holds {counters['capacity']} transitions, not {self.capacity}")
        for name in ("added", "frames_added", "oldest", "current_age"):
            setattr(self, name, counters[name])
        for name, array in state["arrays"].items():
            getattr(self, name)[: len(array)] = array.to(self.device)
        self.host = torch.stack([self.frame, self.age], 1).cpu().numpy()
        for segment in segments:
            data = np.frombuffer(read(segment), np.uint8).reshape(segment["count"], 3, self.size, self.size)
            slots = torch.arange(segment["first"], segment["first"] + segment["count"]) % self.slots
            keep = torch.arange(segment["first"], segment["first"] + segment["count"]) >= self.frames_added - self.slots
            self.frames[slots[keep].to(self.store_device)] = torch.from_numpy(data.copy())[keep].to(self.store_device)
        self.segments, self.saved_frames = list(segments), self.frames_added
        self.bounds[0], self.bounds[1] = self.oldest, self.added

    def _put(self, frame: np.ndarray) -> None:
        self.frames[self.frames_added % self.slots] = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
        self.frames_added += 1
        lost = self.frames_added - self.slots  # frames below this number are overwritten
        self.oldest = max(self.oldest, self.added - self.capacity)
        while self.oldest < self.added:
            frame_number, age = self.host[self.oldest % self.capacity]
            if frame_number - min(age, self.stack - 1) >= lost:
                break
            self.oldest += 1
        self.bounds[0], self.bounds[1] = self.oldest, self.added

    def _draw(self, n: int, margin: int, generator: torch.Generator) -> Tensor:
        """n transitions from the oldest to the newest but `margin`, uniformly. How many there are stands on the device."""
        count = self.bounds[1] - self.bounds[0] - margin
        uniform = torch.rand(n, generator=generator, device=self.device, dtype=torch.float64)
        return self.bounds[0] + torch.minimum((uniform * count).long(), count - 1)

    def _stacks(self, frame: Tensor, age: Tensor) -> Frames:
        return Frames(self.frames, stack_index(frame, age, self.stack, self.slots))

    def _require(self, count: int) -> None:
        if len(self) < count:
            raise UserError(f"the replay holds {len(self)} transitions, an update needs {count}: raise sac.random_steps")
