"""What the report reads: runs of the ledger and published scores, by task, method and preset."""

import csv
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from scripts.ledger.rows import read, read_curve
from scripts.report.presets import WHOLE_GAME, game_limit
from scripts.trees import DMCONTROL, Tree

BUDGETS = {"dmcontrol": (100_000, 500_000), "atari": (400_000,)}  # of the published tables, in env steps and frames
# settings that do not make a run another experiment. Atari's `steps` is not among them: the importance weights of its replay depend on it
NEUTRAL = (
    *("env_steps", "dmcgb.agent_steps", "precision", "chunk", "mlr.chunk"),
    *("eval.every", "eval.episodes", "eval.worlds", "eval.intensities", "eval.distractions", "eval.video"),
)
METHOD_NAMES = {
    "mlr": "MLR", "baseline": "Baseline", "playvirtual": "PlayVirtual", "spr": "SPR", "curl": "CURL", "drq": "DrQ", "drq_eps": "DrQ(ε)",
    "der": "DER",
    "otr": "OTRainbow", "sac_ae": "SAC+AE", "slac": "SLAC", "dreamer": "Dreamer", "planet": "PlaNet", "madi": "MaDi", "svea": "SVEA",
    "soda": "SODA", "pad": "PAD", "rad": "RAD", "sgqn": "SGQN", "sac": "SAC", "mlr_madi": "MLR + MaDi",
    "human": "Human", "random": "Random",
}  # fmt: skip
OURS_FIRST = ("mlr", "baseline")


def of_the_papers_table(method: str, preset: str) -> bool:
    """Whether the method of this name in MLR's table is the same one. Not in MaDi's family: DMControl-GB's DrQ is not DrQ's own."""
    return method in OURS_FIRST or not preset.startswith("madi")


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
    worlds: dict[str, float]  # world -> mean return, its own world included
    judged: dict[str, int]  # world -> number of episodes
    curve: tuple[dict[str, float], ...] = field(repr=False)
    axis: str  # the curve's column of steps
    game_limit: int | None = None  # agent steps after which its games were cut short

    def at(self, step: int) -> float | None:
        """The score after this many steps, None without an evaluation there; one may come an agent step late."""
        if step <= self.step < step * 1.01:
            return self.score
        found = [point["mean"] for point in self.curve if step <= point[self.axis] < step * 1.01]
        return found[0] if found else None

    @property
    def own_settings(self) -> dict[str, str]:
        """The changed settings that make it another experiment than its preset."""
        return {k: v for k, v in self.changed.items() if not k.startswith(NEUTRAL)}


