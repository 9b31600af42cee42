"""results/REPORT.md and its figures, from the ledger and the published tables alone.

python scripts/report.py [--results DIR] [--figs DIR] [--resamples 2000] [--text] [--readme FILE]

--text           no figures
--readme FILE    also the part of this file that stands between the marks <!-- evidence: ... --> and <!-- end of evidence -->

What has no run is shown as such. Published numbers are marked as published, and seeds are counted.
"""

from pathlib import Path

from DMControl.core.errors import UserError, run_main
from scripts.ledger import collect as ledger
from scripts.ledger.collect import ATARI, BENCHMARKS, DMCONTROL, Benchmark
from scripts.report import aggregates, comparisons, figures
from scripts.report.aggregates import AGGREGATE_NAMES, AGGREGATES, BUDGETS, OURS_FIRST, Curve, Published, Run, counted, method_name, ordered
from scripts.report.summary import readme
from scripts.report.tables import (
    NO_RUN,
    TITLES,
    UNITS,
    Report,
    lead_table,
    number,
    ours_text,
    preset_order,
    published_text,
    readout_table,
    with_interval,
    worlds_table,
)

ROOT = Path(__file__).resolve().parents[2]


def budgets(benchmark: Benchmark, preset: str, runs: list[Run]) -> list[int]:
    """The published ones, and where finished runs of a preset of ours end."""
    own = {r.step for r in runs if r.finished} if preset != "paper" else set()
    published = {b for b in BUDGETS[benchmark.name] if preset == "paper" or any(r.at(b) is not None for r in runs)}
    own = {s for s in own if not any(b <= s < b * 1.01 for b in published)}
    return sorted(own | published)


def score_table(report: Report, benchmark: Benchmark, published: Published, runs: list[Run], budget: int) -> None:
    """Per task: ours beside the published MLR and Baseline with the difference, then every other published method."""
    found = aggregates.groups(runs, budget)
    known = budget in BUDGETS[benchmark.name]
    theirs = BUDGETS[benchmark.name][0] if not known else budget
    digits = 0 if benchmark is DMCONTROL else 1
    ours = ordered(["mlr", "baseline", *(m for _, m in found)])
    others = [m for m in published.methods if m not in (*OURS_FIRST, "human", "random")]  # its DrQ is not DMControl-GB's, which is ours
    references = [m for m in ("human", "random") if m in published.methods]
    head = [benchmark.task, *(method_name(m) for m in references)]
    for method in ours:
        head += [f"**{method_name(method)}, ours**"]
        if method in OURS_FIRST:
            head += [f"{method_name(method)}, published", "difference"]
    head += [f"{method_name(m)}, published" for m in others]
    rows = []
    for task in [*published.tasks, *sorted({t for t, _ in found} - set(published.tasks))]:
        row = [task, *(number(published.scores.get((theirs, task, m)), digits) for m in references)]
        for method in ours:
            scores = found.get((task, method))
            own = [r for r in runs if (r.task, r.method) == (task, method) and r.at(budget) is not None]
            row.append(ours_text(scores, digits) + report.note(aggregates.mixed(own)))
            if method in OURS_FIRST:
                score = published.scores.get((theirs, task, method))
                row.append(published_text(published, theirs, task, method, digits))
                comparable = known and scores and score is not None
                row.append(f"{aggregates.spread(scores)[0] - score:+,.{digits}f}" if comparable else "")
        rows.append([*row, *(published_text(published, theirs, task, m, digits) for m in others)])
    report.say(
        f"#### Scores at {budget:,} {UNITS[benchmark.name]}",
        "",
        "Ours: mean ± sample standard deviation over seeds of the last evaluation's mean."
        + ("" if known else f" The published columns are at {theirs:,} {UNITS[benchmark.name]}, so there is no difference to take."),
    )
    report.table(head, rows)


