"""What a set of runs will take on this machine: runs, steps, GB, hours.

scripts/plan.sh SET [--seeds 1-3] [--method "mlr baseline"] [--preset paper] [--jobs-per-gpu 4] [--gpus 0,1] [--runs runs] [key=value ...]

SET: all6, all26, or names of tasks or of games. For each method a few updates are timed, for each task some steps of the
simulator, and one evaluation episode of the untrained policy: the hours are an estimate, above all where games grow longer.
"""

import contextlib
import io
import itertools
import os
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from Atari import games
from Atari.core.errors import UserError as AtariError
from DMControl.core import machine
from DMControl.core.errors import UserError, nearest, run_main
from DMControl.core.run.recorder import WARMUP
from DMControl.tasks import ARM, TASKS
from scripts.runs.options import take
from scripts.runs.queue import known_sets, methods_of, seeds_of, tasks_of
from scripts.trees import ATARI, DMCONTROL, Tree

STEPS, UPDATES = 150, 5  # that are timed
EPISODES = {"dmcontrol": 1, "atari": 2}  # that are timed; games are played side by side
BUDGET_S = 60.0  # after which no further update of a method is timed
OPTIONS = {"--seeds": "1", "--method": "mlr", "--preset": "paper", "--jobs-per-gpu": "", "--gpus": "all", "--runs": "runs"}


@dataclass(frozen=True)
class Cost:
    """What was measured. Seconds, bytes."""

    update: float
    save: float
    disk: int  # agent and state of the two saves
    frames: int  # the replay on disk, until the run has finished
    ram: int
    gpu: int


@dataclass(frozen=True)
class Pace:
    """What one task takes. Seconds per agent step with acting, seconds of one evaluation episode."""

    step: float
    episode: float


