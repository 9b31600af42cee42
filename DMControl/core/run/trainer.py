"""What every run does around its loop: resume, save, log, and recover from crashes of the environment."""

import contextlib
import functools
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import machine
from ..errors import Crash, Failure, UserError, file_trouble
from ..machine import Precision
from . import hours, transfer, writers
from .agent import Agent, Update
from .checkpoint import Checkpoints
from .config import Config
from .folder import RunFolder, Stop
from .logger import Logger
from .progress import Averages, Bar, Every, Timers
from .watch import Watch, write_inspection

LOOK_EVERY = 100  # updates in one go, after which the watch checks them


class Trainer(ABC):
    """Base of a tree's Trainer, which adds the loop."""

    ACTION: type  # the numpy type of an action
    COUNTERS: tuple[str, ...] = ("step", "episode", "evaluated_at", "row_updates", "restarts", "final")
    repeat: int  # simulator steps per agent step

    def __init__(self, config: Config, env: Any, agent: Agent, replay: Any, logger: Logger, folder: RunFolder) -> None:
        self.config, self.env, self.agent, self.replay, self.logger, self.folder = config, env, agent, replay, logger, folder
        self.device = agent.generator.device
        silence_writer_threads()
        self.stop, self.watch, self.checkpoints = Stop(), Watch(), Checkpoints(folder.path / "checkpoint")
        self.timers, self.averages = Timers(), Averages()
        self.step, self.episode, self.evaluated_at = 0, 0, -1
        self.row_updates, self.restarts, self.crashes = 0, 0, 0  # restarts: in the whole run; crashes: in this process
        self.allowed_crashes = config.env_restarts
        self.final: list[dict[str, float]] = []
        self.acting = agent.begin(1)  # the agent's acting state
        self.pending: np.ndarray | None = None  # an action that was chosen and not yet executed
        self.seconds, self.started = 0.0, time.perf_counter()

    @abstractmethod
    def train(self) -> int:
        """The loop; returns the exit code."""

    @abstractmethod
    def make_env(self) -> Any:
        """Make the training environment."""

    @abstractmethod
    def source(self, run: str) -> Agent:
        """The agent of another run."""

    @property
    def at(self) -> int:
        """Simulator steps so far (env steps or frames): the x axis of all records."""
        return self.step * self.repeat

    @property
    def hours(self) -> float:
        return (self.seconds + time.perf_counter() - self.started) / 3600

    def open(self, precision: Precision, total: int, unit: str) -> None:
        """Resume from the newest intact checkpoint, if there is one, and open the records."""
        if "transfer" in self.config and self.config.transfer.freeze:
            transfer.freeze(self.agent, self.config)
        saved = self.checkpoints.load(("agent", "state"), self.device)
        if saved is not None:
            try:
                self.load(*saved)
            except (torch.OutOfMemoryError, MemoryError) as error:
                path, step = self.folder.path, saved[0]["step"]
                raise Failure(f"out of memory while reading the save of step {step:,}: free memory and resume ({path})") from error
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # intact, but with other content
                raise UserError(
                    f"the save of step {saved[0]['step']:,} in {self.folder.path} does not fit ({type(error).__name__}: {error}): another "
                    "version of this code wrote it; take that version, or move the run folder away to start anew"
                ) from error
        elif "transfer" in self.config:
            print(transfer.adopt(self.agent, self.source(self.config.transfer.run), self.config))
        self.started = time.perf_counter()
        self.folder.begin(precision, self.step)
        self.logger.open(self.config.tracker, None if saved is None else self.at)
        self.total, self.unit = total, unit
        print(f"run: {self.folder.path}" + (f" (resumed at {self.at:,} {unit}s)" if saved is not None else ""))
        if self.env.lost:
            self.lose_episode()

    def hours_ahead(self, precision: Precision, done: int, total: int) -> str:
        """A line on the hours from `done` to `total` (in the unit of train.random_steps), if they are many."""
        updates = updates_until(self.config.train, total) - updates_until(self.config.train, done)
        return hours.ahead(self.config, machine.describe(precision.device), str(precision.dtype)[6:], updates)

    @functools.cached_property
    def bar(self) -> Bar:
        """Made when the loop begins, after the run's first lines."""
        return Bar(self.total, self.at, self.unit)

    def run(self) -> int:
        """Run the loop. A disk or memory error ends the run with one clear line."""
        try:
            return self.train()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(f"{file_trouble(error)} at step {self.step:,}: {self.last_save}") from error
        except (torch.OutOfMemoryError, MemoryError) as error:
            free = machine.gigabytes(machine.free_memory(self.device))
            raise Failure(f"out of memory at step {self.step:,}, {free} are free on {self.device}: {self.last_save}") from error
        finally:
            with contextlib.suppress(OSError):
                self.bar.close()
                self.logger.close()

    @property
    def last_save(self) -> str:
        newest = self.checkpoints.newest
        if newest is None:
            return f"nothing was saved yet in {self.folder.path}"
        return f"the save of step {newest:,} is kept, and the same command continues from there ({self.folder.path})"

    def counts(self) -> tuple[int, int]:
        """What train.random_steps and train.update_every count, before and after this agent step."""
        return self.step - 1, self.step

    def updates_due(self) -> int:
        """The number of updates after this agent step."""
        t, (before, now) = self.config.train, self.counts()
        if before < t.random_steps:
            return 0
        if t.catch_up and not self.agent.updates:
            return t.catch_up
        return t.updates_per_step if Every(t.update_every)(now, now - before) else 0

    def update(self, count: int, pause: Callable[[], bool] = bool) -> int:
        """Let the agent make `count` updates. If there are several, `pause` may end this early. Returns how many are left."""
        if not count:
            return 0
        left = count
        with self.timers("update"):
            while left and not (count > 1 and pause()):
                update: Update = self.agent.update(self.replay, self.step)
                self.averages.add(update.metrics)
                self.watch.add(self.agent.updates, *update)
                left -= 1
                if left and left % LOOK_EVERY == 0:  # thousands at once would fill the memory
                    self.stop_if_not_finite()
                    self.bar.advance(0, updates_left=f"{left:,}")
            machine.synchronize(self.device)  # otherwise the next action waits, and time/act includes the updates
        self.row_updates += count - left
        return left

    def stop_if_not_finite(self) -> None:
        """Called once per agent step, after acting has waited for the device, and before every save and evaluation."""
        found = self.watch.look()
        if found is None:
            return
        update, metrics, drawn = found
        path = self.folder.path / "inspect" / f"step_{self.step:09d}.pt"
        write_inspection(path, {"step": self.step, "update": update, "metrics": metrics}, drawn)
        wrong = ", ".join(f"{name}={value}" for name, value in metrics.items() if not np.isfinite(value))
        raise Failure(f"{wrong} at step {self.step:,}, update {update:,}: its batch is in {path}; {self.last_save}")

    def choose(self, random: bool) -> np.ndarray:
        """The next action. After a crash it is the action whose step crashed."""
        if self.pending is None and random:
            self.pending = self.agent.random_action()
        elif self.pending is None:
            actions, self.acting = self.agent.act(self.replay.newest(), self.acting, explore=True)
            self.pending = actions[0]
        return self.pending

    def advance(self, action: np.ndarray) -> Any:
        result = self.retry(lambda: self.env.step(action), self.renew)
        self.pending = None
        return result

    def start_episode(self) -> None:
        self.replay.start(self.retry(lambda: self.env.reset(), self.renew))
        self.acting = self.agent.begin(1)

    def lose_episode(self) -> None:
        """The environment could not be restored in mid-episode. That episode ends as at a time limit, and the next begins."""
        self.bar.say("the episode under way could not be restored: the next one begins")
        self.replay.cut()
        self.start_episode()

    def end_episode(self, episode_return: float, length: int) -> None:
        """Write a row of train.csv: the episode, and the means of the metrics since the last row."""
        self.stop_if_not_finite()
        times = self.timers.read()
        speed = self.row_updates / times["time/update"] if times.get("time/update") else 0.0
        row = {
            "step": self.step,
            "episode": self.episode,
            "episode_return": episode_return,
            "episode_length": length,
            "hours": self.hours,
            "perf/updates_per_second": speed,
            "env/restarts": self.restarts,
            **self.averages.read(),
            **times,
        }
        self.logger.episode(self.at, row)
        self.bar.advance(0, episode_return=f"{episode_return:.1f}", updates_per_s=f"{speed:.1f}")
        self.episode, self.row_updates = self.episode + 1, 0

    def evaluated(self, message: str) -> None:
        """After an evaluation: log the agent's diagnostics and print the result."""
        numbers, pictures = self.agent.diagnose(self.replay, self.at)
        self.logger.diagnosis(self.at, numbers, pictures)
        mean = sum(e["episode_return"] for e in self.final) / len(self.final)
        self.bar.say(message.format(mean=mean, count=len(self.final)))

    def end(self, finished: bool, unit: str) -> int:
        """Close the records; returns the exit code."""
        self.bar.close()
        if finished:
            self.finish()
        self.logger.close()
        print(f"{'finished' if finished else 'stopped'} at {self.at:,} {unit}s after {self.hours:.2f} h: {self.folder.path}")
        return 0 if finished else self.stop.exit_code

    def write_result(self, chosen: dict[str, Any], scores: dict[str, float | None]) -> None:
        """Write result.json and log the final scores; then remove the saved replay unless it is to be kept."""
        returns = [e["episode_return"] for e in self.final]
        self.logger.final(self.at, {"episode_return": sum(returns) / len(returns), **scores, "hours": self.hours})
        self.folder.finish({**chosen, "eval_returns": returns, **scores, "hours": self.hours})
        if not self.config.checkpoint.keep_replay:
            self.checkpoints.drop_replay()

    def retry(self, attempt: Callable[[], Any], renew: Callable[[], None]) -> Any:
        """Call `attempt`. After a crash: save, call `renew`, and try again, at most `env_restarts` times per process."""
        while True:
            try:
                return attempt()
            except Crash as error:
                crash = error
            while True:
                self.record_crash(crash)
                try:
                    renew()
                    break
                except Crash as error:
                    crash = error

    def record_crash(self, crash: Crash) -> None:
        self.crashes += 1
        with open(self.folder.path / "crash.log", "a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} step {self.step}\n{''.join(traceback.format_exception(crash))}\n")
        if self.crashes > self.allowed_crashes:
            self.save()
            raise Failure(f"the environment crashed {self.crashes} times (env_restarts={self.allowed_crashes}), {crash}: {self.last_save}")
        self.restarts += 1
        if self.checkpoints.newest != self.step:
            self.save()
        restart = f"restart {self.crashes} of at most {self.allowed_crashes}"
        self.bar.say(f"the environment crashed at step {self.step:,} ({crash}): {restart}, see crash.log")

    def renew(self) -> None:
        """Replace the environment by a new one in the state before the crash."""
        fresh = self.make_env()
        try:
            fresh.load_state_dict(self.env.state_dict())
        except Crash:
            fresh.close()
            raise
        self.env.close()
        self.env = fresh
        if fresh.lost:
            self.lose_episode()

    def save(self) -> None:
        self.stop_if_not_finite()
        with self.timers("save"):
            segments = self.replay.save_frames(self.checkpoints.write_frames)
            self.logger.flush()
            state = {
                "agent": self.agent.state_dict(),
                "replay": self.replay.state_dict(),
                "env": self.env.state_dict(),
                "counters": {name: getattr(self, name) for name in self.COUNTERS},
                "acting": self.acting,
                "pending": None if self.pending is None else self.pending.tolist(),
                "averages": self.averages.state_dict(),
                "timers": dict(self.timers.seconds),
                "seconds": self.seconds + time.perf_counter() - self.started,
                "records": writers.record_sizes(self.folder.path),
            }
            self.checkpoints.save(self.step, {"agent": self.agent.networks(), "state": state}, segments)

    def load(self, manifest: dict[str, Any], parts: dict[str, dict[str, Any]]) -> None:
        state = parts["state"]
        self.agent.load_networks(parts["agent"])
        self.agent.load_state_dict(state["agent"])
        self.replay.load_state_dict(state["replay"], manifest["segments"], self.checkpoints.read_frames)
        self.env.load_state_dict(state["env"])
        for name in self.COUNTERS:
            setattr(self, name, state["counters"].get(name, getattr(self, name)))  # an older save may lack a new one
        self.acting = state["acting"].to(self.acting.device)
        self.pending = None if state["pending"] is None else np.asarray(state["pending"], self.ACTION)
        self.averages.load_state_dict(state["averages"], self.device)
        self.timers.seconds = dict(state["timers"])
        self.seconds = state["seconds"]
        writers.cut_back(self.folder.path, state["records"])


