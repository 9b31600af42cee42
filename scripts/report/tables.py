"""What REPORT.md and README's evidence share: a page of lines, tables and figures, how numbers are written, and two tables."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from DMControl.core.run.files import write_whole
from scripts.ledger.collect import DMCONTROL, Benchmark
from scripts.probes import measurements as readings
from scripts.report import aggregates, comparisons
from scripts.report.aggregates import OURS_FIRST, Published, Run, counted, method_name, ordered

NO_RUN = "no run yet"
TITLES = {"dmcontrol": "DeepMind Control Suite", "atari": "Atari-100k"}
UNITS = {"dmcontrol": "env steps", "atari": "frames"}


class Report:
    """The text as it grows, and where its figures go."""

    def __init__(self, results: Path, figs: Path, draws: bool = True) -> None:
        self.results, self.figs, self.draws = results, figs, draws
        self.lines: list[str] = []
        self.drawn: list[str] = []
        self.notes: list[str] = []

    def say(self, *lines: str) -> None:
        self.lines += [*lines, ""]

    def table(self, head: list[str], rows: list[list[str]]) -> None:
        self.lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]
        for number, says in enumerate(self.notes, 1):
            self.say(f"<sup>{number}</sup> {says}")
        self.notes.clear()

    def note(self, says: list[str]) -> str:
        """The marks of footnotes, for a cell of the next table; they stand below it."""
        self.notes += [text for text in says if text not in self.notes]
        return "".join(f" <sup>{self.notes.index(text) + 1}</sup>" for text in says)

    def figure(self, name: str, says: str, draw: Callable[..., None], *what: Any) -> None:
        if self.draws:
            draw(self.figs, name, *what)
        self.drawn.append(name)
        path = os.path.relpath(self.figs / f"{name}.png", self.results)
        self.say(f"![{says}]({Path(path).as_posix()})")

    def write(self) -> None:
        """The text, and no figure of a former ledger beside it."""
        ours = re.compile(r"((dmcontrol|atari)_.+_(aggregates_\d+|profile_\d+|improvement_\d+|curves_(steps|hours))|ablations)\.(png|svg)")
        for old in self.figs.glob("*.*"):
            if ours.fullmatch(old.name) and old.stem not in self.drawn:
                old.unlink()
        write_whole(self.results / "REPORT.md", "\n".join(self.lines).rstrip() + "\n")


def preset_order(preset: str) -> tuple[int, str]:
    known = ("paper", "small")
    return (known.index(preset) if preset in known else len(known), preset)


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def ours_text(scores: list[float] | None, digits: int, sign: str = "") -> str:
    """mean ± std (seeds)"""
    if not scores:
        return NO_RUN
    mean, std = aggregates.spread(scores)
    return f"{mean:{sign},.{digits}f}{'' if std is None else f' ± {number(std, digits)}'} ({counted(len(scores), 'seed')})"


def with_interval(value: float, bounds: tuple[float, float] | None, digits: int) -> str:
    return f"{value:.{digits}f} " + ("(1 seed)" if bounds is None else f"[{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]")


def published_text(published: Published, budget: int, task: str, method: str, digits: int) -> str:
    score, std = (table.get((budget, task, method)) for table in (published.scores, published.stds))
    return "" if score is None else number(score, digits) + ("" if std is None else f" ± {number(std, digits)}")


def lead_table(report: Report, benchmarks: dict[Benchmark, list[Run]]) -> None:
    """MLR beside the Baseline at equal steps, seed by seed."""
    rows = []
    for benchmark, runs in benchmarks.items():
        digits = 0 if benchmark is DMCONTROL else 1
        for preset in sorted({r.preset for r in runs}, key=preset_order):
            for lead in comparisons.leads(aggregates.main_runs(runs, preset)):
                at = f"{lead.step:,} {UNITS[benchmark.name]}"
                rows.append([lead.task, preset, at, ours_text(lead.last, digits, "+"), ours_text(lead.whole, digits, "+")])
    if rows:
        report.say("#### MLR less the Baseline, seed by seed")
        report.table(["task", "preset", "after", "at the end", "averaged over the training"], rows)
        report.say(
            "Mean ± sample standard deviation of the differences between MLR and the Baseline of the same seed, which gives both the same "
            "first policy and the same random steps."
        )


def span(texts: list[str]) -> str:
    """From the first to the last."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def readout_table(report: Report, heading: str) -> None:
    """What a linear map reads from the latents, where scripts/readout.sh has looked."""
    found: dict[tuple, list[dict[str, str]]] = {}
    for r in readings.READOUT.read(report.results):
        found.setdefault((r["benchmark"], r["task"], r["preset"], r["method"], r["name"], int(r["step"])), []).append(r)

    def order(key: tuple) -> tuple:
        benchmark, task, preset, method, name, step = key
        first = (readings.UNTRAINED, *OURS_FIRST)
        place = first.index(method) if method in first else len(first)
        return benchmark != "dmcontrol", preset_order(preset), task, name, place, method, -step

    if not found:
        return
    rows = []
    for key in sorted(found, key=order):
        benchmark, task, preset, method, name, step = key
        r2, rank = ([float(r[column]) for r in found[key]] for column in ("r2", "rank"))
        after = f"{step:,} {UNITS[benchmark]}" if step else ""
        losses = [[float(r[column]) for r in found[key]] for column in readings.LOSSES if all(r[column] for r in found[key])]
        answer = " / ".join(span([f"{v:#.3g}" for v in sorted(values)]) for values in losses)
        encoder = f"{method_name(method)} {name}".strip()
        rows.append([task, preset, encoder, after, ours_text(r2, 2), span([number(v, 0) for v in sorted(rank)]), answer])
    report.say(f"{heading} What a linear map reads from the latents")
    report.table(
        [
            "task",
            "preset",
            "encoder of",
            "after",
            "R² of the simulator's state",
            "rank of the latents",
            "MLR's loss: own / other / constant",
        ],
        rows,
    )
    report.say(
        "R² on episodes that the map was not fitted to, the same for all runs of a task and drawn once: 1 is all, 0 nothing or less. Mean"
        " over the parts of the state (DMControl: positions and velocities; Atari: the bytes of the console's memory), ± sample standard "
        "deviation over seeds. *untrained*: before the first update. *rank*: effective rank. *own*: MLR's loss on windows of these "
        "episodes; *other*: the same where the decoder is given other windows' masked frames and actions; *constant*: where the mean "
        "target answers all; each from the lowest seed to the highest. As far as *own* and *other* are equal, MLR's answer does not "
        "depend on its input. Losses of other masks, or of pixels, have other scales.Measured by `scripts/readout.sh`."
    )
    decoder_table(report, heading)


