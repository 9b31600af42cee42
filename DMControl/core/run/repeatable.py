"""An environment behind Gymnasium's interface, whatever it is. It has no saved state: repeating its actions restores it.

A few steps at the start of a run show whether that works. Where it does not, a stop or a crash costs the episode under way.
"""

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch

from ..errors import UserError, crashing

SMALLEST = 16  # side of an observation that counts as a picture: smaller ones are symbols on a grid
COMPARED, BEFORE = 16, 5  # agent steps


class Repeatable(ABC):
    """(seed, stream, n) alone seed episode n. A crash in `step` or `reset` does not change `state_dict`."""

    ACTION: type  # the numpy type of an action

    def __init__(self, inner: Any, name: str, repeat: int, limit: int, size: int, seed: int, stream: int) -> None:
        """inner: the environment; name: as the user typed it; limit: simulator steps of an episode at most."""
        self.inner, self.name, self.repeat, self.limit, self.size = inner, name, repeat, limit, size
        self.seed, self.stream = seed, stream
        self.shows_itself = is_picture(inner.observation_space)  # its observations are pictures
        if not self.shows_itself and inner.render_mode != "rgb_array":
            raise UserError(f"{name} has no pixels: its observations are {inner.observation_space}, and it does not render rgb_array")
        self.observation: Any = None
        self.shape: tuple[int, ...] | None = None  # of its pictures
        self.exact = True  # whether repeating its actions restores it
        self.lost = False  # whether `load_state_dict` had to give up an episode
        self.episode, self.under_way, self.over = -1, False, True
        self.actions: list[Any] = []
        self.number, self.simulated, self.score = -1, 0, 0.0  # of the episode that was begun last; since its reset

    @abstractmethod
    def native(self, action: Any) -> Any:
        """An action of the agent as the environment takes it."""

    @abstractmethod
    def frame(self) -> np.ndarray:
        """The newest picture as the agent sees it: (size, size, channels) uint8."""

    @abstractmethod
    def random_action(self, rng: np.random.Generator) -> Any:
        """For the comparison."""

    @abstractmethod
    def step(self, action: Any) -> Any:
        """An agent step: `repeat` simulator steps."""

    @crashing
    def reset(self, episode: int | None = None) -> np.ndarray:
        """Start the next episode, or the given one. Returns its first frame."""
        number = self.episode + 1 if episode is None else episode
        self._start(number)
        frame = self.frame()
        self.episode, self.actions, self.under_way = number, [], True
        return frame

    @crashing
    def render(self, size: int) -> np.ndarray:
        """A square picture in colour, for videos."""
        return resized(coloured(self.view()), size)

    def view(self) -> np.ndarray:
        """What the environment renders, else what it observes."""
        renders = self.inner.render_mode == "rgb_array" and "rgb_array" in self.inner.metadata.get("render_modes", [])
        return self.inner.render() if renders or not self.shows_itself else self.picture()

    def picture(self) -> np.ndarray:
        """The newest picture as the environment gives it: (H, W), (H, W, 1) or (H, W, 3) uint8."""
        found = self.observation if self.shows_itself else self.inner.render()
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape[2:] not in ((), (1,), (3,)) or found.ndim < 2:
            kind = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
            raise UserError(f"{self.name} renders {kind}: a picture must be uint8 and (height, width), with 1 or 3 channels")
        self.shape = self.shape or found.shape
        if found.shape != self.shape:
            raise UserError(f"{self.name} changed the shape of its pictures from {self.shape} to {found.shape}: it must stay the same")
        return found

    def state_dict(self) -> dict[str, Any]:
        actions = torch.from_numpy(np.array(self.actions if self.exact else [], self.ACTION))
        return {"episode": self.episode, "actions": actions, "under_way": self.under_way, "exact": self.exact}

    @crashing
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state: repeat its reset and its actions. If that is not possible, the episode is over, and lost if it was under way."""
        self.exact = self.exact and state["exact"]
        self.episode, self.actions, self.over, self.under_way = state["episode"], [], True, False
        if not self.exact:
            self.lost = state["under_way"]
        elif self.episode >= 0:
            self._start(self.episode)
            self.actions, self.under_way = list(state["actions"].cpu().numpy()), state["under_way"]
            for action in self.actions:
                self._advance(action)

    def give_up_exactness(self) -> None:
        """From now on a stop costs the episode under way."""
        self.exact = False

    def record(self, action: Any) -> None:
        """Called last in a step, so that a crash before it changes nothing."""
        self.actions.append(action)
        self.under_way = not self.over

    def close(self) -> None:
        self.inner.close()

    def _start(self, episode: int) -> None:
        seed = np.random.SeedSequence((self.seed, self.stream, episode)).generate_state(1)[0] >> 1  # some take no more than 31 bits
        self.observation, _ = self.inner.reset(seed=int(seed))
        self.number, self.simulated, self.score, self.over, self.lost = episode, 0, 0.0, False, False

    def _advance(self, action: Any) -> tuple[float, bool]:
        """Take a step. Returns the reward, and whether the task has ended; a time limit that ends the episode is no such end."""
        reward, terminated = 0.0, False
        for _ in range(self.repeat):
            self.observation, one, terminated, truncated, _ = self.inner.step(self.native(action))
            reward += float(one)
            self.simulated += 1
            if terminated or truncated or self.simulated >= self.limit:
                self.over = True
                break
        self.score += reward
        return reward, bool(terminated)


def is_picture(space: Any) -> bool:
    """Whether observations of this space are pictures."""
    shape = getattr(space, "shape", None) or ()
    return space.dtype == np.uint8 and len(shape) in (2, 3) and shape[2:] in ((), (1,), (3,)) and min(shape[:2]) >= SMALLEST


def coloured(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3)"""
    return picture if picture.shape[2:] == (3,) else cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_GRAY2RGB)


