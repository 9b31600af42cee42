"""What the report computes: rows of the ledger and published tables in, numbers out. rliable does the statistics, from one seed."""

import csv
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rliable import library, metrics
from scipy.stats import trim_mean

from scripts.ledger.collect import DMCONTROL, Benchmark, read, read_curve

SEED, RESAMPLES = 0, 2000
FEW = 5  # below so many seeds a bootstrap gives little more than their range, and noise: the range is stated
BUDGETS = {"dmcontrol": (100_000, 500_000), "atari": (400_000,)}  # of the published tables, in env steps and frames
# a preset's run stays one with these; Atari's `steps` is none of them: the importance weights of its replay are spread over all steps
HARMLESS = (
    *("env_steps", "dmcgb.agent_steps", "precision", "chunk", "mlr.chunk"),
    *("eval.every", "eval.episodes", "eval.worlds", "eval.intensities", "eval.video"),
)
METHOD_NAMES = {
    "mlr": "MLR", "baseline": "Baseline", "playvirtual": "PlayVirtual", "spr": "SPR", "curl": "CURL", "drq": "DrQ", "der": "DER",
    "otr": "OTRainbow", "sac_ae": "SAC+AE", "slac": "SLAC", "dreamer": "Dreamer", "planet": "PlaNet", "madi": "MaDi", "svea": "SVEA",
    "soda": "SODA", "pad": "PAD", "rad": "RAD", "sgqn": "SGQN", "sac": "SAC", "mlr_madi": "MLR + MaDi",
    "human": "Human", "random": "Random",
}  # fmt: skip
OURS_FIRST = ("mlr", "baseline")

Interval = tuple[float, float]


def method_name(method: str) -> str:
    return METHOD_NAMES.get(method, method.replace("_", " "))


def counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def ordered(methods: Iterable[str]) -> list[str]:
    return sorted(set(methods), key=lambda m: (OURS_FIRST.index(m) if m in OURS_FIRST else len(OURS_FIRST), m))


@dataclass(frozen=True)
class Run:
    """A row of the ledger with its curve."""

    task: str
    method: str
    preset: str
    name: str
    seed: int
    step: int
    planned: int
    finished: bool
    score: float
    hours: float
    hardware: str
    commit: str
    changed: dict[str, str]
    config_hash: str
    worlds: dict[str, float]  # the mean return in each world it was judged in, its own among them
    judged: dict[str, int]  # by how many episodes
    curve: tuple[dict[str, float], ...] = field(repr=False)
    axis: str  # the curve's word for its steps

    def at(self, step: int) -> float | None:
        """The score after this many steps; an evaluation may come one agent step late. None where there was none."""
        if step <= self.step < step * 1.01:
            return self.score
        found = [point["mean"] for point in self.curve if step <= point[self.axis] < step * 1.01]
        return found[0] if found else None

    @property
    def own_settings(self) -> dict[str, str]:
        """What makes it another experiment than its preset."""
        return {k: v for k, v in self.changed.items() if not k.startswith(HARMLESS)}


def load_runs(results: Path, benchmark: Benchmark) -> list[Run]:
    runs = []
    for row in read(results, benchmark):
        changed = dict(word.partition("=")[::2] for word in row["changed"].split())
        own = {k: row[k] for k in ("method", "preset", "name", "hardware", "commit", "config_hash")}
        machines = own["hardware"].replace(", 1 threads", ", 1 thread").split(" + ")  # "threads", as the first rows say
        own["hardware"] = " + ".join(dict.fromkeys(machines))
        judged = [re.fullmatch(r"(.+):(\d+)=(.+)", word).groups() for word in row["worlds"].split()]
        numbers = {"step": int(row[benchmark.step]), "planned": int(row["planned"]), "seed": int(row["seed"])}
        runs.append(
            Run(
                task=row[benchmark.task],
                finished=row["finished"] == "yes",
                score=float(row["score"]),
                hours=float(row["hours"]),
                changed=changed,
                worlds={w: float(mean) for w, _, mean in judged},
                judged={w: int(episodes) for w, episodes, _ in judged},
                curve=tuple(read_curve(results, benchmark, row)),
                axis=benchmark.step,
                **own,
                **numbers,
            )
        )
    return runs


