"""A GPU's first quarter of an hour: does everything work there, how fast is it, and runs at the published setting.

scripts/gpu.sh --help tells the options. This program starts all else as programs of their own and holds no GPU itself.
"""

import contextlib
import csv
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from DMControl.core.errors import UserError, run_main
from DMControl.renderer import BACKENDS, PROBED, find, probe
from scripts.runs import gpu_tests, processes
from scripts.runs.gpu_tests import Outcome
from scripts.runs.options import take, unknown
from scripts.runs.processes import Program
from scripts.trees import ATARI, DMCONTROL, TREES, Tree

PACKING = 20.0  # seconds for the end, beside those for saving
STEP = 120.0  # seconds that the tests may take, and the measurements
LOOK = """
import json, os, torch
import Atari.train
from DMControl.core.machine import choose_device, describe
print(json.dumps([torch.__version__, describe(choose_device("{device}")), len(os.sched_getaffinity(0))]))
"""
MEASUREMENTS = (("bench", "json"), ("bench", "log"), ("profile", "txt"))  # files of each tree
SUMMARY = ("update ", "not recorded", "matrix products", "memory", "environment", "compile:")  # of what bench says
QUEUE = (  # tree, task or game, method, seed: first a pair to compare
    (DMCONTROL, "cartpole_swingup", "mlr", 1), (DMCONTROL, "cartpole_swingup", "baseline", 1),
    (DMCONTROL, "cartpole_swingup", "mlr", 2), (DMCONTROL, "cartpole_swingup", "baseline", 2),
    (DMCONTROL, "ball_in_cup_catch", "mlr", 1), (DMCONTROL, "reacher_easy", "mlr", 1), (ATARI, "pong", "mlr", 1),
)  # fmt: skip
UPDATES = 11_500  # of a run of cartpole_swingup
OTHERWISE = 60.0  # seconds of a run outside its updates


class Stopped(Exception):
    """A signal asks for the end. Its argument is the signal."""


@dataclass
class Session:
    """What the user wants, and what has been found out so far."""

    out: Path  # gets the report and what is packed
    runs: Path
    minutes: float
    rehearse: bool = False
    runs_only: bool = False
    begun: float = field(default_factory=time.monotonic)
    cores: int = 1
    renderers: int = 0  # that work side by side
    plain: set[str] = field(default_factory=set)  # the trees whose updates cannot be recorded here
    failures: int = 0
    programs: list[tuple[tuple, Program]] = field(default_factory=list)  # the runs

    @property
    def device(self) -> str:
        return "cpu" if self.rehearse else "cuda"

    @property
    def preset(self) -> str:
        return "debug" if self.rehearse else "paper"

    @property
    def work(self) -> Path:
        """The folder of the measurements, which a later call finds again."""
        return self.runs / "logs" / "gpu"

    @property
    def left(self) -> float:
        """Seconds until the runs must stop."""
        end = 10.0 if self.rehearse else processes.SAVING + PACKING
        return self.begun + 60 * self.minutes - end - time.monotonic()

    def limit(self, share: float) -> float:
        """Seconds for a step: two minutes, or this share of a shorter session."""
        return max(1.0, min(STEP, 60 * self.minutes * share, self.left))

    def say(self, text: str, aloud: bool = True) -> None:
        """Write to the report at once, so that nothing is lost if the machine goes away."""
        if aloud:
            print(text, flush=True)
        with open(self.out / "report.txt", "a") as file:
            file.write(text + "\n")

    def head(self, text: str) -> None:
        self.say(f"== {text} ({time.monotonic() - self.begun:.0f} s)")

    def settings(self, tree: Tree) -> list[str]:
        return ["compile=false"] if tree.name in self.plain else []


def look(session: Session) -> None:
    """Versions, hardware, and how many renderers work at the same time."""
    program = processes.run([sys.executable, "-c", LOOK.format(device=session.device)], session.work / "look.log", 120.0)
    lines = program.lines()
    program.log.unlink()
    if program.code != 0:
        why = lines[-1] if lines else "torch did not answer"
        raise UserError(f"{why}: this takes a GPU (or --rehearse); packages that are missing can come with --wheels DIR")
    version, hardware, session.cores = json.loads(lines[-1])
    session.head(f"torch {version}, {hardware}, {session.cores} core(s)")
    chosen, reasons = os.environ.get("MUJOCO_GL"), []
    for backend in (chosen,) if chosen else BACKENDS:
        known = {"MUJOCO_GL": backend} if os.environ.get(PROBED) == backend else {}
        variables, reason = (known, "") if known else find(backend)
        if variables:
            os.environ.update(variables)
            wanted = 2 if session.rehearse else 4
            session.renderers = 1 if probe(backend, together=wanted) else wanted
            session.head(f"renderer {backend}, {session.renderers} at a time: " + " ".join(f"{k}={v}" for k, v in variables.items()))
            return
        reasons.append(f"{backend}: {reason}")
    session.failures += 1
    session.head(f"no renderer works, so nothing of DMControl can run: {'; '.join(reasons)}")


