"""What a set of runs will take on this machine: runs, steps, GB, hours.

scripts/plan.sh SET [--seeds 1-3] [--method "mlr baseline"] [--preset paper] [--jobs-per-gpu 1] [--gpus 0,1] [--runs runs] [key=value ...]

SET: all6, all26, or names of tasks or of games. For each method a few updates are timed, for each task some steps of the
simulator, and one evaluation episode of the untrained policy: the hours are an estimate, above all where games grow longer.
"""

import contextlib
import io
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from DMControl.core import machine
from DMControl.core.errors import UserError, nearest, run_main
from DMControl.core.run.recorder import PLAIN_FIRST
from scripts.runs.queue import known_sets, methods_of, seeds_of, tasks_of
from scripts.trees import ATARI, DMCONTROL, tree_of

STEPS, UPDATES, BUDGET_S = 150, 5, 60.0  # of the simulator; of the learner; at most so long per method
OPTIONS = {"--seeds": "1", "--method": "mlr", "--preset": "paper", "--jobs-per-gpu": "1", "--gpus": "all", "--runs": "runs"}


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
    machine.wait(device)
    return time.perf_counter() - start


def per_update(times: list[float], period: int) -> float:
    """Of updates that repeat after `period`: the mean over them of the quickest each; a short measurement is only disturbed upwards."""
    return statistics.mean(min(times[phase::period]) for phase in range(min(period, len(times))))


