"""The interface of an agent."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..method.frames import Frames
from ..method.optim import Adam


class Update(NamedTuple):
    metrics: dict[str, Tensor]  # single numbers on the device
    drawn: dict[str, Any]  # the samples it used; they are saved if a metric is not finite


class Agent(Protocol):
    """Acts and learns. It reads and writes no files and does not depend on an environment.

    The acting state is the agent's memory of an episode: a tensor with one row per environment. A feed-forward agent has no columns
    in it.
    """

    updates: int  # number of updates so far
    period: int  # the operations of an update repeat after this many updates
    window: int  # K, consecutive observations of the sequences that an update samples; 0: it samples transitions
    columns: tuple[str, ...]  # names of the metrics of an update
    diagnostics: tuple[str, ...]  # names of the numbers from `diagnose`
    generator: torch.Generator
    transferable: dict[str, nn.Module]  # the networks that another run may begin with, by the names that transfer.parts takes
    optimizers: dict[str, Adam]

    def begin(self, n: int) -> Tensor: ...  # the acting state of n environments at the start of an episode

    def act(
        self, obs: Frames, state: Tensor, explore: bool, generator: torch.Generator | None = None, elsewhere: bool = False
    ) -> tuple[np.ndarray, Tensor]:
        """Actions and the next state. generator: replaces the agent's own; elsewhere: in a world other than that of the training."""

    def random_action(self) -> np.ndarray: ...

    def update(self, replay: Any, step: int) -> Update: ...  # at this agent step

    def diagnose(self, replay: Any, seed: int) -> tuple[dict[str, float], dict[str, Tensor]]: ...  # numbers and pictures

    def seen(self, obs: Frames, elsewhere: bool = False) -> dict[str, Tensor]:
        """Pictures: the newest frame of an observation and what the networks see of it; {} if they see all of it."""

    def networks(self) -> dict[str, Any]: ...  # all parameters

    def reset_targets(self) -> None: ...  # make each target network a copy of the network that it follows

    def load_networks(self, state: dict[str, Any]) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...  # optimisers, counters, random streams

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
