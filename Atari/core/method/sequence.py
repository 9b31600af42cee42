"""Sequences of consecutive observations, with actions and rewards."""

from dataclasses import dataclass

from torch import Tensor

from .frames import Frames


@dataclass(frozen=True)
class Sequence:
    """B sequences of K steps. `obs` holds them one after another: observation k of sequence b has the number b * K + k."""

    obs: Frames  # B * K stacks
    action: Tensor  # (B, K, A), or (B, K) where actions are discrete
    reward: Tensor  # (B, K)
    done: Tensor  # (B, K): 1 where the step ended the episode
    valid: Tensor  # (B,): 0 for a sequence that only fills the batch; it must not change the loss
    weight: Tensor  # (B,): importance weights; 1 where the replay draws uniformly
    state: Tensor | None = None  # (B, d): latents of the first observations, for an objective with `shares_state`

    def __len__(self) -> int:
        return len(self.action)

    def __getitem__(self, rows: slice) -> "Sequence":
        k = self.action.shape[1]
        start, stop, _ = rows.indices(len(self))
        obs = self.obs[start * k : stop * k]
        state = None if self.state is None else self.state[rows]
        return Sequence(obs, self.action[rows], self.reward[rows], self.done[rows], self.valid[rows], self.weight[rows], state)
