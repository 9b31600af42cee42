"""Comparisons at equal steps: MLR with its Baseline seed by seed, and MLR with one setting changed with unchanged MLR."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from scripts.report.aggregates import normalise
from scripts.report.data import Published, Run, complete, main_runs
from scripts.trees import Tree


@dataclass(frozen=True)
class Lead:
    """MLR's scores less those of the Baseline with the same seed, which began with the same policy and the same random steps."""

    task: str
    step: int
    last: list[float]  # per seed, at this step
    whole: list[float]  # per seed, the mean over all evaluations but the one before the training


def leads(runs: Iterable[Run]) -> list[Lead]:
    """Per task, over the finished runs of one preset that have evaluations at the same steps."""
    finished = {(r.task, r.method, r.seed): r for r in runs if r.finished}
    found: dict[tuple[str, int], Lead] = {}
    for (task, method, seed), ours in sorted(finished.items()):
        other = finished.get((task, "baseline", seed))
        if method != "mlr" or other is None or other.step != ours.step:
            continue
        curves = [{int(p[r.axis]): p["mean"] for p in r.curve} for r in (ours, other)]
        later = [curves[0][s] - curves[1][s] for s in sorted(set(curves[0]) & set(curves[1])) if s > 0]
        if later:
            lead = found.setdefault((task, ours.step), Lead(task, ours.step, [], []))
            lead.last.append(ours.score - other.score)
            lead.whole.append(statistics.fmean(later))
    return list(found.values())


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
