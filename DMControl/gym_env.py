"""An environment of Gymnasium with continuous actions as a task: task=gym:CarRacing-v3.

This file imports Gymnasium, so nothing imports it before a run needs it.
"""

import os
from typing import Any

import numpy as np

from .core.errors import UserError, crashing
from .core.run.config import Config
from .core.run.repeatable import Repeatable, coloured, open_env, resized
from .env import Step

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # many environments draw with pygame, which prints a greeting on import

import gymnasium

FPS = 30  # of an environment that does not say


class GymEnv(Repeatable):
    """The interface of Env. Actions in [-1, 1] are scaled to the bounds of the environment's."""

    ACTION = np.float32

    def __init__(self, config: Config, seed: int, stream: int) -> None:
        inner = open_env(gymnasium, f"task={config.task}", getattr(config.gym, "import"))
        self.low, self.high = bounds(inner.action_space, config.task)
        self.action_dim = self.low.size
        limit = inner.spec.max_episode_steps or config.gym.max_steps
        super().__init__(inner, f"task={config.task}", config.action_repeat, limit, config.image.size, seed, stream)

    @property
    def action_repeat(self) -> int:
        return self.repeat

    @property
    def episode_length(self) -> int:
        """Agent steps of a full episode."""
        return -(-self.limit // self.repeat)

    @property
    def fps(self) -> float:
        """Agent steps per second."""
        return (self.inner.metadata.get("render_fps") or FPS) / self.repeat

    @crashing
    def step(self, action: np.ndarray) -> Step:
        action = np.array(action, dtype=np.float32)
        reward, terminal = self._advance(action)
        frame = self.frame()
        self.record(action)
        return Step(frame, reward, terminal, self.over)

    def native(self, action: np.ndarray) -> np.ndarray:
        space = self.inner.action_space
        scaled = self.low + (action.astype(np.float64).reshape(space.shape) + 1) * 0.5 * (self.high - self.low)
        return np.clip(scaled, self.low, self.high).astype(space.dtype)

    def frame(self) -> np.ndarray:
        """(size, size, 3)"""
        return resized(coloured(self.picture()), self.size)

    def random_action(self, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-1, 1, self.action_dim)


def bounds(space: Any, task: str) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest action."""
    if isinstance(space, gymnasium.spaces.Discrete):
        raise UserError(f"task={task} has discrete actions, {space}: python -m Atari.train game={task} trains it")
    if not isinstance(space, gymnasium.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise UserError(f"task={task} has the actions {space}: this agent needs a Box of real numbers")
    if not space.is_bounded():
        raise UserError(f"task={task} has actions without bounds, {space}: register it with bounds, or with a wrapper that sets them")
    return space.low.astype(np.float64), space.high.astype(np.float64)