def unrecorded(found: list[Outcome]) -> set[str]:
    """The trees in which recording MLR's or the Baseline's update fails. A failure of another method alone does not count."""
    tried = [one for one in found if one.word not in ("passed", "skipped", "no time") and one.name.endswith(("[mlr]", "[baseline]"))]
    return {one.name.split("/")[1] for one in tried if "recorded_update" in one.name}


def run_tests(session: Session) -> None:
    """The tests that need a GPU. Where updates cannot be recorded, the rest goes on without recording."""
    until = time.monotonic() + session.limit(1 / 4)
    names, said = gpu_tests.collect(session.work, session.limit(1 / 4))
    if session.rehearse:
        names = gpu_tests.one_of_each(names)[: 2 * session.cores]  # they are only skipped here
    at_once = min(session.cores, 16)
    found = gpu_tests.run(names, session.work, until - time.monotonic(), at_once, lambda one: session.say(str(one)))
    bad = [one for one in found if one.word != "passed" and not (session.rehearse and one.word == "skipped")]
    session.failures += len(bad) + (not found)
    for one in bad:
        session.say("\n".join([f"---- {one.name}", *one.said[-40:]]), aloud=False)
    session.plain |= unrecorded(found)
    words = [one.word for one in found]
    counted = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)) or f"none found: {said}"
    session.head(f"tests: {counted}" + (f"; updates of {', '.join(sorted(session.plain))} go unrecorded" if session.plain else ""))


def measure(session: Session) -> None:
    """An update of each tree, part by part, and a profile of it."""
    until = time.monotonic() + session.limit(1 / 2)
    for number, tree in enumerate(TREES):
        if tree is DMCONTROL and not session.renderers:
            continue
        file, log, profile = (session.work / f"{name}-{tree.name}.{end}" for name, end in MEASUREMENTS)
        for old in (file, profile):
            old.unlink(missing_ok=True)
        for _ in range(2):
            command = [sys.executable, "-m", "scripts.bench.bench", f"tree={tree.name}", f"preset={session.preset}"]
            command += [f"device={session.device}", f"updates={3 if session.rehearse else 20}", "--json", str(file)]
            command += ["--profile", str(profile), *session.settings(tree)]
            program = processes.run(command, log, max(1.0, until - time.monotonic()) / (len(TREES) - number))
            for line in program.lines():
                if any(word in line for word in SUMMARY) or program.code != 0:
                    session.say(f"{tree.name}: {line.strip()}")
            if file.exists() or tree.name in session.plain or session.rehearse:
                break
            session.plain.add(tree.name)  # once more, without recording
        session.failures += program.code != 0
        if profile.exists():
            session.say(profile.read_text(), aloud=False)
    session.head("measured")


def measured(session: Session, tree: Tree) -> dict[str, float]:
    """What bench found, now or in an earlier call with the same folder."""
    file = session.work / f"bench-{tree.name}.json"
    return json.loads(file.read_text())["results"][0] if file.exists() else {}


def free_gpu_gb() -> float:
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
        return float(subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]) * 2**20 / 1e9
    return math.inf