def timed(call: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    machine.synchronize(device)
    return time.perf_counter() - start


def per_update(times: list[float], period: int) -> float:
    """Updates repeat after `period`: the mean of the quickest update of each phase, as disturbances only make a measurement longer."""
    return statistics.mean(min(times[phase::period]) for phase in range(min(period, len(times))))


def measure_pace(tree: Tree, trainer: Any) -> Pace:
    """Time some steps of acting, and evaluation episodes of the untrained policy."""
    agent, env, replay, config = trainer.agent, trainer.env, trainer.replay, trainer.config
    replay.start(env.reset())

    def step() -> None:
        action = tree.act(agent, replay.newest(), explore=True)
        tree.store(replay, action, env.step(action))
        if env.over:
            replay.start(env.reset())

    count = min(STEPS, tree.steps(config))
    seconds = timed(lambda: [step() for _ in range(count)], trainer.device) / count
    judge = tree.make_env(config, config.seed, judge=True)
    episodes = EPISODES[tree.name]
    return Pace(seconds, timed(lambda: tree.evaluate(agent, config, judge, episodes), trainer.device) / episodes)


def measure_cost(tree: Tree, trainer: Any, folder: Path) -> Cost:
    """Time updates and a save; see how much memory and disk they take."""
    agent, times, start = trainer.agent, [], time.perf_counter()
    first = (WARMUP + 1) * agent.period if agent.recorder.active else 1  # warm up, and be recorded on a GPU
    while len(times) < first + UPDATES and (not times or time.perf_counter() - start < BUDGET_S):
        times.append(timed(lambda: tree.update(agent, trainer.replay), trainer.device))
    update = per_update(times[first:] or times, agent.period)
    before = time.perf_counter()
    trainer.save()
    save = time.perf_counter() - before
    disk = sum(f.stat().st_size for f in folder.rglob("*.pt")) * 2
    precision = machine.choose_precision(trainer.config.precision, trainer.device)
    replay = tree.memory(trainer.config, trainer.env, precision)["replay"]
    gpu = torch.cuda.max_memory_reserved() if trainer.device.type == "cuda" else 0
    ram = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (0 if gpu else replay)
    return Cost(update, save, disk, replay, ram, gpu)


def measure(tree: Tree, arguments: list[str], folder: Path, cost: Cost | None) -> tuple[Any, Pace, Cost]:
    """The settings of one task with one method, its pace, and the costs that tasks share unless they are known."""
    config = tree.read_config([*arguments, f"runs={folder}", "eval.video=false"])
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it would name a run that is not made
        trainer = tree.make_trainer(config, "plan")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run would save and stop, but none was begun
    pace, cost = measure_pace(tree, trainer), cost or measure_cost(tree, trainer, folder)
    trainer.bar.close()
    trainer.logger.close()
    trainer.folder.lock.close()
    shutil.rmtree(folder)
    return config, pace, cost


def estimate(tree: Tree, config: Any, pace: Pace, cost: Cost) -> dict[str, float]:
    """Seconds of a whole run, by what takes them."""
    steps = tree.steps(config)
    return {
        "environment": steps * pace.step,
        "updates": tree.updates(config, steps) * cost.update,
        "evaluation": tree.evaluation_episodes(config) * pace.episode,
        "saves": tree.saves(config) * cost.save,
    }


def names(words: str) -> tuple[Tree, list[str]]:
    """The tree that these tasks or games belong to, and their names."""
    parts = words.replace(",", " ").split()
    if not parts:
        raise UserError("say which set: scripts/plan.sh all6, all26, or names of tasks or of games")
    if any(w.startswith("gym:") for w in parts):
        raise UserError("scripts/plan.sh measures tasks of the suite and games of ALE; a gym: environment is measured by a run of it")
    if all(w in (*TASKS, ARM) or w in known_sets(DMCONTROL) for w in parts):
        return DMCONTROL, tasks_of(DMCONTROL, words)
    try:
        return ATARI, list(dict.fromkeys(games.parse(w) for w in tasks_of(ATARI, words)))
    except AtariError as error:
        known = [*known_sets(DMCONTROL), *known_sets(ATARI), *TASKS, *games.SCORES]
        raise UserError(f"{words} is neither a set nor tasks nor games: {nearest(parts[0], known)}") from error


def gpu_count(word: str) -> int:
    """As the launchers count them."""
    if word == "all":
        word = os.environ.get("CUDA_VISIBLE_DEVICES", word)
    if word in ("none", "-1"):
        return 0
    if word != "all":
        return len(word.replace(",", " ").split())
    try:
        listed = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 0
    return len(listed.stdout.split())


def read_options(arguments: list[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """The options, the settings of the runs, and the words that name tasks."""
    options = dict(OPTIONS)
    rest = take(arguments, options, {})
    jobs = options["--jobs-per-gpu"] or "1"
    if not jobs.isdecimal() or int(jobs) < 1:
        raise UserError(f"--jobs-per-gpu {options['--jobs-per-gpu']} must be a whole number from 1 on")
    return options, [word for word in rest if "=" in word], [word for word in rest if "=" not in word]


@dataclass
class Total:
    """What all runs together take that have not finished yet. Seconds, bytes."""

    runs: int = 0
    finished: int = 0
    steps: int = 0  # of the simulator
    seconds: float = 0.0
    longest: float = 0.0  # of a run
    disk: int = 0
    frames: int = 0  # of the largest replay on disk
    ram: int = 0  # of the largest run
    gpu: int = 0

    def add(self, left: int, finished: int, steps: int, seconds: float, cost: Cost) -> None:
        self.runs, self.finished, self.steps = self.runs + left, self.finished + finished, self.steps + left * steps
        self.seconds, self.longest = self.seconds + left * seconds, max(self.longest, seconds)
        self.disk, self.frames = self.disk + left * cost.disk, max(self.frames, cost.frames)
        self.ram, self.gpu = max(self.ram, cost.ram), max(self.gpu, cost.gpu)

    def show(self, unit: str, slots: int, gpus: int, threads: int, runs: str) -> None:
        side = min(slots, self.runs)
        wait = max(self.seconds / slots, self.longest if self.runs else 0.0)
        on_gpu = f", GPU memory {machine.gigabytes(self.gpu * side // max(1, gpus))} a GPU" if self.gpu else ""
        print(f"runs:  {self.runs} to do" + (f", {self.finished} finished already" if self.finished else "") + f"; {side} side by side")
        print(f"steps: {self.steps:,} {unit} in all")
        print(f"hours: {wait / 3600:.2f} of waiting, {self.seconds / 3600:.2f} of runs", end=" ")
        print(f"(measured one at a time, on {threads} thread(s) each)")
        print(f"GB:    RAM {machine.gigabytes(self.ram * side)}{on_gpu}")
        print(f"       disk {machine.gigabytes(self.disk)} for what stays, and up to", end=" ")
        print(f"{machine.gigabytes(self.frames * side)} for the replays of runs under way")
        free = machine.free_disk(Path(runs))
        if self.disk + self.frames * side > free:
            print(f"       that is more than the {machine.gigabytes(free)} free under {runs}")


def main(arguments: list[str]) -> int:
    options, settings, words = read_options(arguments)
    tree, tasks = names(" ".join(words))
    methods, seeds = methods_of(options["--method"]), seeds_of(options["--seeds"])
    gpus = gpu_count(options["--gpus"])
    cores, runs = len(os.sched_getaffinity(0)), len(tasks) * len(methods) * len(seeds)
    jobs = min(cores, runs) if not gpus and options["--preset"] not in ("paper", "madi") else 1  # as launch.sh has it
    slots = max(1, gpus) * int(options["--jobs-per-gpu"] or jobs)
    threads = max(1, cores // slots)
    shared = [f"preset={options['--preset']}", *settings]
    if not any(s.startswith("threads=") for s in settings):
        shared.append(f"threads={threads}")
    if not gpus:
        shared.append("device=cpu")
    total, costs = Total(), {}
    with tempfile.TemporaryDirectory() as place:
        for task, method in itertools.product(tasks, methods):
            chosen = [f"{tree.task}={task}", f"method={method}", *shared]
            config, pace, cost = measure(tree, chosen, Path(place) / "runs", costs.get(method))
            costs[method], parts = cost, estimate(tree, config, pace, cost)
            seconds = sum(parts.values())
            finished = sum((tree.run_path({**config, "seed": s}, options["--runs"]) / "result.json").exists() for s in seeds)
            total.add(len(seeds) - finished, finished, tree.simulator_steps(config), seconds, cost)
            shares = ", ".join(f"{name} {value / seconds:.0%}" for name, value in parts.items())
            print(f"  {task:20} {method:10} {seconds / 3600:8.2f} h a run ({shares}; {cost.update * 1e3:.1f} ms an update)", flush=True)
    total.show(tree.unit, slots, gpus, threads, options["--runs"])
    return 0


if __name__ == "__main__":
    run_main(main)
