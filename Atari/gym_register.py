"""The games of ALE with the protocol of Atari-100k as environments of Gymnasium, for agents from elsewhere.

import gymnasium
import Atari.gym_register

gymnasium.make("Atari/pong-100k-v0")
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from ale_py import roms

from .env import EVALUATE, TRAIN, Stack
from .evaluate import new_env
from .logger import FPS
from .settings import read_config


class Game(gymnasium.Env):
    """Observations are the newest frames along the last axis, (84, 84, 4) uint8.

    An episode ends with each lost life, as in training; the reset after it goes on with the game. Rewards are the signs of the score,
    whose change is in info["score"]. judged: full games, raw rewards, and the starts of evaluations. settings: those of Atari.train,
    such as ["env.clip_reward=false", "env.distraction=noise"].
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": FPS}

    def __init__(self, game: str, judged: bool = False, settings: Sequence[str] = (), render_mode: str | None = None) -> None:
        config = read_config([f"game={game}", "method=baseline", "preset=paper", *settings])
        self.env = new_env(config, 0, EVALUATE if judged else TRAIN)
        self.stack, self.render_mode, self.started = Stack(config.env.stack), render_mode, False
        self.life_lost = False  # and the game goes on
        self.observation_space = gymnasium.spaces.Box(0, 255, (config.env.size, config.env.size, config.env.stack), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(self.env.n_actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """With a seed the first game of that seed; else the next game, or the next life of this one."""
        super().reset(seed=seed)
        if seed is None and not self.started:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self.env.seed, self.started = seed, True
        if seed is not None or not self.life_lost:
            self.stack.start(self.env.reset(None if seed is None else 0))
        self.life_lost = False
        return self.observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        step = self.env.step(action)
        self.stack.follow(step)
        self.life_lost = step.blank and not step.over
        terminated = step.blank or (step.over and self.env.ale.game_over())
        return self.observation(), step.reward, terminated, step.over and not terminated, {"score": step.score}

    def observation(self) -> np.ndarray:
        return np.concatenate(self.stack.frames, -1)

    def render(self) -> np.ndarray | None:
        return self.env.render().copy() if self.render_mode == "rgb_array" else None


for game in roms.get_all_rom_ids():
    gymnasium.register(f"Atari/{game}-100k-v0", entry_point=Game, kwargs={"game": game})