class DMControlPlan:
    key, unit = "task", "env steps"

    def config(self, arguments: list[str]) -> Any:
        from DMControl.settings import read_config

        return read_config(arguments)

    def trainer(self, config: Any) -> Any:
        from DMControl.train import Trainer

        return Trainer(config, "plan")

    def prepare(self, trainer: Any) -> Pace:
        device, config = trainer.device, trainer.config
        trainer.replay.start(trainer.env.reset())

        def step() -> None:
            action = trainer.agent.act(trainer.replay.newest(), sample=True)[0]
            result = trainer.env.step(action)
            trainer.replay.add(action, result.reward, result.terminal, result.last, result.frame)
            if result.last:
                trainer.replay.start(trainer.env.reset())

        count = min(STEPS, config.env_steps // config.action_repeat)
        each = timed(lambda: [step() for _ in range(count)], device) / count
        return Pace(each, timed(lambda: trainer.judge(trainer.world, 1), device))

    def update(self, trainer: Any) -> None:
        trainer.agent.update(trainer.replay)

    def amounts(self, config: Any) -> tuple[int, int, int, int, int]:
        """Agent steps, steps of the simulator, updates, evaluation episodes, saves."""
        from DMControl.memory import updates
        from DMControl.settings import worlds_of

        steps = -(-config.env_steps // config.action_repeat)
        episodes = (config.env_steps // config.eval.every + 1) * config.eval.episodes * len(worlds_of(config))
        return steps, config.env_steps, updates(config, steps), episodes, config.env_steps // config.checkpoint.every

    def replay_bytes(self, config: Any) -> int:
        from DMControl.memory import capacity

        return capacity(config) * config.image.size**2 * 3


class AtariPlan:
    key, unit = "game", "frames"

    def config(self, arguments: list[str]) -> Any:
        from Atari.settings import read_config

        return read_config(arguments)

    def trainer(self, config: Any) -> Any:
        from Atari.train import Trainer

        return Trainer(config, "plan")

    def prepare(self, trainer: Any) -> Pace:
        from Atari.evaluate import evaluate

        device, config = trainer.device, trainer.config
        trainer.replay.start(trainer.env.reset())

        def step() -> None:
            action = trainer.agent.act(trainer.replay.newest(), epsilon=1.0)[0]
            result = trainer.env.step(action)
            trainer.replay.add(action, result)
            if result.over:
                trainer.replay.start(trainer.env.reset())

        count = min(STEPS, config.steps)
        each = timed(lambda: [step() for _ in range(count)], device) / count
        games = 2
        return Pace(each, timed(lambda: evaluate(trainer.agent, config, games, config.seed), device) / games)

    def update(self, trainer: Any) -> None:
        trainer.agent.update(trainer.replay, trainer.config.rainbow.random_steps + 1)

    def amounts(self, config: Any) -> tuple[int, int, int, int, int]:
        """Agent steps, steps of the simulator, updates, evaluation episodes, saves."""
        rainbow = config.rainbow
        updates = (config.steps - rainbow.random_steps) // rainbow.update_every * rainbow.updates_per_step
        episodes = (1 + (config.steps - 1) // config.eval.every) * config.eval.episodes + config.eval.final_episodes
        return config.steps, config.steps * config.env.frame_skip, updates, episodes, config.steps // config.checkpoint.every

    def replay_bytes(self, config: Any) -> int:
        from Atari.memory import capacity

        return capacity(config) * config.env.size**2


def measure(plan: DMControlPlan | AtariPlan, arguments: list[str], folder: Path, whole: bool) -> tuple[Any, Pace, Cost | None]:
    """One task with one method: its pace, and where `whole`, the costs that tasks share."""
    config = plan.config([*arguments, f"runs={folder}", "eval.video=false"])
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it would name a run that is none
        trainer = plan.trainer(config)
    pace = plan.prepare(trainer)
    cost = None
    if whole:
        agent, times, start = trainer.agent, [], time.perf_counter()
        first = (PLAIN_FIRST + 1) * agent.period if agent.recorder.active else 1  # warm up, and be recorded on a GPU
        while len(times) < first + UPDATES and (not times or time.perf_counter() - start < BUDGET_S):
            times.append(timed(lambda: plan.update(trainer), trainer.device))
        update = per_update(times[first:] or times, agent.period)
        before = time.perf_counter()
        trainer.save()
        save = time.perf_counter() - before
        disk = sum(f.stat().st_size for f in folder.rglob("*.pt")) * 2
        replay = plan.replay_bytes(config)
        gpu = torch.cuda.max_memory_reserved() if trainer.device.type == "cuda" else 0
        ram = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (0 if gpu else replay)
        cost = Cost(update, save, disk, replay, ram, gpu)
    trainer.bar.close()
    trainer.logger.close()
    trainer.folder.lock.close()
    shutil.rmtree(folder)
    return config, pace, cost


def names(words: str) -> tuple[DMControlPlan | AtariPlan, list[str]]:
    """The tree that these tasks or games belong to, and their names."""
    from Atari import games
    from Atari.core.errors import UserError as AtariError
    from DMControl.env import TASKS

    parts = words.replace(",", " ").split()
    if not parts:
        raise UserError("say which set: scripts/plan.sh all6, all26, or names of tasks or of games")
    if all(w in TASKS or w in known_sets(DMCONTROL) for w in parts):
        return DMControlPlan(), tasks_of(DMCONTROL, words)
    try:
        return AtariPlan(), list(dict.fromkeys(games.parse(w) for w in tasks_of(ATARI, words)))
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


def main(arguments: list[str]) -> int:
    options, settings, words = dict(OPTIONS), [], []
    rest = iter(arguments)
    for argument in rest:
        if argument in options:
            options[argument] = next(rest, "")
            if not options[argument] or options[argument].startswith("-"):
                raise UserError(f"{argument} needs a value")
        elif argument.startswith("-"):
            raise UserError(f"option {argument} is unknown: {nearest(argument, options)}")
        else:
            (settings if "=" in argument else words).append(argument)
    plan, tasks = names(" ".join(words))
    methods, seeds = methods_of(options["--method"]), seeds_of(options["--seeds"])
    if not options["--jobs-per-gpu"].isdecimal() or int(options["--jobs-per-gpu"]) < 1:
        raise UserError(f"--jobs-per-gpu {options['--jobs-per-gpu']} must be a whole number from 1 on")
    gpus = gpu_count(options["--gpus"])
    slots = max(1, gpus) * int(options["--jobs-per-gpu"])
    threads = max(1, len(os.sched_getaffinity(0)) // slots)
    shared = [f"preset={options['--preset']}", *settings]
    if not any(s.startswith("threads=") for s in settings):
        shared.append(f"threads={threads}")
    if not gpus:
        shared.append("device=cpu")
    runs, seconds, frames, disk, steps, done, ram, gpu = 0, 0.0, 0, 0, 0, 0, 0, 0
    longest = 0.0
    lines = []
    with tempfile.TemporaryDirectory() as place:
        costs: dict[str, Cost] = {}
        for task, method in itertools.product(tasks, methods):
            chosen = [f"{plan.key}={task}", f"method={method}", *shared]
            config, pace, cost = measure(plan, chosen, Path(place) / "runs", method not in costs)
            costs[method] = cost or costs[method]
            cost = costs[method]
            agent_steps, simulator, updates, episodes, saves = plan.amounts(config)
            parts = {
                "environment": agent_steps * pace.step,
                "updates": updates * cost.update,
                "evaluation": episodes * pace.episode,
                "saves": saves * cost.save,
            }
            each = sum(parts.values())
            tree = tree_of(config)
            finished = sum((tree.run_path({**config, "seed": s}, options["--runs"]) / "result.json").exists() for s in seeds)
            left = len(seeds) - finished
            runs, done, seconds, steps = runs + left, done + finished, seconds + left * each, steps + left * simulator
            disk, frames, longest = disk + left * cost.disk, max(frames, cost.frames), max(longest, each)
            ram, gpu = max(ram, cost.ram), max(gpu, cost.gpu)
            shares = ", ".join(f"{name} {value / each:.0%}" for name, value in parts.items())
            lines.append(f"  {task:20} {method:10} {each / 3600:8.2f} h a run ({shares}; {cost.update * 1e3:.1f} ms an update)")
    print("\n".join(lines))
    side = min(slots, runs)
    wall = max(seconds / slots, longest if runs else 0.0)
    print(f"runs:  {runs} to do" + (f", {done} finished already" if done else "") + f"; {side} side by side")
    print(f"steps: {steps:,} {plan.unit} in all")
    print(f"hours: {wall / 3600:.2f} of waiting, {seconds / 3600:.2f} of runs (measured one at a time, on {threads} thread(s) each)")
    on_gpu = f", GPU memory {machine.gigabytes(gpu * side // max(1, gpus))} a GPU" if gpu else ""
    print(f"GB:    RAM {machine.gigabytes(ram * side)}{on_gpu}")
    under_way = machine.gigabytes(frames * side)
    print(f"       disk {machine.gigabytes(disk)} for what stays, and up to {under_way} for the replays of runs under way")
    free = machine.free_disk(Path(options["--runs"]))
    if disk + frames * side > free:
        print(f"       that is more than the {machine.gigabytes(free)} free under {options['--runs']}")
    return 0


if __name__ == "__main__":
    run_main(main)