def side_by_side(session: Session, found: dict[str, float], free_gb: float) -> int:
    """As many runs as can end in the time that is left, and one for the pauses in which they render; as memory and cores allow."""
    if session.rehearse:
        return session.cores
    seconds = UPDATES * found.get("ms_per_update", 40.0) / 1e3 + OTHERWISE
    by_time = max(1, int(session.left / seconds)) + 1
    by_memory = int(free_gb / (found.get("peak_gpu_gb", 9.0) + 1)) if math.isfinite(free_gb) else by_time
    return max(1, min(by_time, by_memory, session.cores // 2))


def values_of(session: Session, tree: Tree, task: str, method: str, seed: int) -> dict[str, str]:
    return {tree.task: task, "method": method, "preset": session.preset, "seed": str(seed), "name": ""}


def folder_of(session: Session, tree: Tree, *run: str | int) -> Path:
    return tree.run_path(values_of(session, tree, *run), session.runs)


def log_of(session: Session, tree: Tree, *run: str | int) -> Path:
    return session.runs / "logs" / tree.name / f"{tree.label(values_of(session, tree, *run))}.log"


def command_of(session: Session, tree: Tree, task: str, method: str, seed: int, threads: int) -> list[str]:
    settings = [f"{tree.task}={task}", f"method={method}", f"preset={session.preset}", f"seed={seed}", f"device={session.device}"]
    settings += [f"threads={threads}", "eval.video=false", f"runs={session.runs}", *session.settings(tree)]
    if not session.rehearse:
        settings.append("checkpoint.every=25000")
    return [sys.executable, "-u", "-m", tree.train, *settings]


def ready(session: Session, queue: list[tuple], running: list[Program]) -> tuple | None:
    """The next run that may begin beside these: no more of DMControl than there are renderers."""
    rendering = sum(DMCONTROL.train in program.process.args for program in running)
    return next((run for run in queue if run[0] is not DMCONTROL or rendering < session.renderers), None)


def train(session: Session) -> None:
    """Runs side by side until the time is up."""
    room = side_by_side(session, measured(session, DMCONTROL), free_gpu_gb())
    threads = 1 if session.rehearse else max(1, min(4, session.cores // room))
    queue, running = list(QUEUE), []
    session.head(f"runs: {room} side by side for {max(0.0, session.left):.0f} s")
    while session.left > 0:
        running = [program for program in running if program.code is None]
        run = ready(session, queue, running) if len(running) < room and session.left > 60 * (not session.rehearse) else None
        if run is None and not running:
            break
        if run is None:
            time.sleep(0.2)
            continue
        queue.remove(run)
        program = Program(command_of(session, *run, threads), log_of(session, *run))
        session.programs.append((run, program))
        running.append(program)


def speed_of(folder: Path) -> str:
    """Of the newest row of train.csv."""
    file = folder / "train.csv"
    rows = list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []
    return f"; {float(rows[-1]['perf/updates_per_second']):.1f} updates per second" if rows else ""


def finish(session: Session) -> None:
    """Save and stop the runs, say how far they came, and pack."""
    running = [program for _, program in session.programs if program.code is None]
    processes.end(running)
    for run, program in session.programs:
        lines, label = program.lines(), run[0].label(values_of(session, *run))
        asked = (128 + signal.SIGTERM, -signal.SIGTERM) if program in running else ()  # the second code: stopped before it had begun
        bad = program.code not in (0, *asked)
        session.failures += bad
        told = [line for line in lines if line.startswith(("eval at", "compile:"))][-1:] + (lines[-1:] or ["not begun"])
        session.say(f"{'FAILED ' if bad else ''}{label}: {'; '.join(told)[:300]}{speed_of(folder_of(session, *run))}")
    from scripts.runs.packed import pack  # not at the top: with torch, which takes seconds

    folders = [folder_of(session, *run) for run in QUEUE]
    files = [*sorted(session.work.glob("*")), *(log_of(session, *run) for run in QUEUE)]
    more = {f"logs/{file.relative_to(session.runs / 'logs')}": file.read_bytes() for file in files if file.is_file()}
    made = pack([folder for folder in folders if (folder / "config.yaml").exists()], session.out, more)
    session.head(f"packed: {len(made.sizes)} file(s), {sum(made.sizes) / 1e6:.1f} MB in {session.out}")
    if made.left_out:
        session.say(f"left out for lack of room: {', '.join(sorted({name.partition('/policy/')[0] for name in made.left_out}))}")


def on_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, handler)


def stop(number: int, _: FrameType | None) -> None:
    on_signals(signal.SIG_IGN)  # the end is short
    raise Stopped(signal.Signals(number))


def read_options(arguments: list[str], place: Path) -> Session:
    """place: a folder for the runs of a rehearsal."""
    options, flags = {"--minutes": "", "--out": "runs/gpu", "--runs": ""}, {"--rehearse": False, "--runs-only": False}
    others = ("--wheels", "--debs")
    if words := take(arguments, options, flags, others):
        raise unknown(words[0], [*options, *flags, *others])
    rehearse, minutes = flags["--rehearse"], options["--minutes"]
    chosen = {"rehearse": rehearse, "runs_only": flags["--runs-only"]}
    try:
        wanted = float(minutes or (2 if rehearse else 12))
    except ValueError:
        wanted = math.nan
    if not 0.2 <= wanted <= 24 * 60:
        raise UserError(f"--minutes {minutes} must be a number between 0.2 and {24 * 60}")
    session = Session(Path(options["--out"]), Path(options["--runs"] or (place if rehearse else "runs")), wanted, **chosen)
    for folder in (session.out, session.work):
        folder.mkdir(parents=True, exist_ok=True)
    if not session.runs_only:
        (session.out / "report.txt").unlink(missing_ok=True)
    return session


def main(arguments: list[str]) -> int:
    os.environ["PYTHONUNBUFFERED"] = "1"
    with tempfile.TemporaryDirectory() as place:
        session = read_options(arguments, Path(place))
        code = 0
        on_signals(stop)
        try:
            look(session)
            for step in (train,) if session.runs_only else (run_tests, measure, train):
                step(session)
        except Stopped as error:
            code = 128 + error.args[0]
            session.head(f"{error.args[0].name}: saving and packing")
        on_signals(signal.SIG_IGN)
        finish(session)
        session.head(f"done, {session.failures} failure(s)")
    return code or int(session.failures > 0)


if __name__ == "__main__":
    run_main(main)