def decoder_table(report: Report, heading: str) -> None:
    """Whether MLR's answer comes to depend on its input, where scripts/decoder.sh has looked."""
    rows = readings.DECODER.read(report.results)
    if not rows:
        return

    def order(row: dict[str, str]) -> tuple:
        return row["game"], preset_order(row["preset"]), row["trained"] == readings.IN_THE_RUN, row["trained"], row["settings"], row["seed"]

    report.say(f"{heading} What MLR's decoder learns")
    report.table(
        ["game", "preset", "run", "decoder trained", "settings", "after", "frame's share of the targets", "own / other / constant"],
        [
            [
                row["game"],
                row["preset"],
                f"{method_name(row['method'])} {row['name']}".strip() + f", seed {row['seed']}",
                row["trained"],
                f"`{row['settings']}`" if row["settings"] else "the preset's",
                row["after"],
                row["frame_share"],
                " / ".join(f"{float(row[c]):#.3g}" for c in readings.LOSSES),
            ]
            for row in sorted(rows, key=order)
        ],
    )
    report.say(
        "Losses as above, on games that are not trained on; *in the run*: as its last evaluation logged them, on windows of its replay. "
        "*frame's share*: of the variance of the targets' directions, the part that is due to the frame; the rest comes from its random "
        "shift and intensity. Measured by `scripts/decoder.sh`."
    )


def worlds_table(report: Report, benchmark: Benchmark, published: Published, runs: list[Run], preset: str) -> None:
    """Finished runs in the worlds that they were judged in, beside the published scores there."""
    judged = [r for r in runs if r.finished and r.worlds]
    worlds = sorted({w for r in judged for w in r.worlds}, key=lambda w: (world_order(w), w))
    if not worlds:
        return
    episodes = " or ".join(map(str, sorted({n for r in judged for n in r.judged.values()})))
    report.say(
        f"#### In other worlds, after the last step, preset `{preset}`",
        "",
        f"Trained in the clean world. Ours: mean ± sample standard deviation over seeds, each judged by {episodes} episodes a world, "
        "from the same initial states in all worlds. [procedural]: drawn, not filmed; so were all overlay images. "
        "*published*: after 500,000 agent steps, with real footage, from the papers that `results/published/worlds.csv` names."
        + former_camera(judged),
    )
    methods, rows = ordered(r.method for r in judged), []
    theirs = [m for m in methods if any((r.task, w.partition("[")[0], m) in published.worlds for r in judged for w in worlds)]
    for task, step in sorted({(r.task, r.step) for r in judged}):
        own = [r for r in judged if (r.task, r.step) == (task, step)]
        for world in worlds:
            columns = [[r for r in own if r.method == m and world in r.worlds] for m in methods]
            cells = [ours_text([r.worlds[world] for r in c], 0) + report.note(aggregates.mixed(c)) if c else "" for c in columns]
            found = [published.worlds.get((task, world.partition("[")[0], m)) for m in theirs]
            texts = ["" if f is None else f"{f[0]:.0f} ± {f[1]:.0f}" for f in found]
            rows.append([task, f"{step:,}", world, *cells, *texts])
    head = [benchmark.task, UNITS[benchmark.name], "world", *(method_name(m) for m in methods)]
    report.table([*head, *(f"{method_name(m)}, published" for m in theirs)], rows)


FORMER_CAMERA = ("1155243e88bd", "98050c852796", "ae0c81022e07")  # commits of runs judged before distracting_cs had the published one


def former_camera(runs: list[Run]) -> str:
    """A sentence about the runs that were judged in distracting_cs before its camera was as published."""
    judged = [r for r in runs if any(w.startswith("distracting_cs") for w in r.worlds)]
    before = [r for r in judged if r.commit.endswith(FORMER_CAMERA)]
    if not before:
        return ""
    who = "all runs" if before == judged else ", ".join(f"{r.task} {method_name(r.method)} seed {r.seed}" for r in before)
    return (
        f" In distracting_cs {who} were judged before the published camera was rebuilt: theirs followed the agent and looked at it in "
        "every task; the published one follows the agent only where the suite's own camera does."
    )


def world_order(name: str) -> tuple[int, float]:
    """The training's own, colours, videos, distractions, each from weak to strong."""
    family, _, rest = name.partition("[")[0].partition("_cs_")
    known = ("clean", "color_easy", "color_hard", "video_easy", "video_hard", "distracting")
    return (known.index(family) if family in known else len(known), float(rest or 0))
