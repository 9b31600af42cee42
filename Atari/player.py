"""A trained policy for a loop of one's own: `from Atari import load_agent`."""

from pathlib import Path

import numpy as np
import torch

from .core.errors import UserError
from .core.run.agent import Agent
from .core.run.config import Config
from .core.run.evaluation import actions_of, read_run
from .env import EVALUATE, Stack, observations
from .evaluate import load_agent, make_env
from .settings import CONFIGS, RANGES


class Player:
    """Follows a game from its images, and answers each with an action."""

    def __init__(self, agent: Agent, config: Config) -> None:
        self.agent, self.config = agent, config
        self.stack, self.dice = Stack(config.env.stack), torch.Generator().manual_seed(config.seed)
        self.reset()

    def reset(self) -> None:
        """Before the first image of a game."""
        self.begun, self.state = False, self.agent.begin(1)

    def act(self, frames: np.ndarray) -> int:
        """The number of the action. frames: (size, size, 1) uint8, the newest image; of several along the last axis it is the last."""
        size = self.config.env.size
        if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[:2] != (size, size):
            raise UserError(f"an image must be grey, uint8 and ({size}, {size}, 1), it is {frames.dtype} and {frames.shape}")
        (self.stack.push if self.begun else self.stack.start)(frames[..., -1:])
        obs = observations([self.stack], self.agent.generator.device)
        actions, self.state = self.agent.act(obs, self.state, explore=False, generator=self.dice)
        self.begun = True
        return int(actions[0])


def load(run: str | Path, device: str = "auto") -> Player:
    """The newest policy of a run, or what scripts/export.sh made of it."""
    path, config, precision = read_run(run, device, CONFIGS, RANGES)
    actions = actions_of(path) or make_env(config, config.seed, EVALUATE).n_actions
    return Player(load_agent(path, config, actions, precision)[0], config)
