"""Prioritised replay of sequences, in which each frame is stored once.

Transition j and the newest frame of its observation have the same number j, and are in slot j % slots of a ring. The last row
of the store stays black; it stands for the missing frames of an observation in the first S steps. Sampling consists of tensor
operations on the replay's device.

An episode that is cut off, by a time limit for instance, keeps its last observation: a transition of its own, at which it is cut.
Nobody samples that one, nor the n - 1 before it, whose returns would reach beyond it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .core import machine
from .core.errors import UserError
from .core.method.frames import Frames
from .core.method.sequence import Sequence
from .core.run.frame_store import FrameStore
from .env import Step

ARRAYS = ("action", "reward", "done", "age", "cuts")
COUNTERS = ("added", "pending", "current_age", "last_cut", "starts")


@dataclass(frozen=True)
class Batch:
    obs: Frames  # B stacks at time t
    action: Tensor  # (B,) int64, a_t
    return_n: Tensor  # (B,), r_t + gamma r_{t+1} + ... + gamma^{n-1} r_{t+n-1}, up to the episode's end
    done_n: Tensor  # (B,), 1 where the target does not bootstrap: the episode ends with the first step, or within n steps
    next_obs: Frames  # B stacks at time t + n, or the last ones of the episode
    weight: Tensor  # (B,), importance weights, the largest is 1
    slot: Tensor  # (B,) int64, for update_priorities
    sequence: Sequence  # the K observations from obs on; the last one of an episode is repeated after its end


class Replay:
    def __init__(
        self,
        capacity: int,
        *,
        size: int,
        stack: int,
        window: int,
        n_step: int,
        discount: float,
        alpha: float,
        device: torch.device,
        generator: torch.Generator,
        done_n_first_step: bool = True,
        done_n_late: bool = False,
        weight_eps: float = 1e-5,
        enter_at_largest: bool = False,
    ) -> None:
        """done_n_first_step: only an end at the first step stops the bootstrap, as in the replay behind the published numbers.

        done_n_late: an end at step n + 1 stops it too, as in CURL's code. enter_at_largest: new transitions get the largest priority
        so far, not 1. weight_eps is added to p^alpha in the importance weights.
        """
        self.done_n_first_step, self.done_n_late = done_n_first_step, done_n_late
        self.weight_eps, self.enter_at_largest = weight_eps, enter_at_largest
        self.reserve = 1 + n_step + window  # the newest steps, which cannot be sampled
        if capacity <= self.reserve:
            raise UserError(f"replay.capacity={capacity} must exceed 1 + n_step + window = {self.reserve}")
        self.capacity, self.size, self.stack, self.window = capacity, size, stack, window
        self.n_step, self.alpha, self.device, self.generator = n_step, alpha, device, generator
        self.slots = capacity + stack  # the oldest of `capacity` transitions needs its whole stack
        self.store = FrameStore(self.slots, 1, size, device, blank=True)
        self.action = torch.zeros(self.slots, dtype=torch.int64, device=device)
        self.reward = torch.zeros(self.slots, device=device)
        self.done = torch.zeros(self.slots, dtype=torch.bool, device=device)
        self.age = torch.zeros(self.slots, dtype=torch.int64, device=device)  # steps since the reset or the lost life
        self.cuts = torch.zeros(self.slots, dtype=torch.bool, device=device)  # no transition: the last observation of a cut-off episode
        # a sum tree of two levels: p^alpha in rows of about sqrt(slots), and the sum of each row
        self.columns = int(np.ceil(np.sqrt(self.slots)))
        rows = -(-self.slots // self.columns)
        self.leaf = torch.zeros(rows, self.columns, dtype=torch.float64, device=device)
        self.row_sum = torch.zeros(rows, dtype=torch.float64, device=device)
        self.largest = torch.ones(1, dtype=torch.float64, device=device)  # the largest p^alpha so far
        self.powers = discount ** torch.arange(n_step, dtype=torch.float32, device=device)  # 1, gamma, gamma^2, ...
        self.steps = torch.arange(max(window, n_step + 1), device=device)
        self.back = torch.arange(stack - 1, -1, -1, device=device)  # S-1, ..., 1, 0
        self.added = 0  # transitions added so far
        self.last_cut = -1  # number of the newest cut
        self.starts = 0  # transitions that became ready to be sampled so far
        self.pending = False  # whether the frame of the next transition has been added
        self.current_age = 0

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        lost = self.frames_added - self.slots  # frames below this number are overwritten
        oldest = lost + self.stack - 1 if lost > 0 else 0
        return max(0, self.added - self.reserve - oldest)

    def __str__(self) -> str:
        return f"replay: {self.store} for {self.capacity} transitions"

    @property
    def frames_added(self) -> int:
        return self.added + self.pending

    def start(self, frame: np.ndarray) -> None:
        """Add the first frame of a game."""
        self._put(frame, 0)

    def add(self, action: int, step: Step) -> None:
        """Add the transition from the newest frame with `action`."""
        if not self.pending:
            raise UserError("the replay has no frame to start from: call start() after each reset")
        self._append(int(action), step.reward, step.done)
        if not step.over or not step.done:  # after the last frame of a game no value counts
            self._put(step.frame, 0 if step.blank else self.current_age + 1)
        if step.over:
            self.cut()

    def cut(self) -> None:
        """Cut off the episode under way at its newest observation."""
        if self.pending:
            self.last_cut = self.added
            self._append(0, 0.0, done=False)

    def newest(self) -> Frames:
        """The current observation."""
        slot = torch.tensor([self.added % self.slots], device=self.device)
        return self._stacks(slot)

    def sample(self, n: int, beta: float | Tensor) -> Batch:
        """n transitions and the sequences that begin with them, each drawn with probability p^alpha / sum p^alpha."""
        if len(self) < 1:
            raise UserError(f"the replay holds {self.added} steps, an update needs more than {self.reserve}: raise train.random_steps")
        if self.last_cut >= 0 and not self.starts:
            raise UserError(f"every episode so far was cut off in fewer than {self.n_step} steps, as rainbow.n_step has: lower it")
        slot, mass = self._draw(n)
        weight = (mass + self.weight_eps).pow(-beta)
        weight = (weight / weight.max()).float()
        k, steps = self.window, self.n_step
        along = (slot[:, None] + self.steps) % self.slots  # (B, L), L = max(K, n + 1)
        done = self.done[along]
        ends = done | self.cuts[along]
        after = (ends.cumsum(1) - ends.long()) > 0  # (B, L), after the end of the episode
        frozen = (slot[:, None] + (~after).cumsum(1) - 1) % self.slots  # stays at the last observation of the episode
        window = self._stacks(frozen[:, :k].flatten())
        batch = Batch(
            obs=self._stacks(slot),
            action=self.action[slot],
            return_n=(self.reward[along] * ~after)[:, :steps] @ self.powers,
            done_n=(done[:, 0] if self.done_n_first_step else done[:, : steps + self.done_n_late].any(1)).float(),
            next_obs=self._stacks(frozen[:, steps]),
            weight=weight,
            slot=slot,
            # as in the official code, only observations are frozen: actions continue into the next episode
            sequence=Sequence(
                window, self.action[along[:, :k]], self.reward[along[:, :k]], done[:, :k].float(), torch.ones_like(weight), weight
            ),
        )
        assert len(batch.obs) == len(batch.next_obs) == n and len(window) == n * k, f"batch of {n}, sequences of {k}: {len(window)}"
        return batch

    def update_priorities(self, slot: Tensor, priority: Tensor) -> None:
        """Set the priorities of the sampled transitions. If a slot was drawn twice, its first priority counts."""
        position = torch.arange(len(slot), device=self.device)
        first = torch.where(slot[:, None] == slot, position, len(slot)).amin(1)
        mass = priority.double().pow(self.alpha)
        self._set_leaf(slot, mass[first])
        if self.enter_at_largest:
            torch.maximum(self.largest, mass.max(), out=self.largest)

    def state_dict(self) -> dict[str, Any]:
        """Everything except the frames, which `save_frames` writes."""
        count = min(self.frames_added, self.slots)
        arrays = {name: getattr(self, name)[:count].clone() for name in ARRAYS}
        counters = {name: getattr(self, name) for name in (*COUNTERS, "capacity", "slots")}
        leaf = self.leaf.flatten()[:count].clone()
        return {
            "arrays": arrays,
            "leaf": leaf,
            "largest": self.largest.clone(),
            "counters": counters,
            "generator": self.generator.get_state(),
        }

    def save_frames(self, write: Any) -> list[dict[str, Any]]:
        return self.store.save(self.frames_added, write)

    def load_state_dict(self, state: dict[str, Any], segments: list[dict[str, Any]], read: Any) -> None:
        counters = state["counters"]
        if counters["capacity"] != self.capacity or counters["slots"] != self.slots:
            raise UserError(f"the saved replay holds {counters['capacity']} transitions, not {self.capacity}")
        for name in COUNTERS:
            setattr(self, name, counters.get(name, getattr(self, name)))  # a save from before there were cuts has none
        for name, array in state["arrays"].items():
            getattr(self, name)[: len(array)] = array.to(self.device)
        self.leaf.zero_()
        self.leaf.view(-1)[: len(state["leaf"])] = state["leaf"].to(self.device)
        self.row_sum.copy_(self.leaf.sum(1))
        self.largest.copy_(state["largest"])
        machine.restore(self.generator, state["generator"])
        self.store.load(self.frames_added, segments, read)

    def _append(self, action: int, reward: float, done: bool) -> None:
        slot = self.added % self.slots
        self.action[slot], self.reward[slot], self.done[slot], self.cuts[slot] = action, reward, done, self.added == self.last_cut
        self.added += 1
        self.pending = False
        ready = self.added - self.reserve - 1
        if ready >= 0 and not self._reaches_beyond(ready):
            self._set_leaf(torch.tensor([ready % self.slots], device=self.device), self.largest if self.enter_at_largest else 1.0)
            self.starts += 1

    def _reaches_beyond(self, number: int) -> bool:
        """Whether the return of n steps from this transition on reaches beyond a cut."""
        if self.last_cut < number:  # always, where nothing is cut: no waiting for the device
            return False
        along = (number + torch.arange(self.n_step, device=self.device)) % self.slots
        ended = (self.done | self.cuts)[along]
        return bool(ended.any() and self.cuts[along[ended.long().argmax()]])

    def _put(self, frame: np.ndarray, age: int) -> None:
        slot = self.added % self.slots
        if self.added >= self.slots:  # this frame and the stacks of the next S - 1 transitions are lost
            lost = (slot + torch.arange(self.stack, device=self.device)) % self.slots
            self._set_leaf(lost, 0.0)
        self.store.put(self.added, frame)
        self.age[slot] = age
        self.current_age, self.pending = age, True

    def _set_leaf(self, slot: Tensor, value: Tensor | float) -> None:
        self.leaf.view(-1)[slot] = value
        row = slot // self.columns
        self.row_sum[row] = self.leaf[row].sum(1)  # a new sum, so that rounding errors do not accumulate

    def _draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n slots and their p^alpha: draw a row from the cumulative sums of rows, then a column from those within the row."""
        upper = self.row_sum.cumsum(0)  # (rows,)
        almost = 1 - 1e-12  # rounding must not lead beyond the last leaf
        point = torch.rand(n, generator=self.generator, device=self.device, dtype=torch.float64) * (upper[-1] * almost)
        row = torch.searchsorted(upper, point, right=True)
        inner = self.leaf[row].cumsum(1)  # (n, columns)
        rest = torch.minimum((point - (upper - self.row_sum)[row]).clamp_min(0), inner[:, -1] * almost)
        column = torch.searchsorted(inner, rest[:, None], right=True)[:, 0]
        slot = row * self.columns + column
        return slot, self.leaf[row, column]

    def _stacks(self, slot: Tensor) -> Frames:
        """The observations whose newest frames are in `slot`, (N,). Frames from before the reset are black."""
        index = (slot[:, None] - self.back) % self.slots
        return Frames(self.store.frames, torch.where(self.back <= self.age[slot][:, None], index, self.slots))  # (N, S)
