"""The tasks and worlds of this project as environments of Gymnasium, for agents from elsewhere.

import gymnasium
import DMControl.gym_register

gymnasium.make("DMControl/cartpole_swingup-v0")           # the protocol of MLR
gymnasium.make("DMControl/walker_walk-video_hard-v0")     # a world, with the protocol of DMControl-GB
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from .env import EVALUATE, TRAIN
from .evaluate import VIDEO_SIZE, new_env
from .settings import read_config, worlds_of
from .tasks import ARM, TASKS
from .worlds.catalogue import WORLDS


class Task(gymnasium.Env):
    """Observations are the newest frames along the last axis, (size, size, 3 x stack) uint8; actions lie in [-1, 1].

    settings: those of DMControl.train, such as ["action_repeat=2", "intensity=0.3", "data.video=DIR"]. judged: the initial states and
    the pictures of the world that evaluations have.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(
        self, task: str, world: str, size: int = 84, judged: bool = False, settings: Sequence[str] = (), render_mode: str | None = None
    ) -> None:
        protocol = ["method=baseline", "preset=paper"] if world == "clean" else ["method=sac", "preset=madi", f"world={world}"]
        config = read_config([f"task={task}", *protocol, *settings])
        config["image"]["size"] = size
        self.env = new_env(config, 0, EVALUATE if judged else TRAIN, worlds_of(config)[0])
        self.stack, self.render_mode, self.started = config.image.stack, render_mode, False
        self.metadata = {**self.metadata, "render_fps": self.env.fps}
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3 * self.stack), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.env.action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """With a seed the first episode of that seed, else the next episode."""
        super().reset(seed=seed)
        if seed is None and not self.started:
            seed = int(self.np_random.integers(2**31))
        if seed is not None:
            self.env.seed, self.started = seed, True
        self.frames = [self.env.reset(None if seed is None else 0)] * self.stack
        return np.concatenate(self.frames, -1), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        step = self.env.step(action)
        self.frames = [*self.frames[1:], step.frame]
        return np.concatenate(self.frames, -1), step.reward, step.terminal, step.last and not step.terminal, {}

    def render(self) -> np.ndarray | None:
        return self.env.render(VIDEO_SIZE) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.env.close()


for task in (*TASKS, ARM):
    for world in WORLDS:
        name = task.replace(":", "_") + ("" if world == "clean" else f"-{world}")
        gymnasium.register(f"DMControl/{name}-v0", entry_point=Task, kwargs={"task": task, "world": world})
