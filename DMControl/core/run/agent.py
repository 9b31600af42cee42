"""The interface of an agent, and how one is saved."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .. import machine
from ..method.frames import Frames
from ..method.optim import Adam
from .recorder import Recorder


class Update(NamedTuple):
    metrics: dict[str, Tensor]  # single numbers on the device
    drawn: dict[str, Any]  # the samples it used; they are saved if a metric is not finite


class Agent(Protocol):
    """Acts and learns. It reads and writes no files and does not depend on an environment.

    The acting state is the agent's memory of an episode: a tensor with one row per environment. A feed-forward agent has no columns
    in it.
    """

    updates: int  # number of updates so far
    model_updates: int = 0  # the first of them, which train a model of the world alone
    period: int  # the operations of an update repeat after this many updates
    window: int  # K, consecutive observations of the sequences that an update samples; 0: it samples transitions
    columns: tuple[str, ...]  # names of the metrics of an update
    diagnostics: tuple[str, ...]  # names of the numbers from `diagnose`
    generator: torch.Generator
    transferable: dict[str, nn.Module]  # the networks that another run may begin with, by the names that transfer.parts takes
    modules: dict[str, nn.Module]  # all networks
    optimizers: dict[str, Adam]
    recorder: Recorder

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

    def reset_targets(self) -> None: ...  # make each target network a copy of the network that it follows

    def networks(self) -> dict[str, Any]:
        """All parameters."""
        return {name: module.state_dict() for name, module in self.modules.items()}

    def load_networks(self, state: dict[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(state[name])

    def state_dict(self) -> dict[str, Any]:
        """Optimisers, counters and random streams."""
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return {"optimizers": optimizers, "updates": self.updates, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recorder.forget()
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.updates = state["updates"]
        machine.restore(self.generator, state["generator"])
