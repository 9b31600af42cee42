"""Replay in which each frame is stored once.

Frames are numbered from the start of the run. Frame f is in slot f % slots of a ring. Transition j stores the number of its
newest frame and its age in the episode. Its next observation ends with the following frame, so an episode of T transitions
needs T + 1 frames.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .core.errors import UserError
from .core.method.frames import Frames, stack_index
from .core.method.sequence import Sequence
from .core.run.frame_store import FrameStore

ARRAYS = ("action", "reward", "not_done", "frame", "age", "ends")
COUNTERS = ("added", "frames_added", "oldest", "current_age")


@dataclass(frozen=True)
class Batch:
    obs: Frames
    action: Tensor  # (N, A)
    reward: Tensor  # (N, 1)
    next_obs: Frames
    not_done: Tensor  # (N, 1)

    def as_sequence(self) -> Sequence:
        """The observations as sequences of length 1."""
        ones = torch.ones_like(self.reward[:, 0])
        return Sequence(self.obs, self.action[:, None], self.reward, 1 - self.not_done, ones, ones)


@dataclass(frozen=True)
class Chunk:
    """B runs of T consecutive observations, with the action and the reward that led to each: 0 at an episode's first. Time comes first."""

    obs: Frames  # T * B: observation t of run b has the number t * B + b
    action: Tensor  # (T, B, A)
    reward: Tensor  # (T, B)


@dataclass(frozen=True)
class History:
    """B runs of T observations. Each ends with a step that is drawn uniformly from the replay. Time comes first.

    A run may begin in the previous episode, whose last observation is then left out.
    """

    obs: Frames  # T * B: observation t of run b has the number t * B + b
    action: Tensor  # (T, B, A), of the step that leaves the observation; 0 for the last observation
    reward: Tensor  # (T, B), of that step
    not_done: Tensor  # (T, B)
    first: Tensor  # (T, B) bool: an episode begins
    last: Tensor  # (T, B) bool: that step ended an episode, and so does not lead to the next observation of the run


