"""The paper's statistics of runs and of published scores. rliable computes them, from one seed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rliable import library, metrics
from scipy.stats import trim_mean

from scripts.report.data import BUDGETS, Published, Run, counted, groups
from scripts.trees import DMCONTROL, Tree

SEED, RESAMPLES = 0, 2000
FEW = 5  # with fewer seeds a bootstrap gives their range plus noise, so the range is stated

Interval = tuple[float, float]
Estimate = tuple[float, Interval | None]


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


def normalise(tree: Tree, published: Published, task: str, score: float) -> float:
    """Atari: 0 is the random policy, 1 the human. DMControl: returns as they are."""
    if tree is DMCONTROL:
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
    """The name of the bounds of results with these numbers of seeds; empty where each has one seed, and so no bounds."""
    few = {count < FEW for count in seeds if count > 1}
    if not few:
        return ""
    every = f"range of the seeds, from {FEW} seeds on 95% bootstrap interval"
    return every if len(few) != 1 else "range of the seeds" if few == {True} else "95% bootstrap interval"


def seed_range(scores: np.ndarray, func: Callable[[np.ndarray], Any]) -> np.ndarray:  # (runs, tasks, ...) -> (2, ...)
    """From the lowest seed of every task to the highest."""
    return np.sort([func(np.broadcast_to(end, scores.shape)) for end in (scores.min(0), scores.max(0))], axis=0)


def interval(scores: np.ndarray, func: Callable[[np.ndarray], float]) -> Estimate:  # (runs, tasks)
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


def improvement(ours: np.ndarray, other: np.ndarray) -> Estimate:  # (runs, tasks) each
    """P(a run of ours scores above a run of the other), the mean over tasks."""
    return _between(ours, other, lambda a, b: np.mean((a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])))


def difference(ours: np.ndarray, other: np.ndarray) -> Estimate:  # (runs, tasks) each
    """The mean of ours less the mean of the other."""
    return _between(ours, other, lambda a, b: a.mean() - b.mean())


def _between(ours: np.ndarray, other: np.ndarray, func: Callable[[np.ndarray, np.ndarray], float]) -> Estimate:
    """Without an interval if there are few seeds."""
    if min(len(ours), len(other)) < FEW:
        return float(func(ours, other)), None
    points, bounds = bootstrap({"x": [ours, other]}, lambda a, b: np.array([func(a, b)]))
    return float(points["x"][0]), (float(bounds["x"][0, 0]), float(bounds["x"][1, 0]))


# ---- methods on tasks


@dataclass(frozen=True)
class Matrix:
    """Normalised scores of a method, (runs, tasks): as many seeds as each of these tasks has, the first ones."""

    tasks: tuple[str, ...]
    scores: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)  # task -> its further seeds

    def seeds(self) -> str:
        """The number of seeds, and which further seeds are left out."""
        more = ", ".join(f"{count} of {task}" for task, count in self.left_out.items())
        return counted(len(self.scores), "seed") + (f" (further seeds left out: {more})" if more else "")


def matrix(tree: Tree, published: Published, runs: Iterable[Run], method: str, budget: int) -> Matrix | None:
    found = {task: scores for (task, m), scores in groups(runs, budget).items() if m == method and task in published.tasks}
    if not found:
        return None
    tasks = tuple(t for t in published.tasks if t in found)
    seeds = min(len(found[t]) for t in tasks)
    columns = [[normalise(tree, published, t, s) for s in found[t][:seeds]] for t in tasks]
    return Matrix(tasks, np.array(columns).T, {t: len(found[t]) - seeds for t in tasks if len(found[t]) > seeds})


def on_common_tasks(matrices: dict[str, Matrix]) -> dict[str, Matrix]:
    """Methods on the tasks that each of them has, so that they can stand in one figure.

    If no task is common to all, methods are left out: the one with the fewest tasks first (of several, the last).
    """
    kept = dict(matrices)
    while kept:
        first = next(iter(kept.values()))
        tasks = tuple(t for t in first.tasks if all(t in m.tasks for m in kept.values()))
        if tasks:
            return {name: Matrix(tasks, m.scores[:, [m.tasks.index(t) for t in tasks]]) for name, m in kept.items()}
        del kept[min(reversed(kept), key=lambda name: len(kept[name].tasks))]
    return {}


def published_on(tree: Tree, published: Published, budget: int, method: str, tasks: Iterable[str], name: str) -> float | None:
    """An aggregate of the published means over these tasks. IQM of means is not the paper's IQM of runs: a stand-in where tasks are few."""
    values = [published.scores.get((budget, task, method)) for task in tasks]
    if not values or any(v is None for v in values):
        return None
    scores = np.array([[normalise(tree, published, t, v) for t, v in zip(tasks, values, strict=True)]])
    return float(AGGREGATES[tree.name][name](scores))


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