@dataclass(frozen=True)
class Published:
    """The published tables: scores per budget, task and method, and the paper's aggregates of them."""

    tasks: list[str]
    methods: list[str]
    scores: dict[tuple[int, str, str], float]  # (budget, task, method)
    stds: dict[tuple[int, str, str], float]
    worlds: dict[tuple[str, str, str], tuple[float, float]]  # (task, world, method): mean and std
    aggregates: dict[tuple[int, str, str], float]  # (budget, aggregate, method)


def load_published(folder: Path, benchmark: Benchmark) -> Published:
    scores, stds, worlds, aggregates = {}, {}, {}, {}
    if benchmark is DMCONTROL:
        for line in _lines(folder / "dmcontrol.csv"):
            key = (int(line["env_steps"]), line["task"], line["method"])
            scores[key], stds[key] = float(line["mean"]), float(line["std"])
        for line in _lines(folder / "worlds.csv"):
            worlds[line["task"], line["world"], line["method"]] = (float(line["mean"]), float(line["std"]))
        for line in _lines(folder / "dmcontrol_aggregates.csv"):
            budget, name = int(line.pop("env_steps")), line.pop("aggregate")
            aggregates.update({(budget, name, m): float(v) for m, v in line.items() if v})
    else:
        budget = BUDGETS["atari"][0]
        for line in _lines(folder / "atari100k.csv"):
            game = line.pop("game")
            scores.update({(budget, game, m): float(v) for m, v in line.items() if v})
        for line in _lines(folder / "atari100k_std.csv"):
            game = line.pop("game")
            stds.update({(budget, game, m): float(v) for m, v in line.items()})
        for line in _lines(folder / "atari100k_aggregates.csv"):
            name = line.pop("metric")
            aggregates.update({(budget, name, m): float(v) for m, v in line.items() if v})
    tasks = list(dict.fromkeys(task for _, task, _ in scores))
    methods = list(dict.fromkeys(method for _, _, method in scores))
    return Published(tasks, methods, scores, stds, worlds, aggregates)