class Replay:
    def __init__(
        self, capacity: int, episode_length: int, stack: int, size: int, action_dim: int, device: torch.device, generator: torch.Generator
    ) -> None:
        self.capacity, self.stack, self.device, self.generator = capacity, stack, device, generator
        self.slots = capacity + -(-capacity // episode_length) + stack + 1
        self.store = FrameStore(self.slots, 3, size, device)
        self.action = torch.zeros(capacity, action_dim, device=device)
        self.reward = torch.zeros(capacity, 1, device=device)
        self.not_done = torch.zeros(capacity, 1, device=device)
        self.frame = torch.zeros(capacity, dtype=torch.int64, device=device)  # number of the newest frame of obs
        self.age = torch.zeros(capacity, dtype=torch.int64, device=device)  # steps since the reset
        self.ends = torch.zeros(capacity, dtype=torch.bool, device=device)  # the episode's last transition
        self.host = np.zeros((capacity, 2), np.int64)  # a copy of frame and age on the host, for _put
        self.added = 0  # transitions added so far
        self.frames_added = 0  # frames added so far
        self.oldest = 0  # the oldest transition whose frames are all in the ring
        self.current_age = 0
        self.newest_of_age: list[int] = []  # the newest transition of each age
        self.bounds = torch.zeros(2, dtype=torch.int64, device=device)  # a copy of oldest and added on the device, for _draw

    def __len__(self) -> int:
        return self.added - self.oldest

    def __str__(self) -> str:
        return f"replay: {self.store} for {self.capacity} transitions"

    def start(self, frame: np.ndarray) -> None:
        """Add the first frame of an episode."""
        self._put(frame)
        self.current_age = 0

    def add(self, action: np.ndarray, reward: float, terminal: bool, last: bool, next_frame: np.ndarray) -> None:
        """Add the transition from the newest frame to the next one."""
        j = self.added % self.capacity
        newest = self.frames_added - 1
        self.action[j] = torch.from_numpy(action)
        self.reward[j] = reward
        self.not_done[j] = float(not terminal)
        self.frame[j], self.age[j], self.ends[j] = newest, self.current_age, last
        self.host[j] = newest, self.current_age
        self.newest_of_age[self.current_age : self.current_age + 1] = [self.added]  # longer by one if no episode was as long
        self.added += 1
        self.current_age += 1
        self._put(next_frame)

    def cut(self) -> None:
        """End the episode under way after its newest transition, as a time limit does."""
        if self.current_age:
            self.ends[(self.added - 1) % self.capacity] = True

    def newest(self) -> Frames:
        """The current observation."""
        frame = torch.tensor([self.frames_added - 1], device=self.device)
        return self._stacks(frame, torch.tensor([self.current_age], device=self.device))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Batch:
        """n transitions, uniformly with replacement."""
        self._require(1)
        j = self._draw(n, 0, generator or self.generator) % self.capacity
        frame, age = self.frame[j], self.age[j]
        batch = Batch(self._stacks(frame, age), self.action[j], self.reward[j], self._stacks(frame + 1, age + 1), self.not_done[j])
        assert len(batch.obs) == len(batch.next_obs) == len(batch.action) == n, f"batch of {n}: {len(batch.obs)} observations"
        return batch

    def sample_sequences(self, n: int, length: int, generator: torch.Generator | None = None) -> Sequence:
        """n sequences of `length` consecutive transitions, each within one episode.

        Like the official code, this draws 2n starts and keeps the first n sequences that do not cross the end of an episode.
        If there are fewer, the rest of the batch is marked as not valid. Sequences of length 1 are always valid.
        """
        if length == 1:
            return self.sample(n, generator).as_sequence()
        self._require(length + 1)
        start = self._draw(2 * n, length, generator or self.generator)
        steps = torch.arange(length, device=self.device)
        bad = self.ends[(start[:, None] + steps) % self.capacity].any(1)
        keep = bad.to(torch.uint8).argsort(stable=True)[:n]  # good ones first, in the order drawn
        j = (start[keep][:, None] + steps) % self.capacity  # (n, length)
        obs = self._stacks(self.frame[j].flatten(), self.age[j].flatten())
        valid = (~bad[keep]).float()
        sequence = Sequence(obs, self.action[j], self.reward[j][..., 0], 1 - self.not_done[j][..., 0], valid, torch.ones_like(valid))
        assert len(obs) == n * length and sequence.action.shape[:2] == (n, length), f"sequences of {length}: {sequence.action.shape}"
        return sequence

    def holds_chunk(self, length: int) -> bool:
        """Whether one episode has `length` observations here, and the action that led to the first of them."""
        last = max(self.newest_of_age[length - 1 :], default=-1)
        first = last - (length - 1)
        return first > self.oldest or (first == self.oldest and self.newest_of_age[length - 1] == last)

    def sample_chunks(self, n: int, length: int, generator: torch.Generator | None = None) -> Chunk:
        """n runs of `length` observations, uniformly out of all that lie within one episode and begin before its last observation.

        There must be one: require_chunk.
        """
        slot = torch.arange(self.capacity, device=self.device)
        oldest, added = self.bounds.unbind()
        number = oldest + (slot - oldest) % self.capacity  # of the transition in each slot
        first = number - (length - 1)  # where a chunk begins that ends there
        whole = (self.age >= length - 1) & (number < added) & (first >= oldest)
        whole &= (first > oldest) | (self.age == length - 1)  # the action that led to its first observation is there, or none did
        count = whole.cumsum(0)
        uniform = torch.rand(n, generator=generator or self.generator, device=self.device, dtype=torch.float64)
        chosen = torch.minimum((uniform * count[-1]).long(), count[-1] - 1)
        last = number[torch.searchsorted(count, chosen, right=True)]
        j = last - torch.arange(length - 1, -1, -1, device=self.device)[:, None]  # (T, n)
        before, j = (j - 1) % self.capacity, j % self.capacity
        led = (self.age[j] > 0).float()  # an action led to it
        obs = self._stacks(self.frame[j].flatten(), self.age[j].flatten())
        return Chunk(obs, self.action[before] * led[..., None], self.reward[before][..., 0] * led)

    def sample_histories(self, n: int, length: int) -> History:
        """n transitions, uniformly, each with the `length` - 1 transitions before it: runs of `length` + 1 observations."""
        self._require(length)
        j = self._draw(n, length - 1, self.generator) + torch.arange(length, device=self.device)[:, None]  # (length, n)
        j = j % self.capacity
        frame, age = self.frame[j], self.age[j]
        frame, age = torch.cat([frame, frame[-1:] + 1]), torch.cat([age, age[-1:] + 1])
        obs = self._stacks(frame.flatten(), age.flatten())
        after = (0, 1)  # the last observation has no step
        action, reward = F.pad(self.action[j], (0, 0, 0, 0, *after)), F.pad(self.reward[j][..., 0], (0, 0, *after))
        not_done = F.pad(self.not_done[j][..., 0], (0, 0, *after))
        last = F.pad(self.ends[j[:-1]], (0, 0, 0, 2))  # the newest step leads to the last observation, even if it ends the episode
        return History(obs, action, reward, not_done, age == 0, last)

    def state_dict(self) -> dict[str, Any]:
        """Everything except the frames, which `save_frames` writes."""
        count = min(self.added, self.capacity)
        arrays = {name: getattr(self, name)[:count].clone() for name in ARRAYS}
        return {"arrays": arrays, "counters": {name: getattr(self, name) for name in (*COUNTERS, "capacity", "slots")}}

    def save_frames(self, write: Any) -> list[dict[str, Any]]:
        return self.store.save(self.frames_added, write)

    def load_state_dict(self, state: dict[str, Any], segments: list[dict[str, Any]], read: Any) -> None:
        counters = state["counters"]
        if counters["capacity"] != self.capacity or counters["slots"] != self.slots:
            raise UserError(f"the saved replay holds {counters['capacity']} transitions, not {self.capacity}")
        for name in COUNTERS:
            setattr(self, name, counters[name])
        for name, array in state["arrays"].items():
            getattr(self, name)[: len(array)] = array.to(self.device)
        self.host = torch.stack([self.frame, self.age], 1).cpu().numpy()
        ages = self.host[np.arange(self.oldest, self.added) % self.capacity, 1]
        self.newest_of_age = [-1] * (int(ages.max(initial=-1)) + 1)
        for number, age in enumerate(ages, self.oldest):
            self.newest_of_age[age] = number
        self.store.load(self.frames_added, segments, read)
        self.bounds[0], self.bounds[1] = self.oldest, self.added

    def _put(self, frame: np.ndarray) -> None:
        self.store.put(self.frames_added, frame)
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
        """n uniform transitions, without the newest `margin`. Their range is read on the device, so that a CUDA graph can record it."""
        count = self.bounds[1] - self.bounds[0] - margin
        uniform = torch.rand(n, generator=generator, device=self.device, dtype=torch.float64)
        return self.bounds[0] + torch.minimum((uniform * count).long(), count - 1)

    def _stacks(self, frame: Tensor, age: Tensor) -> Frames:
        return Frames(self.store.frames, stack_index(frame, age, self.stack, self.slots))

    def require_chunk(self, length: int) -> None:
        if not self.holds_chunk(length):
            raise UserError(
                f"the replay holds no {length} consecutive observations of one episode, as a chunk has: raise train.random_steps or "
                "replay.capacity, or lower the chunks' length"
            )

    def _require(self, count: int) -> None:
        if len(self) < count:
            raise UserError(f"the replay holds {len(self)} transitions, an update needs {count}: raise train.random_steps")
