"""Faults from outside: signals, disks, permissions, other processes; and the list of all faults."""

import dataclasses
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from scripts.torture.comparison import differences, newest_step, saves
from scripts.torture.damage import crafted_pickle, crash, damaged_saves, not_finite, surroundings
from scripts.torture.process import (
    EVALUATING,
    PATIENCE,
    PHASES,
    SAVING,
    STARTING,
    TRAINING,
    Result,
    Setup,
    TrainingProcess,
    check_error,
    check_exit,
    check_resume,
    finish,
)

NOBODY = 65534  # the user without rights
EIGHT = 8


def kill(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    """SIGKILL at random moments: the same run again and again until it has finished, then the next one."""
    results = {phase: Result(f"SIGKILL in {PHASES[phase]}") for phase in (STARTING, TRAINING, EVALUATING, SAVING)}
    seconds = {STARTING: 0.4, TRAINING: 0.5, EVALUATING: 0.3, SAVING: 0.03}  # how long each phase takes
    killed, last, number = 0, None, 0
    while killed < count:
        folder = runs / f"kill{number}"
        saved = newest_step(setup.run_folder(folder))
        training = TrainingProcess(setup, folder)
        target = dice.choices((STARTING, TRAINING, EVALUATING, SAVING), (1, 4, 4, 6))[0]
        if target == STARTING or training.wait_for(target, dice.randint(1, 2) if target == SAVING else 1):
            time.sleep(dice.uniform(0, 1.1 * seconds[target]))
        phase = training.phase
        training.send(signal.SIGKILL)
        training.wait()
        seconds |= {p: training.seconds(p) for p in (EVALUATING, SAVING) if training.seconds(p) > 0}
        problems = check_resume(training, saved)
        if training.code == -signal.SIGKILL:
            killed += 1
            last = results.get(phase, results[TRAINING])
            last.record(problems)
        else:
            problems += check_exit(training, 0)
        if training.code == 0 or killed == count or problems:
            problems += finish(setup, folder)
            if problems and last:  # the run did not survive its last kill
                last.survived -= 1
                last.lost += problems
            last, number = None, number + 1
    return list(results.values())


def stop(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    """One signal: a save, a last line that says so, exit code 128 + number."""
    results = []
    for number, label in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")):
        result = Result(label)
        while result.tried < count:
            folder = runs / f"{label}{time.monotonic_ns()}"
            training = TrainingProcess(setup, folder)
            training.wait_for(dice.choice((TRAINING, EVALUATING, SAVING)))
            time.sleep(dice.uniform(0, 0.3))
            training.send(number)
            if training.wait() == 0:
                continue  # it had finished
            last = training.output.strip().splitlines()[-1]
            problems = check_exit(training, 128 + number) + ([] if last.startswith("stopped at") else [f"the last line is {last!r}"])
            result.record(problems + finish(setup, folder))
        results.append(result)
    return [*results, stop_twice(setup, runs, count, dice)]


def stop_twice(setup: Setup, runs: Path, count: int, dice: random.Random) -> Result:
    """The second Ctrl-C ends the training at once, and leaves the last save as it was."""
    result = Result("Ctrl-C twice")
    while result.tried < count:
        folder = runs / f"twice{time.monotonic_ns()}"
        training = TrainingProcess(setup, folder)
        training.wait_for(dice.choice((TRAINING, SAVING)), dice.randint(1, 2))
        time.sleep(dice.uniform(0, 0.2))
        training.send(signal.SIGINT)
        time.sleep(dice.uniform(0.002, 0.05))
        saved, start = newest_step(training.run), time.monotonic()
        training.send(signal.SIGINT)
        if training.wait() == 0:
            continue
        problems = check_exit(training, 130)
        problems += [] if time.monotonic() - start < 5 else ["it did not end at once"]
        problems += [] if saved is None or (newest_step(training.run) or -1) >= saved else ["the last save was lost"]
        result.record(problems + finish(setup, folder))
    return result


def full_disk(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    """No file may grow any more (EFBIG), or a small disk is full (ENOSPC)."""
    sizes = [p.stat().st_size for p in setup.reference.rglob("*") if p.is_file()]
    limited = Result("file-size limit in mid-run")
    while limited.tried < count:
        folder = runs / f"limit{time.monotonic_ns()}"
        training = TrainingProcess(setup, folder)
        training.wait_for(dice.choice((TRAINING, EVALUATING, SAVING)))
        time.sleep(dice.uniform(0, 0.5))
        if training.alive():
            limit = int(10 ** dice.uniform(2, math.log10(max(sizes))))
            resource.prlimit(training.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        if training.wait() == 0:
            shutil.rmtree(folder)
            continue
        limited.record(check_error(training, 1, "File too large") + finish(setup, folder))
    full = Result("disk full (small tmpfs)")
    for number in range(count):
        folder = runs / f"tmpfs{number}"
        folder.mkdir()
        size = max(64, int(sum(sizes) * dice.uniform(0.3, 0.9)) // 1024)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], capture_output=True).returncode:
            break  # only root may mount
        try:
            training = TrainingProcess(setup, folder, prepare=lambda: skip_disk_check(setup))
            if training.wait() == 0:
                continue
            problems = check_error(training, 1, "No space left")
            subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)
            full.record(problems + finish(setup, folder))
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    return [limited, full, full_output(setup, runs, count, dice)]


def full_output(setup: Setup, runs: Path, count: int, dice: random.Random) -> Result:
    """Standard output takes nothing more. The error goes to standard error, and where that is full too, the exit code says it."""
    result = Result("output that takes nothing more")
    for number in range(count):
        for streams in ((1,), (1, 2)):

            def fill(streams: tuple[int, ...] = streams) -> None:
                for stream in streams:
                    os.dup2(os.open("/dev/full", os.O_WRONLY), stream)

            folder = runs / f"output{number}{len(streams)}"
            training = TrainingProcess(setup, folder, prepare=fill)
            training.wait()
            result.record(
                (check_error(training, 1, "No space left") if streams == (1,) else check_exit(training, 1)) + finish(setup, folder)
            )
    return result


def skip_disk_check(setup: Setup) -> None:
    """The check at the start would refuse the small disk; here it must fill up during the run."""
    setup.tree.load("train").require_disk = lambda *arguments: None


def read_only(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    """The run folder may not be written: from the start, or all of a sudden."""
    first, second = Result("read-only run folder at the start"), Result("read-only run folder in mid-run")

    def without_rights() -> None:
        """Root may write everywhere, so become another user before the run folder is opened."""
        module = setup.tree.load("train")
        real = module.RunFolder
        module.RunFolder = lambda *arguments: (become_nobody(), real(*arguments))[1]

    for number in range(count):
        folder = runs / f"locked{number}"
        setup.run_folder(folder).mkdir(parents=True)
        with write_protected(folder):
            training = TrainingProcess(setup, folder, prepare=without_rights)
            training.wait()
        first.record(check_error(training, 2, "cannot be written") + finish(setup, folder))
    while second.tried < count:
        folder = runs / f"locking{time.monotonic_ns()}"
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        training = TrainingProcess(setup, folder, prepare=without_rights)
        training.wait_for(SAVING, dice.randint(1, 2))
        while training.phase == SAVING and training.alive():
            time.sleep(0.001)
        with write_protected(folder):
            training.wait()
        if training.code == 0:
            continue
        second.record(check_error(training, 1, "Permission denied") + finish(setup, folder))
    return [first, second]


def become_nobody() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


@contextmanager
def write_protected(folder: Path) -> Iterator[None]:
    folders = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
    for p in folders:
        p.chmod(0o555)
    try:
        yield
    finally:
        for p in folders:
            p.chmod(0o755)


def second_process(setup: Setup, runs: Path, count: int, dice: random.Random) -> list[Result]:
    result = Result("a second process on the run folder")
    for number in range(count):
        first = TrainingProcess(setup, runs / f"two{number}")
        first.wait_for(dice.choice((TRAINING, EVALUATING)))
        second = TrainingProcess(setup, runs / f"two{number}")
        second.wait()
        first.wait()
        problems = check_error(second, 2, "another process") + check_exit(first, 0)
        result.record(problems or differences(first.run, setup.reference))
    return [result]


def side_by_side(setups: list[Setup], runs: Path) -> tuple[Result, str]:
    """Eight runs at once, with the threads and the memory that each of them took at most."""
    result, start = Result("eight runs side by side"), time.monotonic()
    trainings = [TrainingProcess(setups[n % len(setups)], runs / f"run{n}") for n in range(EIGHT)]
    most = {"Threads": 0, "VmRSS": 0}
    while sum(training.alive() for training in trainings):
        for training in trainings:
            try:
                status = Path(f"/proc/{training.pid}/status").read_text()
            except OSError:
                continue  # it has just ended
            for key in most:
                found = re.search(rf"{key}:\s+(\d+)", status)
                most[key] = max(most[key], int(found[1]) if found else 0)
        time.sleep(0.05)
        if time.monotonic() - start > 4 * PATIENCE:
            raise RuntimeError("eight runs side by side hang")
    for training in trainings:
        result.record(check_exit(training, 0) or differences(training.run, training.setup.reference))
    seconds = time.monotonic() - start
    return result, f"eight at once: {seconds:.0f} s, at most {most['Threads']} threads and {most['VmRSS'] / 2**20:.2f} GB each"


def save_duration(setup: Setup, runs: Path, settings: list[str]) -> str:
    """How long a save holds up a run of these settings whose replay is full."""

    def measure(trainer: Any) -> int:
        replay, filled, times = trainer.replay, trainer.replay.capacity, []
        for optimizer in trainer.agent.optimizers.values():
            for p in optimizer.parameters:
                p.grad = torch.zeros_like(p)
            optimizer.step()  # moments come with the first step
        replay.store.frames.random_(0, 256)
        replay.added = filled
        if "frames_added" in vars(replay):
            replay.frames_added = filled
        for fresh in (1, 2500, 2500):
            replay.store.saved = filled - fresh
            trainer.step += fresh
            start = time.perf_counter()
            trainer.save()
            times.append(time.perf_counter() - start)
        constant = sum(p.stat().st_size for p in saves(trainer.folder.path)[0].iterdir())
        frames, small = 2500 * replay.store.frames[0].numel(), sum(v.nbytes for v in replay.state_dict()["arrays"].values())
        print(
            f"duration: {max(times[1:]):.2f} s: {frames / 2**20:.0f} MB of 2,500 new frames, {constant / 2**20:.0f} MB of networks, "
            f"moments and the rest, {small / 2**20:.1f} MB of it for actions and rewards of {filled:,} transitions"
        )
        return 0

    def prepare() -> None:
        setup.tree.load("train").Trainer.train = measure

    training = TrainingProcess(dataclasses.replace(setup, settings=settings), runs, prepare=prepare)
    training.wait()
    found = re.search(r"duration: (.*)", training.output)
    return f"{setup.tree.package}: a save at the paper preset takes {found[1] if found else training.output[-300:]}"


FAULTS: dict[str, Callable[[Setup, Path, int, random.Random], list[Result]]] = {
    "kill": kill, "stop": stop, "disk": full_disk, "read_only": read_only, "damage": damaged_saves, "two": second_process,
    "nan": not_finite, "crash": crash, "crafted": crafted_pickle,
    "surroundings": surroundings,
}  # fmt: skip
EXTRA = ("crowd", "stall")
