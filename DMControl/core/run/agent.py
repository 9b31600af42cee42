"""What a run asks of an agent."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..method.frames import Frames


class Update(NamedTuple):
    metrics: dict[str, Tensor]  # single numbers on the device
    drawn: dict[str, Any]  # what was read from the replay, to be kept where a number is not finite


class Agent(Protocol):
    """Acts and learns. It touches no file and knows no environment.

    The acting state is what an agent remembers of an episode: a tensor with a row for each environment, without columns where
    nothing is remembered.
    """

    updates: int  # made so far
    period: int  # updates after which the same operations are due again
    window: int  # consecutive observations that an update reads; 0: it reads single transitions
    columns: tuple[str, ...]  # names of the metrics that an update may give
    diagnostics: tuple[str, ...]  # names of the numbers that `diagnose` may give
    generator: torch.Generator

    def begin(self, n: int) -> Tensor: ...  # the acting state of n environments at the start of an episode

    def act(
        self, obs: Frames, state: Tensor, explore: bool, generator: torch.Generator | None = None, elsewhere: bool = False
    ) -> tuple[np.ndarray, Tensor]:
        """Actions and the next state. generator: to act without touching the agent's own; elsewhere: not in the world of the training."""

    def random_action(self) -> np.ndarray: ...

    def update(self, replay: Any, step: int) -> Update: ...  # at this agent step

    def diagnose(self, replay: Any, seed: int) -> tuple[dict[str, float], dict[str, Tensor]]: ...  # numbers and pictures

    def seen(self, obs: Frames, elsewhere: bool = False) -> dict[str, Tensor]:
        """The newest frame of an observation and what of it reaches the networks, as pictures; nothing where it all does."""

    def networks(self) -> dict[str, Any]: ...  # what acting needs, and the other parameters

    def load_networks(self, state: dict[str, Any]) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...  # optimisers, counters, random streams

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