def updates_until(train: Config, steps: int) -> int:
    """The number of updates in the first `steps` agent steps."""
    first = train.random_steps + 1
    if steps < first:
        return 0
    due = steps // train.update_every - train.random_steps // train.update_every
    if not train.catch_up:
        return due * train.updates_per_step
    return train.catch_up + (due - (first % train.update_every == 0)) * train.updates_per_step


def require_disk(runs: str, run: Path, replay: int, networks: int) -> None:
    """Raise a UserError if the saves do not fit on the disk: the frames, and three copies of the networks during a save."""
    try:
        need = replay + 3 * networks - Checkpoints(run / "checkpoint").frame_bytes()
        free = machine.free_disk(Path(runs))
    except (OSError, ValueError) as error:
        raise UserError(f"runs={runs} cannot be used ({error}): name a folder") from error
    if need > free:
        raise UserError(
            f"saving needs {machine.gigabytes(need)} of disk, {machine.gigabytes(replay)} of it for the replay, but {runs} has "
            f"{machine.gigabytes(free)} free: set runs=... to another disk or lower replay.capacity"
        )


def silence_writer_threads() -> None:
    """Print no traceback if TensorBoard's thread fails to write: the loop raises the same error and reports it in one line."""
    default = threading.excepthook
    threading.excepthook = lambda a: None if isinstance(a.exc_value, OSError) else default(a)
