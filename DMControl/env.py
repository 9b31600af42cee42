"""A task of the control suite, or the robot arm, with camera pictures as observations."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .core.errors import UserError, crashing, nearest
from .core.method.frames import Frames
from .renderer import choose_renderer
from .tasks import ARM, TASKS
from .worlds.scene import World

choose_renderer()  # dm_control reads MUJOCO_GL once, when it is imported
os.environ.setdefault("DISABLE_RENDER_THREAD_OFFLOADING", "1")  # an environment draws in the thread that made it: core/run/timed_env.py

from dm_control import suite  # noqa: E402
from dm_control.mujoco import engine  # noqa: E402

from . import ur5e  # noqa: E402

# otherwise mujoco's advice to the authors of the suite's models would come before an error's one line
logging.getLogger("absl").addFilter(lambda record: "is deprecated and will be removed" not in record.getMessage())

TRAIN, EVALUATE = 0, 1  # separate streams of initial states
WORLD = 7  # separates the random numbers of the world from those of the initial state


@dataclass(frozen=True)
class Step:
    frame: np.ndarray  # (H, W, 3) uint8
    reward: float  # summed over the repeated simulator steps
    terminal: bool  # the task has ended: the target does not bootstrap
    last: bool  # the episode is over: the task or the time limit has ended it


class Env:
    """Actions in [-1, 1], `action_repeat` simulator steps each, square frames of camera 0.

    (seed, stream, n) alone determine the initial state of episode n and the random choices of its world. Together with the actions
    since the reset they restore the state bit for bit. A crash in `step` or `reset` does not change `state_dict`.
    """

    lost = False  # `load_state_dict` never gives up an episode

    def __init__(
        self, task: str, action_repeat: int, size: int, shadows: bool, seed: int, stream: int, world: World | None = None, model: str = ""
    ) -> None:
        """model: a folder with the arm's model, in place of the package's."""
        if task not in TASKS and task != ARM:
            raise UserError(f"task={task} is not in the control suite: {nearest(task, TASKS)}")
        self.inner = ur5e.load(model) if task == ARM else suite.load(*TASKS[task], task_kwargs={"random": 0})
        self.action_repeat, self.size, self.seed, self.stream = action_repeat, size, seed, stream
        spec = self.inner.action_spec()
        self.low, self.high = spec.minimum.astype(np.float64), spec.maximum.astype(np.float64)
        if np.abs([self.low, self.high]).max() > 1e6 or not np.isfinite(self.inner._step_limit):
            raise UserError(f"task={task} has no bounds or no time limit, which this agent needs: choose another task")
        self.action_dim = int(spec.shape[0])
        self.fps = 1 / (self.inner.control_timestep() * action_repeat)  # agent steps per second of simulated time
        self.flags = {} if shadows else {"shadow": False, "reflection": False}
        self.cameras: dict[int, engine.Camera] = {}
        self.episode = -1
        self.actions: list[np.ndarray] = []
        self.over = True
        self.world = world or World()
        self.world.bind(self.inner.physics)

    @property
    def episode_length(self) -> int:
        """Agent steps of a full episode."""
        return int(np.ceil(self.inner._step_limit / self.action_repeat))

    @crashing
    def reset(self, episode: int | None = None) -> np.ndarray:
        """Start the next episode, or the given one. Returns its first frame."""
        number = self.episode + 1 if episode is None else episode
        self._start(number)
        frame = self.render()
        self.episode, self.actions = number, []
        return frame

    @crashing
    def step(self, action: np.ndarray) -> Step:
        action = np.array(action, dtype=np.float32)
        reward, terminal = self._advance(action)
        frame = self.render()
        self.actions.append(action)
        return Step(frame, reward, terminal, self.over)

    @crashing
    def render(self, size: int | None = None) -> np.ndarray:
        size = size or self.size
        if size not in self.cameras:
            self.cameras[size] = engine.Camera(self.inner.physics, size, size, 0)
        with self.world.dressed():
            frame = self.cameras[size].render(render_flag_overrides=self.flags).copy()  # the camera reuses one buffer
        return self.world.paint(frame)

    def state_dict(self) -> dict[str, Any]:
        actions = np.stack(self.actions) if self.actions else np.zeros((0, self.action_dim), np.float32)
        return {"episode": self.episode, "actions": torch.from_numpy(actions)}

    @crashing
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state: repeat its reset and its actions without rendering."""
        self.episode, self.actions, self.over = state["episode"], list(state["actions"].cpu().numpy()), True
        if self.episode < 0:
            return
        self._start(self.episode)
        for action in self.actions:
            self._advance(action)

    def close(self) -> None:
        self.cameras.clear()
        self.inner.physics.free()  # the close of dm_control does nothing

    def _start(self, episode: int) -> None:
        self.over = False
        self.inner.task.random.seed(np.random.SeedSequence((self.seed, self.stream, episode)).generate_state(4))
        self.inner.reset()
        self.world.start(np.random.default_rng((self.seed, self.stream, episode, WORLD)), episode)

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        scaled = self.low + (action.astype(np.float64) + 1) * 0.5 * (self.high - self.low)
        scaled = np.clip(scaled, self.low, self.high)
        reward = 0.0
        for _ in range(self.action_repeat):
            one, discount = self._simulate(scaled)
            self.world.tick()
            reward += one
            if discount is not None:
                self.over = True
                break
        self.world.step()
        return reward, discount == 0.0

    def _simulate(self, action: np.ndarray) -> tuple[float, float | None]:
        """dm_control's step without its observation of the true state, which nothing reads. Returns the discount at an episode's end."""
        suite, task, physics = self.inner, self.inner.task, self.inner.physics
        task.before_step(action, physics)
        physics.step(suite._n_sub_steps)
        task.after_step(physics)
        reward = float(task.get_reward(physics) or 0.0)
        suite._step_count += 1
        return reward, 1.0 if suite._step_count >= suite._step_limit else task.get_termination(physics)


class Stack:
    """The newest `depth` frames of an episode. At its start the first frame is repeated."""

    def __init__(self, depth: int, device: torch.device) -> None:
        self.depth, self.device = depth, device
        self.frames: list[np.ndarray] = []

    def start(self, frame: np.ndarray) -> None:
        self.frames = [frame] * self.depth

    def push(self, frame: np.ndarray) -> None:
        self.frames = [*self.frames[1:], frame]

    def observation(self) -> Frames:
        store = torch.from_numpy(np.stack(self.frames).transpose(0, 3, 1, 2).copy()).to(self.device)  # (S, 3, H, W)
        return Frames(store, torch.arange(self.depth, device=self.device)[None])
