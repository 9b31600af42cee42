"""A trained policy for a loop of one's own: `from DMControl import load_agent`."""

from pathlib import Path

import numpy as np

from .core.errors import UserError
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.evaluation import actions_of, read_run
from .env import EVALUATE, Stack
from .evaluate import load_agent, make_env
from .settings import CONFIGS, RANGES, worlds_of


class Player:
    """Follows an episode from its images, and answers each with an action."""

    def __init__(self, agent: Agent, config: Config) -> None:
        self.agent, self.config = agent, config
        self.stack = Stack(config.image.stack, agent.generator.device)
        self.reset()

    def reset(self) -> None:
        """Before the first image of an episode."""
        self.begun, self.state = False, self.agent.begin(1)

    def act(self, frames: np.ndarray) -> np.ndarray:
        """The action, (A,) in [-1, 1]. frames: (size, size, 3) uint8, the newest image; of several along the last axis it is the last."""
        size = self.config.image.size
        if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[:2] != (size, size) or frames.shape[2] % 3:
            raise UserError(f"an image must be uint8 and ({size}, {size}, 3), it is {frames.dtype} and {frames.shape}")
        (self.stack.push if self.begun else self.stack.start)(np.ascontiguousarray(frames[..., -3:]))
        actions, self.state = self.agent.act(self.stack.observation(), self.state, explore=False)
        self.begun = True
        return actions[0]


def load(run: str | Path, device: str = "auto") -> Player:
    """The newest policy of a run, or what scripts/export.sh made of it."""
    path, config, precision = read_run(run, device, CONFIGS, RANGES)
    actions = actions_of(path) or make_env(config, config.seed, EVALUATE, worlds_of(config)[0]).action_dim
    return Player(load_agent(path, config, actions, precision)[0], config)
