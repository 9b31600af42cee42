"""Comparisons at equal steps: MLR with every other method, and MLR with one setting changed with unchanged MLR."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from scripts.report.aggregates import FEW, Estimate, difference, improvement, normalise
from scripts.report.data import Published, Run, complete, main_runs, method_name, ordered
from scripts.trees import Tree

REFERENCES = ("mlr", "madi")  # the first of them that has runs is compared with every other method


@dataclass(frozen=True)
class Comparison:
    """A method against another one, on one task or on several."""

    method: str
    other: str
    tasks: tuple[str, ...]
    seeds: tuple[int, int]  # of the method and of the other
    last: Estimate  # difference of the mean scores at these steps
    whole: Estimate | None  # of the means over all evaluations that both have, without the one before the training
    probability: Estimate  # that a run of the method scores above a run of the other

    @property
    def verdict(self) -> str:
        if self.last[1] is None:
            return f"fewer than {FEW} seeds"
        low, high = self.last[1]
        return f"{method_name(self.method)} {'ahead' if low > 0 else 'behind'}" if low > 0 or high < 0 else "not beyond chance"


def compare(tree: Tree, published: Published, runs: Iterable[Run], budget: int) -> list[Comparison]:
    """Per other method: on each task that both have, and on all of these tasks together, there with normalised scores."""
    own: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        if run.at(budget) is not None:
            own.setdefault((run.task, run.method), []).append(run)
    methods = ordered(m for _, m in own)
    method = next((m for m in REFERENCES if m in methods), None)
    found = []
    for other in [m for m in methods if m != method] if method else []:
        tasks = [t for t in sorted({t for t, _ in own}) if (t, method) in own and (t, other) in own]
        groups = [[t] for t in tasks]
        if len(known := [t for t in published.tasks if t in tasks]) > 1:
            groups.append(known)
        found += [_compare(tree, published, [(own[t, method], own[t, other]) for t in group], budget) for group in groups]
    return found


def _compare(tree: Tree, published: Published, pairs: list[tuple[list[Run], list[Run]]], budget: int) -> Comparison:
    """pairs: for each task the runs of both methods. Each method counts with as many seeds as it has on every task."""
    seeds = tuple(min(len(pair[side]) for pair in pairs) for side in (0, 1))
    sides = [[pair[side][: seeds[side]] for pair in pairs] for side in (0, 1)]
    common = {ours[0].task: set.intersection(*(_steps(r, budget) for r in (*ours, *theirs))) for ours, theirs in zip(*sides, strict=True)}

    def scores(side: list[list[Run]], score: Callable[[Run], float]) -> np.ndarray:  # (runs, tasks)
        scale = len(pairs) > 1
        return np.array([[normalise(tree, published, r.task, score(r)) if scale else score(r) for r in runs] for runs in side]).T

    def mean(run: Run) -> float:
        return statistics.fmean(p["mean"] for p in run.curve if p[run.axis] in common[run.task])

    last = [scores(side, lambda run: run.at(budget)) for side in sides]
    whole = difference(*(scores(side, mean) for side in sides)) if all(common.values()) else None
    first, other = (pairs[0][side][0].method for side in (0, 1))
    return Comparison(first, other, tuple(common), seeds, difference(*last), whole, improvement(*last))


def _steps(run: Run, budget: int) -> set[float]:
    """Where it was evaluated, without the evaluation before the training."""
    return {p[run.axis] for p in run.curve if 0 < p[run.axis] < budget * 1.01}


ABLATIONS = {
    "mlr.mask.ratio": "mask ratio",
    "mlr.mask.strategy": "mask strategy",
    "mlr.target": "targets",
    "mlr.action_tokens": "action tokens",
    "mlr.momentum": "momentum encoder",
}
DEFAULTS = {
    "mlr.mask.ratio": "0.5",
    "mlr.mask.strategy": "cube",
    "mlr.target": "latent",
    "mlr.action_tokens": "True",
    "mlr.momentum": "True",
}


@dataclass(frozen=True)
class Ablation:
    tree: Tree
    preset: str
    key: str
    step: int  # at which all are compared: the last one that each of the runs has evaluated
    tasks: tuple[str, ...]
    values: dict[str, list[float]]  # value -> normalised score of each run
    baseline: list[float]  # of the Baseline's runs at this step; none where a task lacks one


def ablations(tree: Tree, published: Published, runs: list[Run]) -> list[Ablation]:
    found = []
    for preset in sorted({r.preset for r in runs}):
        own = [r for r in runs if r.preset == preset and r.method == "mlr" and r.task in published.tasks]
        plain = list({(r.task, r.seed): r for r in sorted(own, key=lambda r: r.name, reverse=True) if not r.own_settings}.values())
        for key in ABLATIONS:
            varied = [r for r in own if set(r.own_settings) == {key}]
            tasks = {r.task for r in varied} & {r.task for r in plain}
            for value in {r.changed[key] for r in varied}:
                tasks &= {r.task for r in varied if r.changed[key] == value}
            alike: dict[tuple, list[Run]] = {}
            for run in plain + varied:
                if run.task in tasks:
                    alike.setdefault((run.task, run.own_settings.get(key)), []).append(run)
            chosen = [r for same in alike.values() for r in complete(same)]
            common = set.intersection(*({int(p[r.axis]) for p in r.curve} for r in chosen)) if chosen else set()
            if not common or max(common) == 0:
                continue
            step = max(common)
            values: dict[str, list[float]] = {}
            for run in sorted(chosen, key=lambda r: (r.own_settings.get(key, DEFAULTS[key]), r.task, r.seed, r.name)):
                score = next(p["mean"] for p in run.curve if p[run.axis] == step)
                values.setdefault(run.own_settings.get(key, DEFAULTS[key]), []).append(normalise(tree, published, run.task, score))
            others = [r for r in main_runs(runs, preset) if r.method == "baseline" and r.task in tasks]
            reached = [(r.task, p["mean"]) for r in others for p in r.curve if p[r.axis] == step]
            baseline = [normalise(tree, published, *pair) for pair in reached] if {t for t, _ in reached} == tasks else []
            found.append(Ablation(tree, preset, key, step, tuple(t for t in published.tasks if t in tasks), values, baseline))
    return found
