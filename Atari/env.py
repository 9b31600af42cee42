"""An Atari game with grey frames of 84 pixels as observations, and four simulator frames per step."""

from dataclasses import dataclass
from typing import Any

import ale_py
import cv2
import numpy as np
import torch

from . import games
from .core.errors import UserError, crashing
from .core.method.frames import Frames
from .distraction import Background

TRAIN, EVALUATE = 0, 1  # streams of no-op starts; a game has at most 960 starts (STARTS x 30), so the streams may share some
INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}  # env.resize
STARTS = 32  # ALE randomises the console's RAM at each reset; the starts repeat after this many resets


@dataclass(frozen=True)
class Step:
    frame: np.ndarray  # (size, size, 1) uint8
    reward: float  # the sign of the score where rewards are clipped
    score: float  # raw, summed over the skipped frames
    done: bool  # the training episode ends: the target does not bootstrap
    blank: bool  # a life was lost: the frame begins a new stack
    over: bool  # the game is over or reached max_steps: the environment must be reset


class Env:
    """Minimal action set, no sticky actions, max over the last two frames of a step.

    (seed, stream, n) alone determine the start of episode n. Together with the actions since then they restore the state bit for
    bit. ALE's snapshots do not: they lack the picture, and some games draw only parts of it per frame.
    A crash in `step` or `reset` does not change `state_dict`.
    """

    lost = False  # `load_state_dict` never gives up an episode

    def __init__(
        self,
        game: str,
        *,
        seed: int = 0,
        stream: int = TRAIN,
        noops: int = 30,
        fewest_noops: int = 1,
        frame_skip: int = 4,
        size: int = 84,
        resize: str = "linear",
        episodic_life: bool = True,
        clip_reward: bool = True,
        max_steps: int = 27_000,
        background: Background | None = None,
    ) -> None:
        lowest = {"noops": (noops, 0), "frame_skip": (frame_skip, 1), "size": (size, 1), "max_steps": (max_steps, 1)}
        for name, (value, low) in lowest.items():
            if value < low:
                raise UserError(f"{name}={value} must be at least {low}")
        self.game = games.parse(game)
        self.rom = games.rom(self.game)
        self.seed, self.stream, self.noops, self.fewest_noops = seed, stream, noops, fewest_noops
        self.frame_skip, self.size, self.max_steps = frame_skip, size, max_steps
        self.interpolation = INTERPOLATION[resize]
        self.episodic_life, self.clip_reward = episodic_life, clip_reward
        self.background = background
        cv2.setNumThreads(1)  # the pictures are too small for several threads
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self._load()
        self.action_set = self.ale.getMinimalActionSet()
        height, width = self.ale.getScreenDims()
        self.screens = np.zeros((2, height, width), np.uint8)
        self.episode, self.over = -1, True
        self.known_lives, self.score = 0, 0.0
        self.actions: list[int] = []

    @property
    def n_actions(self) -> int:
        return len(self.action_set)

    @property
    def steps(self) -> int:
        """Agent steps since the reset."""
        return len(self.actions)

    @property
    def lives(self) -> int:
        return self.ale.lives()

    @crashing
    def reset(self, episode: int | None = None) -> np.ndarray:
        """Start the next episode, or the given one. Returns its first frame."""
        number = self.episode + 1 if episode is None else episode
        self._start(number)
        frame = self._frame(number, 0)
        self.episode, self.actions = number, []
        return frame

    @crashing
    def step(self, action: int) -> Step:
        if self.over:
            raise UserError("the game is over: call reset() before the next step")
        score, lost = self._advance(int(action))
        frame = self._frame(self.episode, self.steps + 1)
        self.actions.append(int(action))  # last, so that a crash does not change them
        blank = lost and self.episodic_life
        reward = float(np.sign(score)) if self.clip_reward else score
        return Step(frame, reward, score, self.over or blank, blank, self.over)

    @crashing
    def render(self) -> np.ndarray:
        """The screen in colour, for videos: (210, 160, 3) uint8."""
        screen = self.ale.getScreenRGB()
        if self.background is None:
            return screen
        return self.background.draw_coloured(screen, self.ale.getScreenGrayscale(), self.seed, self.stream, self.episode, self.steps)

    def close(self) -> None:
        """Nothing has to be freed."""

    def state_dict(self) -> dict[str, Any]:
        return {"episode": self.episode, "actions": torch.tensor(self.actions, dtype=torch.int16)}

    @crashing
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state: repeat its start and its actions without rendering."""
        self.episode, self.over, self.actions = state["episode"], True, []
        if self.episode < 0:
            return
        self._start(self.episode)
        for action in state["actions"].tolist():
            self._advance(action)
            self.actions.append(action)

    def _load(self) -> None:
        self.ale.loadROM(self.rom)
        self.loaded = 0  # resets since the ROM was loaded

    def _start(self, episode: int) -> None:
        resets = (episode + 1) % STARTS + 1  # the official environment resets once more before its first game
        if self.loaded >= resets:
            self._load()
        while self.loaded < resets:
            self.ale.reset_game()
            self.loaded += 1
        self.score, self.over = 0.0, False
        self.screens[:] = 0
        self._leave_lost_life()
        rng = np.random.default_rng((self.seed, self.stream, episode))
        for _ in range(int(rng.integers(self.fewest_noops, self.noops + 1)) if self.noops else 0):
            self.ale.act(0)
        self.ale.getScreenGrayscale(self.screens[1])

    def _advance(self, action: int) -> tuple[float, bool]:
        """Take a step. Returns the raw score, and whether a life was lost with another one left."""
        code = self.action_set[action]
        score = float(sum(self.ale.act(code) for _ in range(self.frame_skip - 1)))
        self.ale.getScreenGrayscale(self.screens[0])
        score += self.ale.act(code)
        lost = 0 < self.ale.lives() < self.known_lives  # like the official code, this misses a life that is won back within a step
        if lost:
            self._leave_lost_life()
            if self.episodic_life:
                self.screens[0] = 0  # the maximum must not contain the lost life
        self.ale.getScreenGrayscale(self.screens[1])
        self.score += score
        self.over = self.ale.game_over() or self.steps + 1 >= self.max_steps
        return score, lost

    def _leave_lost_life(self) -> None:
        self.ale.act(0)  # the official code takes one no-op here
        self.known_lives = self.ale.lives()

    def _frame(self, episode: int, step: int) -> np.ndarray:
        brightest = self.screens.max(0)
        if self.background is not None:
            brightest = self.background.draw(brightest, self.seed, self.stream, episode, step)
        return cv2.resize(brightest, (self.size, self.size), interpolation=self.interpolation)[:, :, None]  # (size, size, 1)


class Stack:
    """The newest `depth` frames since the reset or the last lost life, oldest first. Missing frames are black."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.frames: np.ndarray | None = None  # (depth, size, size, 1) uint8

    def start(self, frame: np.ndarray) -> None:
        self.frames = np.zeros((self.depth, *frame.shape), np.uint8)
        self.frames[-1] = frame

    def push(self, frame: np.ndarray) -> None:
        self.frames = np.concatenate([self.frames[1:], frame[None]])

    def follow(self, step: Step) -> None:
        self.start(step.frame) if step.blank else self.push(step.frame)


def observations(stacks: list[Stack], device: torch.device) -> Frames:
    """The observations of several environments in one batch."""
    frames = np.concatenate([stack.frames for stack in stacks])  # (N * S, size, size, 1)
    store = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().to(device)
    return Frames(store, torch.arange(len(store), device=device).view(len(stacks), -1))
