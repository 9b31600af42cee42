"""Faults of scripts/torture.py from outside: signals, disks, permissions, neighbours; and the list of all faults."""

import dataclasses
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.torture.damage import crafted, crash, damage, not_finite
from scripts.torture.process import (
    EVALUATING,
    NOBODY,
    PATIENCE,
    PHASES,
    SAVING,
    STARTING,
    TRAINING,
    Row,
    Tree,
    Victim,
    differences,
    finish,
    newest_step,
    one_line,
    saves,
    went_back,
)


def kill(tree: Tree, runs: Path, count: int, dice: random.Random) -> list[Row]:
    """SIGKILL at random moments, the same run again and again until it has finished; then the next."""
    table = {phase: Row(f"SIGKILL in {PHASES[phase]}") for phase in (STARTING, TRAINING, EVALUATING, SAVING)}
    spans = {STARTING: 0.4, TRAINING: 0.5, EVALUATING: 0.3, SAVING: 0.03}
    killed, chain, number = 0, [], 0
    while killed < count:
        folder = runs / f"kill{number}"
        saved = newest_step(folder / tree.folder)
        victim = Victim(tree, folder)
        aim = dice.choices((STARTING, TRAINING, EVALUATING, SAVING), (1, 4, 4, 6))[0]
        if aim == STARTING or victim.reach(aim, dice.randint(1, 2) if aim == SAVING else 1):
            time.sleep(dice.uniform(0, 1.1 * spans[aim]))
        hit = victim.phase
        victim.send(signal.SIGKILL)
        ended = victim.wait()
        spans |= {p: victim.seconds(p) for p in (EVALUATING, SAVING) if victim.seconds(p) > 0}
        wrong = went_back(tree, victim, saved)
        if ended == -signal.SIGKILL:
            killed += 1
            chain.append(table[hit if hit in table else TRAINING])
            chain[-1].note(wrong)
        elif ended != 0:
            wrong.append(f"ended by itself with {ended}: {victim.said[-200:]}")
        over = ended == 0 or killed == count
        if over or wrong:
            wrong += finish(tree, folder)
            if wrong and chain:
                chain[-1].survived -= 1
                chain[-1].lost += wrong
            chain, number = [], number + 1
    return list(table.values())


def stop(tree: Tree, runs: Path, count: int, dice: random.Random) -> list[Row]:
    """One signal: a save, a last line that says so, 128 + number."""
    table = []
    for signum, label in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")):
        row = Row(label)
        while row.tried < count:
            folder = runs / f"{label}{time.monotonic_ns()}"
            victim = Victim(tree, folder)
            victim.reach(dice.choice((TRAINING, EVALUATING, SAVING)))
            time.sleep(dice.uniform(0, 0.3))
            victim.send(signum)
            if victim.wait() == 0:
                continue  # it had finished
            last = victim.said.strip().splitlines()[-1]
            wrong = [] if victim.code == 128 + signum else [f"exit code {victim.code}"]
            wrong += [] if last.startswith("stopped at") else [f"the last line is {last!r}"]
            row.note(wrong + finish(tree, folder))
        table.append(row)
    row = Row("Ctrl-C twice")
    while row.tried < count:
        folder = runs / f"twice{time.monotonic_ns()}"
        victim = Victim(tree, folder)
        victim.reach(dice.choice((TRAINING, SAVING)), dice.randint(1, 2))
        time.sleep(dice.uniform(0, 0.2))
        victim.send(signal.SIGINT)
        time.sleep(dice.uniform(0.002, 0.05))
        saved = newest_step(victim.run)
        start = time.monotonic()
        victim.send(signal.SIGINT)
        if victim.wait() == 0:
            continue
        wrong = [] if victim.code == 130 else [f"exit code {victim.code}"]
        wrong += [] if time.monotonic() - start < 1 else ["it did not end at once"]
        wrong += [] if saved is None or (newest_step(victim.run) or -1) >= saved else ["the last save was harmed"]
        row.note(wrong + finish(tree, folder))
    return [*table, row]