def grey(picture: np.ndarray) -> np.ndarray:
    """(H, W)"""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.shape[2:] == (3,) else picture.reshape(picture.shape[:2])


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """A square picture. Shrinking averages; enlarging interpolates."""
    smaller = min(picture.shape[:2]) >= size
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def check_repetition(env: Repeatable, make: Callable[[], Repeatable]) -> None:
    """Play one episode in a used and in a fresh environment, and restore it in the middle. Print a line if a frame or reward differs."""
    used, fresh, rng = make(), make(), np.random.default_rng(env.seed)
    play(used, 0, [used.random_action(rng) for _ in range(BEFORE)])
    actions = [used.random_action(rng) for _ in range(COMPARED)]
    one, two = play(used, 1, actions), play(fresh, 1, actions)
    half = (len(one) - 1) // 2
    state = fresh.state_dict()
    used.load_state_dict({**state, "actions": state["actions"][:half], "under_way": True})
    again = [*one[: half + 1], *(used.step(action) for action in actions[half : len(one) - 1])]
    used.close()
    fresh.close()
    if not all(same(first, other) for seen in (two, again) for first, other in zip(one, seen, strict=False)) or len(one) != len(two):
        env.give_up_exactness()
        print(f"{env.name} does not repeat itself from its seed and its actions: a stop costs the episode under way")


def play(env: Repeatable, episode: int, actions: list[Any]) -> list[Any]:
    """The first frame, then the steps, until the episode is over."""
    seen: list[Any] = [env.reset(episode)]
    for action in actions:
        if env.over:
            break
        seen.append(env.step(action))
    return seen


def same(one: Any, other: Any) -> bool:
    """Whether two frames, or two steps, agree in every bit."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def open_env(gymnasium: ModuleType, word: str, package: str) -> Any:
    """Make the environment that task=gym:ID or game=gym:ID names, with pictures. package: what registers it, imported first."""
    name = word.partition("gym:")[2]
    import_package(gymnasium, package)
    warnings.filterwarnings("ignore", ".*possible render_modes")  # instead, one line says what follows from it
    for mode in ({"render_mode": "rgb_array"}, {}):  # without one, its observations may still be pictures
        try:
            return gymnasium.make(name, **mode, disable_env_checker=True)
        except gymnasium.error.UnregisteredEnv as error:
            raise UserError(f"{word} is not registered: {error} gym.import=PACKAGE imports the package that registers it") from error
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise UserError(f"{word} needs a package that is not installed here: {error}") from error
        except Exception as error:
            reason = error
    raise UserError(f"{word} cannot be made ({type(reason).__name__}: {reason})") from reason


def import_package(gymnasium: ModuleType, name: str) -> None:
    if not name:
        return
    try:
        gymnasium.register_envs(importlib.import_module(name))
    except ImportError as error:
        raise UserError(f"gym.import={name} cannot be imported ({error}): install it, or put its folder into PYTHONPATH") from error
    except Exception as error:
        raise UserError(f"gym.import={name} fails while it is imported ({type(error).__name__}: {error})") from error
