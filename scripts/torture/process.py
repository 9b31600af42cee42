"""A training in a process of its own that can be watched and disturbed, and what is checked when it has ended."""

import contextlib
import mmap
import os
import re
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from DMControl.core.errors import run_main
from scripts.torture.comparison import differences, newest_step
from scripts.trees import Tree

STARTING, TRAINING, EVALUATING, SAVING, ENDING = range(5)
PHASES = ("starting", "training", "evaluation", "a save", "the end")
METHODS = {"train": TRAINING, "evaluate": EVALUATING, "save": SAVING, "finish": ENDING}  # of a Trainer
PATIENCE = 300  # seconds after which a training counts as hung


@dataclass
class Setup:
    """The runs of one tree: all have these settings, and so end alike."""

    tree: Tree
    settings: list[str]
    reference: Path | None = None  # the undisturbed run

    @cached_property
    def config(self) -> Any:
        return self.tree.read_config(self.settings)

    def run_folder(self, runs: Path) -> Path:
        return runs / self.tree.load("settings").run_path(self.config).relative_to(self.config.runs)


@dataclass
class Result:
    """How often a fault was tried, how often the run survived it, and what was lost otherwise."""

    fault: str
    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)

    def record(self, problems: list[str]) -> None:
        self.tried += 1
        self.survived += not problems
        self.lost += problems


class TrainingProcess:
    """A training forked from this process, so that the libraries are imported once. Its phase can be read from here.

    `prepare` is called in the new process before the training begins; it is where a fault is planted.
    """

    def __init__(self, setup: Setup, runs: Path, extra: tuple[str, ...] = (), prepare: Callable[[], None] | None = None) -> None:
        runs.mkdir(parents=True, exist_ok=True)
        self.setup, self.run = setup, setup.run_folder(runs)
        self.log = runs / f"output{time.monotonic_ns()}.log"
        self.log.touch()
        self.shared = mmap.mmap(-1, 64)  # the phase, how often each was entered, and how long each took last
        self.code: int | None = None
        with open(self.log, "ab") as log:
            self.writer = subprocess.Popen(
                ["cat"], stdin=subprocess.PIPE, stdout=log
            )  # a limit on the training's files does not cut its output
        self.pid = os.fork()
        if self.pid == 0:
            self._train([*setup.settings, f"runs={runs}", *extra], prepare)
        self.writer.stdin.close()

    def _train(self, arguments: list[str], prepare: Callable[[], None] | None) -> None:
        code = 70
        try:
            for number in (1, 2):
                os.dup2(self.writer.stdin.fileno(), number)
            sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            module = self.setup.tree.load("train")
            for name, phase in METHODS.items():
                setattr(module.Trainer, name, self._tracked(getattr(module.Trainer, name), phase))
            if prepare:
                prepare()
            sys.argv = ["train", *arguments]
            sys.stdout.reconfigure(line_buffering=True)
            run_main(module.main)
        except SystemExit as ending:
            code = int(ending.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(code)

    def _tracked(self, method: Callable, phase: int) -> Callable:
        """The method, which also tells the phase to the watching process."""

        def tracked(trainer: Any) -> Any:
            before, start = self.shared[0], time.perf_counter()
            self.shared[0] = phase
            self.shared[1 + phase] = (self.shared[1 + phase] + 1) % 256
            try:
                return method(trainer)
            finally:
                struct.pack_into("d", self.shared, 16 + 8 * phase, time.perf_counter() - start)
                self.shared[0] = before

        return tracked

    @property
    def phase(self) -> int:
        return self.shared[0]

    @property
    def output(self) -> str:
        return self.log.read_text()

    def seconds(self, phase: int) -> float:
        """How long the phase took last."""
        return struct.unpack_from("d", self.shared, 16 + 8 * phase)[0]

    def alive(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def wait_for(self, phase: int, entry: int = 1) -> bool:
        """Wait until this phase was entered that many times and goes on; False if the training ended before."""
        limit = time.monotonic() + PATIENCE
        while self.alive() and time.monotonic() < limit:
            if self.phase == phase and self.shared[1 + phase] >= entry:
                return True
            time.sleep(0.0002)
        return False

    def send(self, number: int) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code; minus the signal's number where a signal ended it."""
        limit = time.monotonic() + PATIENCE
        while self.alive():
            if time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
                raise RuntimeError(f"{self.setup.tree.package}: a training hung; its output ends with: {self.output[-500:]}")
            time.sleep(0.002)
        self.writer.wait(PATIENCE)
        return self.code


# ---- checks. Each returns what went wrong, in words; nothing if all is well.


def finish(setup: Setup, runs: Path) -> list[str]:
    """Run the same command again until the run has finished, then compare it with the undisturbed one."""
    before = newest_step(setup.run_folder(runs))
    training = TrainingProcess(setup, runs)
    if training.wait() != 0:
        return [f"the restart ended with code {training.code}: {training.output.strip().splitlines()[-1:]}"]
    return check_resume(training, before) + differences(training.run, setup.reference)


def check_resume(training: TrainingProcess, saved: int | None) -> list[str]:
    """A restart must not begin before the save of that step."""
    if saved is None or "has finished" in training.output:
        return []
    found = re.search(r"resumed at ([\d,]+)", training.output)
    step = int(found[1].replace(",", "")) // training.setup.tree.repeat(training.setup.config) if found else -1
    if found is None and "run: " not in training.output:
        return []  # it was killed before it could say so
    return [] if step >= saved else [f"the save of step {saved} was lost (resumed at {step})"]


def check_exit(training: TrainingProcess, code: int) -> list[str]:
    return [] if training.code == code else [f"exit code {training.code} in place of {code}: {training.output[-300:]}"]


def check_error(training: TrainingProcess, code: int, pattern: str) -> list[str]:
    """The training must have ended with this code and one line of error."""
    lines = [line for line in training.output.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    problems = check_exit(training, code)
    if "Traceback" in training.output:
        problems.append("a traceback: " + training.output[training.output.index("Traceback") - 300 :][:1500])
    if not (len(errors) == 1 and re.search(pattern, errors[0])):
        problems.append(f"no clear line ({pattern}): {lines[-1:]}")
    return problems
