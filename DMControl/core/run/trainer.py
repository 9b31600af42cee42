"""What a run does beside its loop: go on from the newest save, save, and outlive what goes wrong."""

import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import machine
from ..errors import Crash, Failure, UserError, file_trouble
from . import logs
from .checkpoint import Checkpoints
from .config import Config
from .folder import RunFolder, Stop
from .progress import Averages, Timers
from .watch import Watch, write_inspection


class Run:
    """Base of a tree's Trainer. The tree owns env, agent, replay, logger, bar and the loop; `open` comes when these stand."""

    ACTION: type  # of an action's numbers
    COUNTERS: tuple[str, ...] = ("step", "episode", "evaluated_at", "row_updates", "restarts", "final")

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stop = Stop()
        quiet_threads()
        self.device = machine.choose_device(config.device)
        self.precision = machine.choose_precision(config.precision, self.device)
        machine.keep_memory()
        machine.set_threads(config.threads)
        self.timers, self.averages = Timers(), Averages()
        self.step, self.episode, self.evaluated_at = 0, 0, -1
        self.row_updates, self.restarts, self.crashes = 0, 0, 0  # restarts: of the whole run; crashes: of this process
        self.allowed = config.env_restarts
        self.final: list[dict[str, float]] = []
        self.pending: np.ndarray | None = None  # chosen, but not yet taken
        self.seconds, self.started = 0.0, time.perf_counter()

    @property
    def hours(self) -> float:
        return (self.seconds + time.perf_counter() - self.started) / 3600

    def open(self, path: Path) -> bool:
        """Own the run folder and go on from its newest sound save; whether there was one."""
        self.watch = Watch()
        self.folder = RunFolder(path, self.config)
        self.checkpoints = Checkpoints(self.folder.path / "checkpoint")
        saved = self.checkpoints.load(("agent", "state"), self.device)
        if saved is not None:
            try:
                self.load(*saved)
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise Failure(f"out of memory while the save of step {saved[0]['step']:,} was read: it is kept ({path})") from error
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # sound, but of other things
                raise UserError(
                    f"the save of step {saved[0]['step']:,} in {path} does not fit ({type(error).__name__}: {error}): another version of "
                    "this code wrote it; take that version, or move the run folder away to start anew"
                ) from error
        self.started = time.perf_counter()
        return saved is not None

    def run(self) -> int:
        """The loop, and one clear line where something beyond it ends the run."""
        try:
            return self.train()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(f"{file_trouble(error)} at step {self.step:,}: {self.kept}") from error
        except (torch.OutOfMemoryError, MemoryError) as error:
            free = machine.gigabytes(machine.free_memory(self.device))
            raise Failure(f"out of memory at step {self.step:,}, {free} are free on {self.device}: {self.kept}") from error
        finally:
            with contextlib.suppress(OSError):
                self.bar.close()
                self.logger.close()

    @property
    def kept(self) -> str:
        newest = self.checkpoints.newest
        if newest is None:
            return f"nothing was saved yet in {self.folder.path}"
        return f"the save of step {newest:,} is kept, and the same command goes on from there ({self.folder.path})"

    def updated(self, metrics: dict[str, torch.Tensor]) -> None:
        """Take note of an update."""
        self.averages.add(metrics)
        self.watch.add(self.agent.updates, metrics, self.replay.drawn)
        self.row_updates += 1

    def stop_if_not_finite(self) -> None:
        """Once an agent step, where the device has been waited for anyway, and before anything is saved or judged."""
        found = self.watch.look()
        if found is None:
            return
        update, metrics, drawn = found
        path = self.folder.path / "inspect" / f"step_{self.step:09d}.pt"
        write_inspection(path, {"step": self.step, "update": update, "metrics": metrics}, drawn)
        wrong = ", ".join(f"{name}={value}" for name, value in metrics.items() if not np.isfinite(value))
        raise Failure(f"{wrong} at step {self.step:,}, update {update:,}: its batch is in {path}; {self.kept}")

    def choose(self) -> np.ndarray:
        """The action to take: the one that a crash prevented, if there is one."""
        if self.pending is None:
            self.pending = self.act()
        return self.pending

    def advance(self, action: np.ndarray) -> Any:
        result = self.persist(lambda: self.env.step(action), self.renew)
        self.pending = None
        return result

    def reset(self) -> np.ndarray:
        """The first frame of the next episode."""
        return self.persist(lambda: self.env.reset(), self.renew)

    def persist(self, attempt: Callable[[], Any], renew: Callable[[], None]) -> Any:
        """Do it; after a crash save, make the environment anew and do it again, up to `env_restarts` times a process."""
        while True:
            try:
                return attempt()
            except Crash as error:
                crash = error
            while True:
                self.note(crash)
                try:
                    renew()
                    break
                except Crash as error:
                    crash = error

    def note(self, crash: Crash) -> None:
        self.crashes += 1
        with open(self.folder.path / "crash.log", "a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} step {self.step}\n{''.join(traceback.format_exception(crash))}\n")
        if self.crashes > self.allowed:
            self.save()
            raise Failure(f"the environment crashed {self.crashes} times (env_restarts={self.allowed}), at last with {crash}: {self.kept}")
        self.restarts += 1
        if self.checkpoints.newest != self.step:
            self.save()
        self.bar.say(
            f"the environment crashed at step {self.step:,} ({crash}): restart {self.crashes} of at most {self.allowed}, see crash.log"
        )

    def renew(self) -> None:
        """A new environment, brought to where the old one was before what crashed."""
        fresh = self.make_env()
        fresh.load_state_dict(self.env.state_dict())
        self.env = fresh

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
                "pending": None if self.pending is None else self.pending.tolist(),
                "averages": self.averages.state_dict(),
                "timers": dict(self.timers.seconds),
                "seconds": self.seconds + time.perf_counter() - self.started,
                "logs": logs.marks(self.folder.path),
            }
            self.checkpoints.save(self.step, {"agent": self.agent.networks(), "state": state}, segments)

    def load(self, manifest: dict[str, Any], parts: dict[str, dict[str, Any]]) -> None:
        state = parts["state"]
        self.agent.load_networks(parts["agent"])
        self.agent.load_state_dict(state["agent"])
        self.replay.load_state_dict(state["replay"], manifest["segments"], self.checkpoints.read_frames)
        self.env.load_state_dict(state["env"])
        for name in self.COUNTERS:
            setattr(self, name, state["counters"][name])
        self.pending = None if state["pending"] is None else np.asarray(state["pending"], self.ACTION)
        self.averages.load_state_dict(state["averages"], self.device)
        self.timers.seconds = dict(state["timers"])
        self.seconds = state["seconds"]
        logs.cut_back(self.folder.path, state["logs"])


def require_disk(runs: str, run: Path, replay: int, networks: int) -> None:
    """Refuse a run whose saves do not fit: the frames once, and the networks three times while one is being written."""
    try:
        need = replay + 3 * networks - Checkpoints(run / "checkpoint").frame_bytes()
        free = machine.free_disk(Path(runs))
    except (OSError, ValueError) as error:
        raise UserError(f"runs={runs} cannot be a folder ({error})") from error
    if need > free:
        raise UserError(
            f"saving needs {machine.gigabytes(need)} of disk, {machine.gigabytes(replay)} of it for the replay, but {runs} has "
            f"{machine.gigabytes(free)} free: set runs=... to another disk or lower replay.capacity"
        )


def quiet_threads() -> None:
    """A write that fails in TensorBoard's thread is raised again in the loop: one line there, no traceback beside it."""
    usual = threading.excepthook
    threading.excepthook = lambda a: None if isinstance(a.exc_value, OSError) else usual(a)