def disk(tree: Tree, runs: Path, count: int, dice: random.Random) -> list[Row]:
    """No file may grow any more (EFBIG), or a small disk is full (ENOSPC)."""
    row = Row("file-size limit in mid-run")
    largest = max(p.stat().st_size for p in tree.reference.rglob("*") if p.is_file())
    while row.tried < count:
        folder = runs / f"limit{time.monotonic_ns()}"
        victim = Victim(tree, folder)
        victim.reach(dice.choice((TRAINING, EVALUATING, SAVING)))
        time.sleep(dice.uniform(0, 0.5))
        if victim.alive():
            resource.prlimit(victim.pid, resource.RLIMIT_FSIZE, (int(10 ** dice.uniform(2, math.log10(largest))), resource.RLIM_INFINITY))
        if victim.wait() == 0:
            shutil.rmtree(folder)
            continue
        row.note(one_line(victim, 1, "File too large") + finish(tree, folder))
    table = [row]
    row = Row("disk full (small tmpfs)")
    whole = sum(p.stat().st_size for p in tree.reference.rglob("*") if p.is_file())
    for number in range(count):
        folder = runs / f"tmpfs{number}"
        folder.mkdir()
        size = max(64, int(whole * dice.uniform(0.3, 0.9)) // 1024)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], capture_output=True).returncode:
            break  # only root may mount
        try:
            victim = Victim(tree, folder, ("checkpoint.keep_replay=true",), prepare=_no_disk_check)
            if victim.wait() == 0:
                continue
            wrong = one_line(victim, 1, "No space left")
            subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)
            row.note(wrong + finish(tree, folder))
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    return [*table, row] if row.tried else table


def _no_disk_check() -> None:
    """The refusal at the start would see the small disk at once: here it fills up under way."""
    for name in ("DMControl.train", "Atari.train"):
        if name in sys.modules:
            sys.modules[name].require_disk = lambda *arguments: None


def read_only(tree: Tree, runs: Path, count: int, dice: random.Random) -> list[Row]:
    """The run folder may not be written: from the start, or all of a sudden."""
    first, second = Row("read-only run folder at the start"), Row("read-only run folder in mid-run")

    def powerless() -> None:
        """Root writes everywhere: be nobody from the moment the folder is opened."""
        begin = tree.train.Trainer.open

        def humble(self: Any, *arguments: Any) -> Any:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            return begin(self, *arguments)

        tree.train.Trainer.open = humble

    for number in range(count):
        folder = runs / f"locked{number}"
        (folder / tree.folder).mkdir(parents=True)
        with hands_off(folder):
            victim = Victim(tree, folder, prepare=powerless)
            victim.wait()
        first.note(one_line(victim, 2, "cannot be written") + finish(tree, folder))
    while second.tried < count:
        folder = runs / f"locking{time.monotonic_ns()}"
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        victim = Victim(tree, folder, prepare=powerless)
        victim.reach(SAVING, dice.randint(1, 2))
        while victim.phase == SAVING and victim.alive():
            time.sleep(0.001)
        with hands_off(folder):
            victim.wait()
        if victim.code == 0:
            continue
        second.note(one_line(victim, 1, "Permission denied") + finish(tree, folder))
    return [first, second]


@contextmanager
def hands_off(folder: Path):
    inside = [p for p in folder.rglob("*") if p.is_dir()]
    for p in [folder, *inside]:
        p.chmod(0o555)
    try:
        yield
    finally:
        for p in [folder, *inside]:
            p.chmod(0o755)