def _lines(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as handle:
        return list(csv.DictReader(handle))


# ---- the aggregates of the paper


def task_mean(scores: np.ndarray) -> float:  # (runs, tasks)
    return float(scores.mean())


def task_median(scores: np.ndarray) -> float:
    """The median over the tasks of their means."""
    return float(np.median(scores.mean(0)))


AGGREGATES: dict[str, dict[str, Callable[[np.ndarray], float]]] = {
    "dmcontrol": {"mean": task_mean, "median": task_median},
    "atari": {"iqm": metrics.aggregate_iqm, "optimality_gap": metrics.aggregate_optimality_gap},
}
AGGREGATE_NAMES = {"mean": "mean", "median": "median", "iqm": "IQM", "optimality_gap": "optimality gap"}


def normalise(benchmark: Benchmark, published: Published, task: str, score: float) -> float:
    """Atari: 0 is the random policy, 1 the human. DMControl: returns as they are."""
    if benchmark is DMCONTROL:
        return score
    budget = BUDGETS["atari"][0]
    human, random = (published.scores[budget, task, who] for who in ("human", "random"))
    return (score - random) / (human - random)


def bootstrap(scores: dict, func: Callable[..., np.ndarray], curve: bool = False) -> tuple[dict, dict]:
    """Point estimates and 95% stratified bootstrap intervals; rliable follows numpy's global stream, which is put back."""
    reps = max(1, RESAMPLES // 4) if curve else RESAMPLES
    state = np.random.get_state()
    np.random.seed(SEED)
    try:
        return library.get_interval_estimates(scores, func, reps=reps)
    finally:
        np.random.set_state(state)


def bounds_name(seeds: Iterable[int]) -> str:
    """What the bounds of results over so many seeds are."""
    few = {count < FEW for count in seeds if count > 1}
    every = f"range of the seeds, from {FEW} seeds on 95% bootstrap interval"
    return every if len(few) != 1 else "range of the seeds" if few == {True} else "95% bootstrap interval"


def seed_range(scores: np.ndarray, func: Callable[[np.ndarray], Any]) -> np.ndarray:  # (runs, tasks, ...) -> (2, ...)
    """From the lowest seed of every task to the highest, which is as far as a bootstrap could reach."""
    return np.sort([func(np.broadcast_to(end, scores.shape)) for end in (scores.min(0), scores.max(0))], axis=0)


def interval(scores: np.ndarray, func: Callable[[np.ndarray], float]) -> tuple[float, Interval | None]:  # (runs, tasks)
    """A number and its bounds; one run per task has none."""
    if len(scores) < FEW:
        low, high = seed_range(scores, func)
        return float(func(scores)), (float(low), float(high)) if len(scores) > 1 else None
    points, bounds = bootstrap({"x": scores}, lambda x: np.array([func(x)]))
    return float(points["x"][0]), (float(bounds["x"][0, 0]), float(bounds["x"][1, 0]))


def profile(scores: np.ndarray, taus: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The share of runs above each tau, and its bounds (2, taus)."""

    def share(x: np.ndarray) -> np.ndarray:
        return library.score_distributions(x, taus)

    if len(scores) < FEW:
        return share(scores), seed_range(scores, share) if len(scores) > 1 else None
    points, bounds = bootstrap({"x": scores}, share, curve=True)
    return points["x"], bounds["x"]


def improvement(ours: np.ndarray, other: np.ndarray) -> tuple[float, Interval | None]:  # (runs, tasks) each
    """P(a run of ours scores above a run of the other), the mean over tasks; of few seeds without an interval."""

    def probability(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # as metrics.probability_of_improvement, without its p-values
        return np.array([np.mean((a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None]))])

    if min(len(ours), len(other)) < FEW:
        return float(probability(ours, other)[0]), None
    points, bounds = bootstrap({"x": [ours, other]}, probability)
    return float(points["x"][0]), (float(bounds["x"][0, 0]), float(bounds["x"][1, 0]))


# ---- groups of runs


def groups(runs: Iterable[Run], budget: int) -> dict[tuple[str, str], list[float]]:
    """(task, method) -> the scores of all seeds at this budget, by seed."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        score = run.at(budget)
        if score is not None:
            found.setdefault((run.task, run.method), []).append(score)
    return found


@dataclass(frozen=True)
class Matrix:
    """Normalised scores of a method, (runs, tasks): as many seeds as each of these tasks has, the first ones."""

    tasks: tuple[str, ...]
    scores: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)  # task -> its further seeds

    def seeds(self) -> str:
        """Their number, and what is left out for it."""
        more = ", ".join(f"{count} of {task}" for task, count in self.left_out.items())
        return counted(len(self.scores), "seed") + (f" (further seeds left out: {more})" if more else "")


def matrix(benchmark: Benchmark, published: Published, runs: Iterable[Run], method: str, budget: int) -> Matrix | None:
    found = {task: scores for (task, m), scores in groups(runs, budget).items() if m == method and task in published.tasks}
    if not found:
        return None
    tasks = tuple(t for t in published.tasks if t in found)
    seeds = min(len(found[t]) for t in tasks)
    columns = [[normalise(benchmark, published, t, s) for s in found[t][:seeds]] for t in tasks]
    return Matrix(tasks, np.array(columns).T, {t: len(found[t]) - seeds for t in tasks if len(found[t]) > seeds})


def on_common_tasks(matrices: dict[str, Matrix]) -> dict[str, Matrix]:
    """All methods on the tasks that each of them has, so that they can stand in one figure; empty without such a task."""
    if not matrices:
        return {}
    first = next(iter(matrices.values()))
    tasks = tuple(t for t in first.tasks if all(t in m.tasks for m in matrices.values()))
    return {name: Matrix(tasks, m.scores[:, [m.tasks.index(t) for t in tasks]]) for name, m in matrices.items()} if tasks else {}


def published_on(benchmark: Benchmark, published: Published, budget: int, method: str, tasks: Iterable[str], name: str) -> float | None:
    """An aggregate of the published means over these tasks. IQM of means is not the paper's IQM of runs: a stand-in where tasks are few."""
    values = [published.scores.get((budget, task, method)) for task in tasks]
    if not values or any(v is None for v in values):
        return None
    scores = np.array([[normalise(benchmark, published, t, v) for t, v in zip(tasks, values, strict=True)]])
    return float(AGGREGATES[benchmark.name][name](scores))


def recomputed(published: Published) -> float:
    """The largest distance of a published DMControl aggregate from what the published means per task give."""
    apart = []
    for (budget, name, method), value in published.aggregates.items():
        tasks = [t for t in published.tasks if (budget, t, method) in published.scores]
        apart.append(abs(published_on(DMCONTROL, published, budget, method, tasks, name) - value))
    return max(apart)


@dataclass(frozen=True)
class Curve:
    """A method's learning curve: means and bounds over seeds, against steps and against the mean hours."""

    steps: np.ndarray
    hours: np.ndarray
    mean: np.ndarray
    bounds: np.ndarray | None  # (2, points)
    seeds: int
    tasks: int


def mean_curve(scores: np.ndarray) -> np.ndarray:  # (runs, tasks, points) -> (points,)
    return scores.mean((0, 1))


def iqm_curve(scores: np.ndarray) -> np.ndarray:
    """metrics.aggregate_iqm of each point."""
    return trim_mean(scores.reshape(-1, scores.shape[-1]), 0.25, axis=0)


def curve(columns: list[list[Run]], scale: Callable[[str, float], float], func: Callable[[np.ndarray], np.ndarray]) -> Curve | None:
    """columns: the runs of each task. Only steps that all of them evaluated, and as many seeds as each task has."""
    seeds = min(len(c) for c in columns)
    runs = [c[:seeds] for c in columns]
    common = set.intersection(*({p[r.axis] for p in r.curve} for c in runs for r in c))
    steps = sorted(common)
    if not steps:
        return None
    points = [[{p[r.axis]: p for p in r.curve} for r in c] for c in runs]
    scores = np.array(
        [[[scale(r.task, p[s]["mean"]) for s in steps] for r, p in zip(c, q, strict=True)] for c, q in zip(runs, points, strict=True)]
    )
    scores = scores.transpose(1, 0, 2)  # (seeds, tasks, points)
    hours = np.array([[[p[s]["hours"] for s in steps] for p in q] for q in points]).mean((0, 1))

    bounds = seed_range(scores, func) if seeds < FEW else bootstrap({"x": scores}, func, curve=True)[1]["x"]
    return Curve(np.array(steps), hours, func(scores), bounds if seeds > 1 else None, seeds, len(columns))


def comparable(by_task: dict[str, dict[str, list[Run]]], tasks: list[str]) -> tuple[list[str], list[str]]:
    """Methods and the tasks that all of these have: as many methods as leave two tasks, those with the fewest tasks dropped first."""
    count = {m: sum(m in by_task[t] for t in tasks) for m in ordered(m for t in tasks for m in by_task[t])}
    methods = sorted(count, key=lambda m: -count[m])
    while methods:
        common = [t for t in tasks if all(m in by_task[t] for m in methods)]
        if len(common) > 1:
            return ordered(methods), common
        methods.pop()
    return [], []


def complete(runs: list[Run]) -> list[Run]:
    """Those that finished, if some did: a run that was cut off would cut the others' curve."""
    return [r for r in runs if r.finished] or runs


def mixed(runs: Iterable[Run]) -> list[str]:
    """What is to be said of seeds that stand together and yet ran with different settings."""
    cells: dict[tuple, list[Run]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        cells.setdefault((run.task, run.method, run.preset, run.name), []).append(run)
    says = []
    for (task, method, preset, name), own in cells.items():
        hashes = list(dict.fromkeys(r.config_hash for r in own))
        if len(hashes) > 1:
            seeds = [[str(r.seed) for r in own if r.config_hash == h] for h in hashes]
            parts = " and ".join(f"seed{'' if len(s) == 1 else 's'} {', '.join(s)}" for s in seeds)
            what = f"versions of the preset `{preset}`" if all(r.changed == own[0].changed for r in own) else "settings"
            label = f"{task}, {method_name(method)} {name}".strip()
            says.append(f"{label}: {parts} ran with different {what} (config hashes {', '.join(hashes)}).")
    return says


def main_runs(runs: Iterable[Run], preset: str) -> list[Run]:
    """A preset as it stands: no name, no setting of its own."""
    return [r for r in runs if r.preset == preset and not r.name and not r.own_settings]


def spread(scores: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation over seeds."""
    return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None