def load_runs(results: Path, tree: Tree) -> list[Run]:
    runs = []
    for row in read(results, tree):
        changed = dict(word.partition("=")[::2] for word in row["changed"].split())
        own = {k: row[k] for k in ("method", "preset", "name", "hardware", "commit", "config_hash")}
        machines = own["hardware"].replace(", 1 threads", ", 1 thread").split(" + ")  # the first rows say 1 threads
        own["hardware"] = " + ".join(dict.fromkeys(machines))
        judged = [re.fullmatch(r"(.+):(\d+)=(.+)", word).groups() for word in row["worlds"].split()]
        numbers = {"step": int(row[tree.step]), "planned": int(row["planned"]), "seed": int(row["seed"])}
        runs.append(
            Run(
                task=row[tree.task],
                finished=row["finished"] == "yes",
                score=float(row["score"]),
                hours=float(row["hours"]),
                changed=changed,
                worlds={w: float(mean) for w, _, mean in judged},
                judged={w: int(episodes) for w, episodes, _ in judged},
                curve=tuple(read_curve(results, tree, row)),
                axis=tree.step,
                game_limit=game_limit(tree, row["method"], row["preset"], changed),
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
    sources: dict[tuple[str, str, str], str]  # (game, method, source other than MLR's table): the score, with its spread and runs


def load_published(folder: Path, tree: Tree) -> Published:
    scores, stds, worlds, aggregates, sources = {}, {}, {}, {}, {}
    if tree is DMCONTROL:
        for line in [*_lines(folder / "dmcontrol.csv"), *_lines(folder / "dmcontrol_spr.csv")]:  # MLR's table lacks SPR
            key = (int(line["env_steps"]), line["task"], line["method"])
            scores[key], stds[key] = float(line["mean"]), float(line["std"])
        for line in _lines(folder / "worlds.csv"):
            worlds[line["task"], line["world"], line["method"]] = (float(line["mean"]), float(line["std"]))
        for line in _lines(folder / "dmcontrol_aggregates.csv"):
            budget, name = int(line.pop("env_steps")), line.pop("aggregate")
            aggregates.update({(budget, name, m): float(v) for m, v in line.items() if v})
        for budget in BUDGETS[tree.name]:  # SPR's paper gives the median alone
            means = [score for (b, _, method), score in scores.items() if (b, method) == (budget, "spr")]
            aggregates |= {(budget, "mean", "spr"): statistics.fmean(means), (budget, "median", "spr"): statistics.median(means)}
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
        for line in _lines(folder / "atari100k_sources.csv"):
            key = (budget, line["game"], line["method"])
            if line["std"]:  # 100 runs each, from which MLR's table has its CURL and SPR; it lacks DrQ(eps)
                scores[key], stds[key] = float(line["mean"]), float(line["std"])
            sources[line["game"], line["method"], line["source"]] = line["mean"]
    tasks = list(dict.fromkeys(task for _, task, _ in scores))
    methods = list(dict.fromkeys(method for _, _, method in scores))
    return Published(tasks, methods, scores, stds, worlds, aggregates, sources)


def _lines(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as handle:
        return list(csv.DictReader(handle))


def groups(runs: Iterable[Run], budget: int) -> dict[tuple[str, str], list[float]]:
    """(task, method) -> the scores of all seeds at this budget, by seed."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        score = run.at(budget)
        if score is not None:
            found.setdefault((run.task, run.method), []).append(score)
    return found


def comparable(by_task: dict[str, dict[str, list[Run]]], tasks: list[str]) -> tuple[list[str], list[str]]:
    """Methods and the tasks they all have, at least two. Methods with the fewest tasks are dropped first."""
    count = {m: sum(m in by_task[t] for t in tasks) for m in ordered(m for t in tasks for m in by_task[t])}
    methods = sorted(count, key=lambda m: -count[m])
    while methods:
        common = [t for t in tasks if all(m in by_task[t] for m in methods)]
        if len(common) > 1:
            return ordered(methods), common
        methods.pop()
    return [], []


def complete(runs: list[Run]) -> list[Run]:
    """The finished runs if there are any: a run that was cut off would shorten the curve of all."""
    return [r for r in runs if r.finished] or runs


def remarks(runs: Iterable[Run]) -> list[str]:
    """Footnotes for cells whose seeds ran with different settings, with games that were cut short, or with code that nobody has."""
    cells: dict[tuple, list[Run]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        cells.setdefault((run.task, run.method, run.preset, run.name), []).append(run)
    notes = []
    for (task, method, preset, name), own in cells.items():
        label = f"{task}, {method_name(method)} {name}".strip()
        hashes = list(dict.fromkeys(r.config_hash for r in own))
        if len(hashes) > 1:
            parts = " and ".join(seeds_of([r for r in own if r.config_hash == h]) for h in hashes)
            what = f"versions of the preset `{preset}`" if all(r.changed == own[0].changed for r in own) else "settings"
            notes.append(f"{label}: {parts} ran with different {what} (config hashes {', '.join(hashes)}).")
        short = [r for r in own if r.game_limit]
        if short:
            limits = " or ".join(f"{limit:,}" for limit in sorted({r.game_limit for r in short}))
            notes.append(f"{label}: {seeds_of(short)} played games that were cut short after {limits} steps (published: {WHOLE_GAME:,}).")
        loose = [r for r in own if r.commit == "unknown" or "+" in r.commit]
        if loose:
            commits = ", ".join(dict.fromkeys(r.commit for r in loose))
            notes.append(f"{label}: {seeds_of(loose)} ran with code that was not committed (commit {commits}).")
    return notes


def seeds_of(runs: list[Run]) -> str:
    return f"seed{'' if len(runs) == 1 else 's'} {', '.join(str(r.seed) for r in runs)}"


def main_runs(runs: Iterable[Run], preset: str) -> list[Run]:
    """The runs of a preset without a name and without settings of their own."""
    return [r for r in runs if r.preset == preset and not r.name and not r.own_settings]


def spread(scores: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation over seeds."""
    return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None


def preset_order(preset: str) -> tuple[int, str]:
    """paper, small, then the others by name."""
    known = ("paper", "small")
    return (known.index(preset) if preset in known else len(known), preset)
