"""Training processes that can be watched while they are injured, and what their runs left."""

import csv
import hashlib
import json
import mmap
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

STARTING, TRAINING, EVALUATING, SAVING, ENDING = range(5)
PHASES = ("starting", "training", "evaluation", "a save", "the end")
NOBODY = 65534
PATIENCE = 300  # seconds until a victim counts as hung


@dataclass
class Tree:
    name: str
    train: ModuleType
    settings: list[str]
    folder: str  # of a run, below runs
    repeat: int  # simulator steps of an agent step
    reference: Path | None = None  # the undisturbed run


@dataclass
class Row:
    fault: str
    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)

    def note(self, wrong: list[str]) -> None:
        self.tried += 1
        self.survived += not wrong
        self.lost += wrong


class Victim:
    """A training process whose phase can be watched from here."""

    def __init__(self, tree: Tree, runs: Path, extra: tuple[str, ...] = (), prepare: Callable[[], None] | None = None) -> None:
        runs.mkdir(parents=True, exist_ok=True)
        self.tree, self.run = tree, runs / tree.folder
        self.log = runs / f"victim{time.monotonic_ns()}.log"
        self.log.touch()
        self.shared = mmap.mmap(-1, 64)  # phase, entries into it, and how long the last save and evaluation took
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._live([*tree.settings, f"runs={runs}", *extra], prepare)

    def _live(self, arguments: list[str], prepare: Callable[[], None] | None) -> None:
        code = 70
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            trainer = self.tree.train.Trainer
            for name, phase in (("train", TRAINING), ("evaluate", EVALUATING), ("save", SAVING), ("finish", ENDING)):
                setattr(trainer, name, self._marked(getattr(trainer, name), phase))
            if prepare:
                prepare()
            sys.argv = ["train", *arguments]
            sys.stdout.reconfigure(line_buffering=True)
            self.tree.train.run_main(self.tree.train.main)
        except SystemExit as ending:
            code = int(ending.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _marked(self, method: Callable, phase: int) -> Callable:
        def marked(trainer: Any) -> Any:
            before, start = self.shared[0], time.perf_counter()
            self.shared[0] = phase
            self.shared[1 + phase] = (self.shared[1 + phase] + 1) % 256
            try:
                return method(trainer)
            finally:
                struct.pack_into("d", self.shared, 16 + 8 * phase, time.perf_counter() - start)
                self.shared[0] = before

        return marked

    @property
    def phase(self) -> int:
        return self.shared[0]

    def seconds(self, phase: int) -> float:
        return struct.unpack_from("d", self.shared, 16 + 8 * phase)[0]

    def entries(self, phase: int) -> int:
        return self.shared[1 + phase]

    @property
    def said(self) -> str:
        return self.log.read_text()

    def alive(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def reach(self, phase: int, entry: int = 1) -> bool:
        """Wait until it is in this phase for at least the n-th time; False if it ended before."""
        limit = time.monotonic() + PATIENCE
        while self.alive() and time.monotonic() < limit:
            if self.phase == phase and self.entries(phase) >= entry:
                return True
            time.sleep(0.0002)
        return False

    def send(self, number: int) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def wait(self) -> int:
        limit = time.monotonic() + PATIENCE
        while self.alive():
            if time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
                raise RuntimeError(f"{self.tree.name}: a victim hung; it said: {self.said[-500:]}")
            time.sleep(0.002)
        return self.code


# ---- what a run left


def saves(run: Path) -> list[Path]:
    from DMControl.core.run.checkpoint import Checkpoints

    return Checkpoints(run / "checkpoint").complete()


def newest_step(run: Path) -> int | None:
    found = saves(run)
    return json.loads((found[0] / "manifest.json").read_text())["step"] if found else None


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        found = list(csv.DictReader(opened))
    return [{k: v for k, v in r.items() if k not in ("hours", "env/restarts") and not k.startswith(("time/", "perf/"))} for r in found]


def points(run: Path) -> dict[str, list]:
    """TensorBoard's points, as its own reader finds them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    out: dict[str, list] = {}
    for tag in tags["scalars"]:
        if not tag.startswith(("time/", "perf/", "env/")) and tag != "final/hours":
            out[tag] = sorted((e.step, e.value) for e in events.Scalars(tag))
    for tag in tags["images"]:
        out[tag] = sorted((e.step, hashlib.sha256(e.encoded_image_string).hexdigest()) for e in events.Images(tag))
    return out


def state(run: Path) -> dict[str, Any]:
    """Everything in the newest save, as flat tensors and values; the frames by their numbers."""
    import torch

    folder = saves(run)[0]
    out: dict[str, Any] = {}
    for name in ("agent", "state"):
        flatten(torch.load(folder / f"{name}.pt", weights_only=True), name, out)
    frames = b""
    for segment in json.loads((folder / "manifest.json").read_text())["segments"]:
        frames += (run / "checkpoint" / "frames" / segment["file"]).read_bytes()
    size = int(len(frames) and json.loads((folder / "manifest.json").read_text())["segments"][-1]["count"])
    out["frames"] = hashlib.sha256(frames[-size:]).hexdigest() if size else ""
    timed = ("state.timers", "state.seconds", "state.logs", "state.counters.restarts")
    return {k: v for k, v in out.items() if not k.startswith(timed)}


def flatten(value: Any, name: str, out: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for k, v in value.items():
            flatten(v, f"{name}.{k}", out)
    elif isinstance(value, list):
        for k, v in enumerate(value):
            flatten(v, f"{name}.{k}", out)
    else:
        out[name] = value


def all_frames(run: Path) -> str:
    """The pixels of the frames that the newest save needs, by number, however they are spread over files."""
    folder = saves(run)[0]
    segments = json.loads((folder / "manifest.json").read_text())["segments"]
    parts = [(s["first"], s["count"], (run / "checkpoint" / "frames" / s["file"]).read_bytes()) for s in segments]
    last = max(first + count for first, count, _ in parts)
    slots = 100  # of the ring: those that can still be drawn
    pixels = {first + i: data[i * len(data) // count : (i + 1) * len(data) // count] for first, count, data in parts for i in range(count)}
    return hashlib.sha256(b"".join(pixels[n] for n in range(max(0, last - slots), last))).hexdigest()


def differences(run: Path, reference: Path) -> list[str]:
    import torch

    wrong = [f"{name} differs" for name in ("train.csv", "eval.csv") if rows(run / name) != rows(reference / name)]
    ours, theirs = points(run), points(reference)
    wrong += [f"TensorBoard {tag} differs" for tag in sorted(ours.keys() | theirs.keys()) if ours.get(tag) != theirs.get(tag)]
    ours, theirs = state(run), state(reference)
    ours["frames"], theirs["frames"] = all_frames(run), all_frames(reference)
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name), theirs.get(name)
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        if not same:
            wrong.append(f"{name} differs")
    keys = ("eval_returns", "seed", "env_steps", "frames")
    a, b = (json.loads((r / "result.json").read_text()) for r in (run, reference))
    wrong += [f"result.json: {k} differs" for k in keys if a.get(k) != b.get(k)]
    return wrong if len(wrong) < 6 else [*wrong[:5], f"and {len(wrong) - 5} more"]


def finish(tree: Tree, runs: Path) -> list[str]:
    """Give the same command again until the run has finished, then compare it; what was lost or went wrong."""
    run = runs / tree.folder
    before = newest_step(run)
    victim = Victim(tree, runs)
    if victim.wait() != 0:
        return [f"the restart ended with code {victim.code}: {victim.said.strip().splitlines()[-1:]}"]
    return went_back(tree, victim, before) + differences(run, tree.reference)


def went_back(tree: Tree, victim: Victim, saved: int | None) -> list[str]:
    """Whether the restart began before the save that was there."""
    if saved is None or "has finished" in victim.said:
        return []
    found = re.search(r"resumed at ([\d,]+)", victim.said)
    step = int(found[1].replace(",", "")) // tree.repeat if found else -1
    if found is None and "run: " not in victim.said:
        return []  # it was killed before it could say so
    return [] if step >= saved else [f"the save of step {saved} was lost (resumed at {step})"]


def one_line(victim: Victim, code: int, says: str) -> list[str]:
    """It must have ended with this code and one clear line."""
    lines = [line for line in victim.said.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    wrong = [] if victim.code == code else [f"exit code {victim.code} in place of {code}: {lines[-1:]}"]
    if "Traceback" in victim.said:
        wrong.append(f"a traceback: {lines[-1]}")
    if not (len(errors) == 1 and re.search(says, errors[0])):
        wrong.append(f"no clear line ({says}): {lines[-1:]}")
    return wrong