def two(tree: Tree, runs: Path, count: int, dice: random.Random) -> list[Row]:
    row = Row("a second process on the run folder")
    for number in range(count):
        folder = runs / f"two{number}"
        first = Victim(tree, folder)
        first.reach(dice.choice((TRAINING, EVALUATING)))
        second = Victim(tree, folder)
        second.wait()
        wrong = one_line(second, 2, "another process")
        wrong += [] if first.wait() == 0 else [f"the first ended with {first.code}"]
        row.note(wrong + (differences(first.run, tree.reference) if not wrong else []))
    return [row]


def crowd(trees: list[Tree], runs: Path) -> tuple[Row, str]:
    """Eight runs at once; their threads and memory while they run."""
    row = Row("eight runs side by side")
    start = time.monotonic()
    victims = [Victim(trees[n % len(trees)], runs / f"crowd{n}") for n in range(8)]
    threads, memory = [0] * 8, [0] * 8
    while sum(v.alive() for v in victims):
        for n, victim in enumerate(victims):
            try:
                status = Path(f"/proc/{victim.pid}/status").read_text()
            except OSError:
                continue
            for key, table in (("Threads", threads), ("VmRSS", memory)):
                found = re.search(rf"{key}:\s+(\d+)", status)
                table[n] = max(table[n], int(found[1]) if found else 0)
        time.sleep(0.05)
        if time.monotonic() - start > 4 * PATIENCE:
            raise RuntimeError("eight runs side by side hang")
    for victim in victims:
        wrong = [] if victim.code == 0 else [f"exit code {victim.code}: {victim.said[-200:]}"]
        row.note(wrong or differences(victim.run, victim.tree.reference))
    note = f"eight at once: {time.monotonic() - start:.0f} s, at most {max(threads)} threads and {max(memory) / 2**20:.2f} GB each"
    return row, note


def stall(tree: Tree, runs: Path) -> str:
    """How long a save holds up a run of the paper preset whose replay is full."""

    def measure(trainer: Any) -> int:
        import torch

        agent, replay = trainer.agent, trainer.replay
        for optimizer in agent._optimizers().values() if hasattr(agent, "_optimizers") else [agent.optimizer]:
            for p in optimizer.parameters:
                p.grad = torch.zeros_like(p)
            optimizer.step()  # moments come with the first step
        filled = replay.capacity
        replay.frames.random_(0, 256)
        replay.added = filled
        if hasattr(replay, "host"):
            replay.frames_added = filled
        times = []
        for fresh in (1, 2500, 2500):
            replay.saved_frames = filled - fresh
            trainer.step += fresh
            start = time.perf_counter()
            type(trainer).__mro__[1].save(trainer)
            times.append(time.perf_counter() - start)
        newest = saves(trainer.folder.path)[0]
        constant = sum(p.stat().st_size for p in newest.iterdir())
        frame = replay.frames[0].numel()
        small = sum(v.nbytes for v in replay.state_dict()["arrays"].values())
        print(
            f"stall: {max(times[1:]):.2f} s: {2500 * frame / 2**20:.0f} MB of 2,500 new frames, {constant / 2**20:.0f} MB of networks, "
            f"moments and the rest, {small / 2**20:.1f} MB of it for actions and rewards of {filled:,} transitions"
        )
        return 0

    def prepare() -> None:
        tree.train.Trainer.train = measure

    settings = ["preset=paper", "eval.video=false", "device=cpu", "env_steps=1000000" if tree.name == "DMControl" else "steps=100000"]
    victim = Victim(dataclasses.replace(tree, settings=settings), runs, prepare=prepare)
    victim.wait()
    found = re.search(r"stall: (.*)", victim.said)
    return f"{tree.name}: a save at the paper preset takes {found[1] if found else victim.said[-300:]}"


FAULTS: dict[str, Callable[[Tree, Path, int, random.Random], list[Row]]] = {
    "kill": kill, "stop": stop, "disk": disk, "read_only": read_only, "damage": damage, "two": two, "nan": not_finite, "crash": crash,
    "crafted": crafted,
}  # fmt: skip
EXTRA = ("crowd", "stall")
