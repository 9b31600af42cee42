"""An environment of Gymnasium with discrete actions as a game: game=gym:ALE/Pong-v5.

This file imports Gymnasium, so nothing imports it before a run needs it.
"""

import os
from typing import Any

import cv2
import numpy as np

from .core.errors import UserError, crashing
from .core.run.config import Config
from .core.run.repeatable import Repeatable, coloured, grey, open_env
from .distraction import Background
from .env import EVALUATE, INTERPOLATION, Step

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # many environments draw with pygame, which prints a greeting on import

import gymnasium

VIDEO_SIDE = 256  # of a video at most


class GymEnv(Repeatable):
    """The interface of Env, without what only games of ALE have: no-ops at the start, lives, the maximum of two frames."""

    ACTION = np.int64

    def __init__(self, config: Config, seed: int, stream: int, background: Background | None) -> None:
        env = config.env
        inner = open_env(gymnasium, f"game={config.game}", getattr(config.gym, "import"))
        self.first, self.n_actions = action_numbers(inner.action_space, config.game)
        self.interpolation = INTERPOLATION[env.resize]
        self.clip_reward, self.background = env.clip_reward and stream != EVALUATE, background
        super().__init__(inner, f"game={config.game}", env.frame_skip, env.max_steps * env.frame_skip, env.size, seed, stream)

    @property
    def steps(self) -> int:
        """Agent steps since the reset."""
        return len(self.actions)

    @crashing
    def step(self, action: int) -> Step:
        score, terminated = self._advance(int(action))
        frame = self.frame()
        self.record(int(action))
        reward = float(np.sign(score)) if self.clip_reward else score
        return Step(frame, reward, score, terminated, False, self.over)

    def native(self, action: int) -> int:
        return self.first + int(action)

    def frame(self) -> np.ndarray:
        """(size, size, 1)"""
        picture = grey(self.picture())
        if self.background is not None:
            picture = self.background.draw(picture, self.seed, self.stream, self.number, -(-self.simulated // self.repeat))
        return cv2.resize(picture, (self.size, self.size), interpolation=self.interpolation)[:, :, None]

    @crashing
    def render(self) -> np.ndarray:
        """A picture in colour for videos, as wide and high as the environment's where that is not too large: (H, W, 3) uint8."""
        picture = coloured(self.view())
        shrink = max(1.0, max(picture.shape[:2]) / VIDEO_SIDE)
        height, width = (max(2, int(side / shrink) // 2 * 2) for side in picture.shape[:2])  # a video has even sides
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)

    def random_action(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.n_actions))


def action_numbers(space: Any, game: str) -> tuple[int, int]:
    """The number of the first action, and how many there are."""
    if isinstance(space, gymnasium.spaces.Box):
        raise UserError(f"game={game} has continuous actions, {space}: python -m DMControl.train task={game} trains it")
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise UserError(f"game={game} has the actions {space}: this agent needs Discrete ones")
    return int(space.start), int(space.n)