def aggregate_table(report: Report, benchmark: Benchmark, published: Published, runs: list[Run], budget: int, name: str) -> None:
    """The paper's aggregates, ours with intervals; where tasks are missing, the published ones over the same tasks as well."""
    digits = 1 if benchmark is DMCONTROL else 3
    known = budget in BUDGETS[benchmark.name]
    kinds = AGGREGATES[benchmark.name]
    methods = ordered(["mlr", "baseline", *(r.method for r in runs)])
    matrices = {m: aggregates.matrix(benchmark, published, runs, m, budget) for m in methods}
    total, rows, values = len(published.tasks), [], {}
    for method, matrix in matrices.items():
        if matrix is None:
            rows.append([f"**{method_name(method)}, ours**", NO_RUN, *("" for _ in kinds)])
            continue
        values[method] = {kind: aggregates.interval(matrix.scores, func) for kind, func in kinds.items()}
        own = [with_interval(*values[method][kind], digits) for kind in kinds]
        rows.append([f"**{method_name(method)}, ours**", f"{len(matrix.tasks)} of {total} {benchmark.task}s, {matrix.seeds()}", *own])
        if known and len(matrix.tasks) < total and method in OURS_FIRST:
            same = [aggregates.published_on(benchmark, published, budget, method, matrix.tasks, kind) for kind in kinds]
            if None not in same:
                source = "the same, from published means"
                rows.append([f"{method_name(method)}, published", source, *(number(v, digits) for v in same)])
    theirs: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
    if known:
        for method in published.methods:
            found = {kind: published.aggregates.get((budget, kind, method)) for kind in kinds}
            if None not in found.values():
                theirs = {kind: theirs[kind] | {method: found[kind]} for kind in kinds}
                rows.append([f"{method_name(method)}, published", f"all {total}", *(number(v, digits) for v in found.values())])
    present = {m: x for m, x in matrices.items() if x is not None}
    bounds = aggregates.bounds_name(len(x.scores) for x in present.values())
    says = f"Ours, in brackets: {bounds}."
    if "range" in bounds:
        says += " The range: with the lowest seed of each task, and with the highest."
    if "bootstrap" in bounds:
        says += f" The bootstrap: stratified, from rliable, {aggregates.RESAMPLES:,} resamples, fixed seed."
    report.say(f"#### Aggregates at {budget:,} {UNITS[benchmark.name]}", "", says)
    report.table(["method", "over", *(AGGREGATE_NAMES[k] for k in kinds)], rows)
    shared = aggregates.on_common_tasks(present)
    if shared:
        tasks = next(iter(shared.values())).tasks
        over = "" if len(tasks) == total else f"\n{len(tasks)} of {total} {benchmark.task}s"
        panels = {}
        for kind, func in kinds.items():
            bars = theirs[kind]
            if over and known:
                again = {m: aggregates.published_on(benchmark, published, budget, m, tasks, kind) for m in published.methods}
                bars = {m: v for m, v in again.items() if v is not None}
            bars = {m: v for m, v in bars.items() if m not in ("human", "random")}
            own = {m: values[m][kind] if x.tasks == present[m].tasks else aggregates.interval(x.scores, func) for m, x in shared.items()}
            source = ", published: from means" if over and bars else ""
            panels[f"{AGGREGATE_NAMES[kind]} at {budget:,} {UNITS[benchmark.name]}{over}{source}"] = (bars, own)
        says = "aggregates: ours as points with bounds" + (", published as bars" if any(b for b, _ in panels.values()) else "")
        report.figure(f"{name}_aggregates_{budget}", says, figures.bars, panels, bounds)
        label = f"{budget:,} {UNITS[benchmark.name]}, {counted(len(tasks), benchmark.task)}"
        says = "performance profile: the share of runs above a score"
        report.figure(f"{name}_profile_{budget}", says, figures.profiles, benchmark, shared, label)
    improvement(report, benchmark, present, budget, name)


def improvement(report: Report, benchmark: Benchmark, present: dict, budget: int, name: str) -> None:
    found, rows = {}, []
    for other in [m for m in ("baseline", *present) if m != "mlr"]:
        if other in found or "mlr" not in present or other not in present:
            if other == "baseline":
                rows.append([f"MLR over {method_name(other)}", NO_RUN, ""])
            continue
        ours, theirs = present["mlr"], present[other]
        tasks = [t for t in ours.tasks if t in theirs.tasks]
        if not tasks:
            rows.append([f"MLR over {method_name(other)}", f"no {benchmark.task} in common", ""])
            continue
        pair = [m.scores[:, [m.tasks.index(t) for t in tasks]] for m in (ours, theirs)]
        label = f"MLR over {method_name(other)}"
        found[label] = aggregates.improvement(*pair)
        over = f"{counted(len(tasks), benchmark.task)}, {ours.seeds()} against {theirs.seeds()}"
        value, bounds = found[label]
        rows.append([label, over, f"{value:.2f}" if bounds is None else with_interval(value, bounds, 2)])
    report.say(
        "Probability of improvement: how often a run of MLR scores above a run of the other, 0.5 being even. "
        f"From {aggregates.FEW} seeds of both on with its 95% bootstrap interval."
    )
    report.table(["", "over", "probability"], list(dict.fromkeys(map(tuple, rows))))
    if found:
        report.figure(f"{name}_improvement_{budget}", "probability of improvement", figures.improvement, found)


def curve_figures(report: Report, benchmark: Benchmark, published: Published, runs: list[Run], name: str) -> None:
    def scale(task: str, score: float) -> float:
        return aggregates.normalise(benchmark, published, task, score) if task in published.tasks else score

    by_task: dict[str, dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        if len(run.curve) > 1:
            by_task.setdefault(run.task, {}).setdefault(run.method, []).append(run)
    panels: dict[str, dict[str, Curve]] = {}
    cut: dict[str, list[tuple[str, Curve]]] = {}
    known = [t for t in published.tasks if t in by_task]
    for task in [*known, *sorted(set(by_task) - set(known))]:
        panels[task] = {}
        for method in ordered(by_task[task]):
            whole = aggregates.complete(by_task[task][method])
            found = aggregates.curve([whole], scale, aggregates.mean_curve)
            if found is not None:
                panels[task][method] = found
            for run in by_task[task][method]:
                if run not in whole and (part := aggregates.curve([[run]], scale, aggregates.mean_curve)) is not None:
                    cut.setdefault(task, []).append((method, part))
    finished = {t: {m: whole for m, own in by_task[t].items() if (whole := [r for r in own if r.finished])} for t in known}
    methods, tasks = aggregates.comparable(finished, known)
    if methods and len({len(finished[t][m]) for t in tasks for m in methods}) == 1:  # as many seeds of each
        func = aggregates.mean_curve if benchmark is DMCONTROL else aggregates.iqm_curve
        every = {m: aggregates.curve([finished[t][m] for t in tasks], scale, func) for m in methods}
        panels[f"{'mean' if benchmark is DMCONTROL else 'IQM'} of {len(tasks)} {benchmark.task}s"] = {m: c for m, c in every.items() if c}
    report.say("#### Learning curves")
    if not panels:
        report.say(NO_RUN)
        return
    marks = figures.published_marks(benchmark, published, panels, cut)
    report.say(
        f"Mean over seeds, shaded: {aggregates.bounds_name(c.seeds for own in panels.values() for c in own.values())}. "
        "Only evaluations that every seed has"
        + ("; dotted: runs that were cut off." if cut else ".")
        + (f" Hollow marks, against {UNITS[benchmark.name]}: published." if marks else "")
    )
    for hours in (False, True):
        file = f"{name}_curves_{'hours' if hours else 'steps'}"
        says = f"learning curves against {'hours' if hours else UNITS[benchmark.name]}"
        report.figure(file, says, figures.curves, benchmark, panels, cut, marks, hours)


def section(report: Report, benchmark: Benchmark, published: Published, runs: list[Run]) -> None:
    report.say(f"## {TITLES[benchmark.name]}")
    presets = ["paper", *sorted({r.preset for r in runs} - {"paper"}, key=preset_order)]
    for preset in presets:
        chosen = aggregates.main_runs(runs, preset)
        if not chosen and preset != "paper":
            continue
        name = f"{benchmark.name}_{preset}"
        report.say(f"### Preset `{preset}`: {counted(len(chosen), 'run') if chosen else NO_RUN}")
        if preset != "paper":
            what = "MaDi's published setting" if preset == "madi" else "Not the published setting"
            report.say(f"{what}: the numbers of MLR's paper stand beside it for orientation.")
        for budget in budgets(benchmark, preset, chosen):
            score_table(report, benchmark, published, chosen, budget)
            aggregate_table(report, benchmark, published, chosen, budget, name)
        worlds_table(report, benchmark, published, chosen, preset)
        curve_figures(report, benchmark, published, chosen, name)
    lead_table(report, {benchmark: runs})
    cut_off(report, benchmark, [r for r in runs if not r.finished])
    variants(report, benchmark, [r for r in runs if r.name or r.own_settings])


def cut_off(report: Report, benchmark: Benchmark, runs: list[Run]) -> None:
    if not runs:
        return
    report.say("### Runs that ended early", "", "Their scores count in no table above, unless they have reached its steps.")
    rows = [
        [r.task, method_name(r.method), r.preset, r.name, str(r.seed), f"{r.step:,}", f"{r.planned:,}", f"{r.score:,.1f}", f"{r.hours:.2f}"]
        for r in runs
    ]
    report.table(
        [benchmark.task, "method", "preset", "name", "seed", f"{UNITS[benchmark.name]} reached", "planned", "score there", "hours"], rows
    )


def variants(report: Report, benchmark: Benchmark, runs: list[Run]) -> None:
    if not runs:
        return
    report.say("### Variants", "", "Runs with settings or a name of their own; they count in no table above.")
    rows = []
    for r in runs:
        settings = " ".join(f"`{k}={v}`" for k, v in r.changed.items())
        rows.append([r.task, method_name(r.method), r.preset, r.name, str(r.seed), f"{r.step:,}", f"{r.score:,.1f}", settings])
    report.table([benchmark.task, "method", "preset", "name", "seed", UNITS[benchmark.name], "score", "settings"], rows)


def ablation_section(report: Report, found: list[comparisons.Ablation]) -> None:
    report.say("## Ablations")
    if not found:
        report.say(f"{NO_RUN} (needed: MLR with one setting changed, on a task where MLR as it stands has a run)")
        return
    report.say("One setting of MLR changed at a time, compared at the last evaluation that all runs of a row have. Mean over runs.")
    rows = []
    for a in found:
        for value, scores in a.values.items():
            text = f"{sum(scores) / len(scores):,.{1 if a.benchmark is DMCONTROL else 3}f} ({counted(len(scores), 'run')})"
            own = " (as it stands)" if value == comparisons.DEFAULTS[a.key] else ""
            rows.append([f"`{a.key}={value}`{own}", a.benchmark.name, a.preset, ", ".join(a.tasks), f"{a.step:,}", text])
    report.table(["setting", "benchmark", "preset", "on", "steps", "score"], rows)
    says = "ablations: each run a dot, their mean a bar, the Baseline's mean a dashed line in a band, their range"
    report.figure("ablations", says, figures.ablations, found, lambda a: f"{a.step:,} {UNITS[a.benchmark.name]}, {a.preset}")


def hardware(report: Report, runs: dict[Benchmark, list[Run]]) -> None:
    report.say("## Hours and hardware")
    rows = []
    for benchmark, own in runs.items():
        keys = sorted({(r.preset, r.method, r.hardware) for r in own})
        for preset, method, where in keys:
            chosen = [r for r in own if (r.preset, r.method, r.hardware) == (preset, method, where)]
            hours = sum(r.hours for r in chosen)
            rate = hours / sum(r.step for r in chosen) * 100_000
            rows.append([benchmark.name, preset, method_name(method), where, str(len(chosen)), f"{hours:.2f}", f"{rate:.2f}"])
    if rows:
        report.table(
            ["benchmark", "preset", "method", "hardware", "runs", "hours in all", "hours per 100,000 steps of the simulator"], rows
        )
    else:
        report.say(NO_RUN)


def main(arguments: list[str]) -> int:
    folders, page, draws = {"--results": ROOT / "results", "--figs": ROOT / "figs"}, None, True
    rest = iter(arguments)
    for argument in rest:
        if argument == "--text":
            draws = False
            continue
        value = next(rest, "")
        if argument == "--readme" and value:
            page = Path(value)
        elif argument == "--resamples" and value.isdecimal() and int(value) > 0:
            aggregates.RESAMPLES = int(value)
        elif argument in folders and value:
            folders[argument] = Path(value)
        else:
            raise UserError(f"{argument} {value} is unknown: write --results DIR, --figs DIR, --resamples N, --text or --readme FILE")
    results = folders["--results"]
    if not results.is_dir():
        raise UserError(f"--results {results} is not a folder: scripts/ledger.sh --results {results} makes it")
    if page is not None and not page.is_file():
        raise UserError(f"--readme {page} is not a file")
    ledger.check_published(ledger.PUBLISHED)
    runs = {b: aggregates.load_runs(results, b) for b in BENCHMARKS}
    published = {b: aggregates.load_published(ledger.PUBLISHED, b) for b in BENCHMARKS}
    report = Report(results, folders["--figs"], draws)
    report.say(
        "# Report",
        "",
        "Written by `scripts/report.sh` from `results/dmcontrol.csv`, `results/atari.csv` and `results/curves/` (ours: one row per run, "
        "collected by `scripts/ledger.sh`) and `results/published/` (the tables of the paper). Do not edit: the next call replaces it.",
        "",
        f"Runs in the ledger: {len(runs[DMCONTROL])} on {TITLES['dmcontrol']}, {len(runs[ATARI])} on {TITLES['atari']}.",
        "",
        "The published tables give means per task, not single runs. DMControl's mean and median, computed again from them, are within "
        f"{aggregates.recomputed(published[DMCONTROL]):.2g} of the published ones; the paper's IQM and optimality gap are over runs, which "
        "were not published with it: they stand here as the paper states them.",
    )
    for benchmark in BENCHMARKS:
        section(report, benchmark, published[benchmark], runs[benchmark])
    ablation_section(report, [a for b in BENCHMARKS for a in comparisons.ablations(b, published[b], runs[b])])
    readout_table(report, "##")
    hardware(report, runs)
    report.write()
    if page is not None:
        readme(report, runs, published, page)
    print(f"{results / 'REPORT.md'}, {len(report.drawn)} figure(s) in {report.figs}")
    return 0


if __name__ == "__main__":
    run_main(main)
