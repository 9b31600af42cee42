"""results/REPORT.md and its figures, from the ledger and the published tables alone.

scripts/report.sh [--results DIR] [--figs DIR] [--resamples 2000] [--text] [--all] [--readme FILE]

--text           no figures
--all            also tasks, methods and sections without a run, with their published scores
--readme FILE    also the table between <!-- results: ... --> and <!-- end of results --> in this file

Published numbers are marked as published, and seeds are counted.
"""

from pathlib import Path

from DMControl.core.errors import UserError, run_main
from scripts.ledger import rows as ledger
from scripts.report import aggregates, comparisons, data, figures, presets
from scripts.report.aggregates import AGGREGATE_NAMES, AGGREGATES, Curve
from scripts.report.data import Published, Run, counted, method_name
from scripts.report.page import NO_RUN, Page, number, with_interval
from scripts.report.probes import decoder_table, readout_table
from scripts.report.summary import video_table, write_summary
from scripts.report.tables import comparison_table, cut_off_table, hardware_table, score_table, sources_table, variant_table, worlds_table
from scripts.runs.options import take, unknown
from scripts.trees import ATARI, DMCONTROL, TREES, Tree


def budgets(tree: Tree, preset: str, runs: list[Run]) -> list[int]:
    """The steps at which scores are compared: the published ones, and for our presets the last steps of finished runs."""
    if preset == "paper":
        return list(data.BUDGETS[tree.name])
    published = {b for b in data.BUDGETS[tree.name] if any(r.at(b) is not None for r in runs)}
    return sorted(published | {r.step for r in runs if r.finished and not any(b <= r.step < b * 1.01 for b in published)})


def aggregate_table(page: Page, tree: Tree, published: Published, runs: list[Run], budget: int, preset: str) -> None:
    """The paper's aggregates, ours with intervals. Where we lack tasks, also the published ones over our tasks."""
    name, digits = f"{tree.name}_{preset}", 1 if tree is DMCONTROL else 3
    known = budget in data.BUDGETS[tree.name]
    kinds = AGGREGATES[tree.name]
    methods = data.ordered(["mlr", "baseline", *(r.method for r in runs)])
    matrices = {m: aggregates.matrix(tree, published, runs, m, budget) for m in methods}
    total, rows, values = len(published.tasks), [], {}
    for method, matrix in matrices.items():
        if matrix is None:
            if page.everything:
                rows.append([f"**{method_name(method)}, ours**", NO_RUN, *("" for _ in kinds)])
            continue
        values[method] = {kind: aggregates.interval(matrix.scores, func) for kind, func in kinds.items()}
        own = [with_interval(*values[method][kind], digits) for kind in kinds]
        rows.append([f"**{method_name(method)}, ours**", f"{len(matrix.tasks)} of {total} {tree.task}s, {matrix.seeds()}", *own])
        if known and len(matrix.tasks) < total and method in published.methods and data.of_the_papers_table(method, preset):
            same = [aggregates.published_on(tree, published, budget, method, matrix.tasks, kind) for kind in kinds]
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
    text = f"Ours, in brackets: {bounds}." if bounds else ""
    if "range" in bounds:
        text += " The range: with the lowest seed of each task, and with the highest."
    if "bootstrap" in bounds:
        text += f" The bootstrap: stratified, from rliable, {aggregates.RESAMPLES:,} resamples, fixed seed."
    page.say(f"#### Aggregates at {budget:,} {tree.unit}", "", text)
    page.table(["method", "over", *(AGGREGATE_NAMES[k] for k in kinds)], rows)
    shared = aggregates.on_common_tasks(present)
    left_out(page, tree, [r for r in runs if r.at(budget) is not None and r.method not in shared])
    if shared:
        tasks = next(iter(shared.values())).tasks
        over = "" if len(tasks) == total else f"\n{len(tasks)} of {total} {tree.task}s"
        panels = {}
        for kind, func in kinds.items():
            bars = theirs[kind]
            if over and known:
                again = {m: aggregates.published_on(tree, published, budget, m, tasks, kind) for m in published.methods}
                bars = {m: v for m, v in again.items() if v is not None}
            bars = {m: v for m, v in bars.items() if m not in ("human", "random")}
            own = {m: values[m][kind] if x.tasks == present[m].tasks else aggregates.interval(x.scores, func) for m, x in shared.items()}
            source = ", published: from means" if over and bars else ""
            panels[f"{AGGREGATE_NAMES[kind]} at {budget:,} {tree.unit}{over}{source}"] = (bars, own)
        caption = "aggregates: ours with bounds" + (", published paler" if any(b for b, _ in panels.values()) else "")
        page.figure(f"{name}_aggregates_{budget}", caption, figures.bars, panels, bounds)
        label = f"{budget:,} {tree.unit}, {counted(len(tasks), tree.task)}"
        caption = "performance profile: the share of runs above a score"
        page.figure(f"{name}_profile_{budget}", caption, figures.profiles, tree, shared, label)


def left_out(page: Page, tree: Tree, runs: list[Run]) -> None:
    """Name the methods that stand in no figure of aggregates, with their tasks."""
    if runs:
        tasks = {m: ", ".join(sorted({r.task for r in runs if r.method == m})) for m in data.ordered(r.method for r in runs)}
        named = "; ".join(f"{method_name(m)} ({text})" for m, text in tasks.items())
        page.say(f"Not in the figures, for want of a published {tree.task} in common with the others: {named}.")


def comparison(page: Page, tree: Tree, published: Published, runs: list[Run], budget: int, name: str) -> None:
    """One method against each of the others: a table, and a figure of how often its runs score higher, on all tasks of a pair."""
    found = comparisons.compare(tree, published, runs, budget)
    if found:
        comparison_table(page, tree, found, budget)
        over_all = {f"{method_name(c.method)} over {method_name(c.other)}": c.probability for c in found}  # the last row of each pair
        page.figure(f"{name}_improvement_{budget}", "probability of improvement", figures.improvement, over_all)


def curve_figures(page: Page, tree: Tree, published: Published, runs: list[Run], name: str) -> None:
    def scale(task: str, score: float) -> float:
        return aggregates.normalise(tree, published, task, score) if task in published.tasks else score

    by_task: dict[str, dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        if len(run.curve) > 1:
            by_task.setdefault(run.task, {}).setdefault(run.method, []).append(run)
    panels: dict[str, dict[str, Curve]] = {}
    cut: dict[str, list[tuple[str, Curve]]] = {}
    known = [t for t in published.tasks if t in by_task]
    for task in [*known, *sorted(set(by_task) - set(known))]:
        panels[task] = {}
        for method in data.ordered(by_task[task]):
            whole = data.complete(by_task[task][method])
            found = aggregates.curve([whole], scale, aggregates.mean_curve)
            if found is not None:
                panels[task][method] = found
            for run in by_task[task][method]:
                if run not in whole and (part := aggregates.curve([[run]], scale, aggregates.mean_curve)) is not None:
                    cut.setdefault(task, []).append((method, part))
    finished = {t: {m: whole for m, own in by_task[t].items() if (whole := [r for r in own if r.finished])} for t in known}
    methods, tasks = data.comparable(finished, known)
    if methods and len({len(finished[t][m]) for t in tasks for m in methods}) == 1:  # all have as many seeds
        func = aggregates.mean_curve if tree is DMCONTROL else aggregates.iqm_curve
        every = {m: aggregates.curve([finished[t][m] for t in tasks], scale, func) for m in methods}
        panels[f"{'mean' if tree is DMCONTROL else 'IQM'} of {len(tasks)} {tree.task}s"] = {m: c for m, c in every.items() if c}
    page.say("#### Learning curves")
    if not panels:
        page.say(NO_RUN)
        return
    points = figures.published_points(tree, published, panels, cut)
    bounds = aggregates.bounds_name(c.seeds for own in panels.values() for c in own.values())
    page.say(
        (f"Mean over seeds, shaded: {bounds}. " if bounds else "One seed each. ")
        + "Only evaluations that every seed has"
        + ("; dotted: runs that were cut off." if cut else ".")
        + (f" Hollow marks, against {tree.unit}: published." if points else "")
    )
    for hours in (False, True):
        file = f"{name}_curves_{'hours' if hours else 'steps'}"
        caption = f"learning curves against {'hours' if hours else tree.unit}"
        page.figure(file, caption, figures.curves, tree, panels, cut, points, hours)


def section(page: Page, tree: Tree, published: Published, runs: list[Run]) -> None:
    page.say(f"## {tree.title}")
    found = {preset: data.main_runs(runs, preset) for preset in sorted({"paper", *(r.preset for r in runs)}, key=data.preset_order)}
    for preset, chosen in sorted(found.items(), key=lambda item: not item[1]):  # one's own results first
        if not chosen and preset != "paper":
            continue
        name = f"{tree.name}_{preset}"
        page.say(f"### Preset `{preset}`: {counted(len(chosen), 'run') if chosen else NO_RUN}")
        if not chosen and not page.everything:
            page.say("`scripts/report.sh --all` lists the published scores, which also stand in `results/published/`.")
            continue
        if changes := presets.description(tree, preset):
            page.say(changes)
        if preset != "paper":
            what = "MaDi's published setting" if preset == "madi" else "Not the published setting"
            page.say(f"{what}: published numbers stand beside it for orientation.")
        for budget in budgets(tree, preset, chosen):
            score_table(page, tree, published, chosen, budget, preset)
            aggregate_table(page, tree, published, chosen, budget, preset)
            comparison(page, tree, published, chosen, budget, name)
        worlds_table(page, tree, published, chosen, preset)
        curve_figures(page, tree, published, chosen, name)
    cut_off_table(page, tree, [r for r in runs if not r.finished])
    variant_table(page, tree, [r for r in runs if r.name or r.own_settings])
    sources_table(page, tree, published)


def ablation_section(page: Page, found: list[comparisons.Ablation]) -> None:
    if not found and not page.everything:
        return
    page.say("## Ablations")
    if not found:
        page.say(f"{NO_RUN} (needed: MLR with one setting changed, on a task where MLR as it stands has a run)")
        return
    page.say("One setting of MLR changed at a time, compared at the last evaluation that all runs of a row have. Mean over runs.")
    rows = []
    for a in found:
        for value, scores in a.values.items():
            text = f"{sum(scores) / len(scores):,.{1 if a.tree is DMCONTROL else 3}f} ({counted(len(scores), 'run')})"
            own = " (as it stands)" if value == comparisons.DEFAULTS[a.key] else ""
            rows.append([f"`{a.key}={value}`{own}", a.tree.name, a.preset, ", ".join(a.tasks), f"{a.step:,}", text])
    page.table(["setting", "benchmark", "preset", "on", "steps", "score"], rows)
    caption = "ablations: each run a dot, their mean a bar, the Baseline's mean a dashed line in a band, their range"
    page.figure("ablations", caption, figures.ablations, found, lambda a: f"{a.step:,} {a.tree.unit}, {a.preset}")


def main(arguments: list[str]) -> int:
    options, flags = dict.fromkeys(("--results", "--figs", "--resamples", "--readme"), ""), {"--text": False, "--all": False}
    if words := take(arguments, options, flags):
        raise unknown(words[0], [*options, *flags])
    if resamples := options["--resamples"]:
        if not resamples.isdecimal() or not int(resamples):
            raise UserError(f"--resamples {resamples} must be a whole number of at least 1")
        aggregates.RESAMPLES = int(resamples)
    results = Path(options["--results"] or ledger.HOME / "results")
    figs = Path(options["--figs"] or (results if options["--results"] else ledger.HOME) / "figs")
    readme = Path(options["--readme"]) if options["--readme"] else None
    if not results.is_dir():
        raise UserError(f"--results {results} is not a folder: scripts/ledger.sh --results {results} makes it")
    if readme is not None and not readme.is_file():
        raise UserError(f"--readme {readme} is not a file")
    ledger.check_published(ledger.PUBLISHED)
    runs = {tree: data.load_runs(results, tree) for tree in TREES}
    published = {tree: data.load_published(ledger.PUBLISHED, tree) for tree in TREES}
    page = Page(results, figs, not flags["--text"], flags["--all"])
    page.say(
        "# Report",
        "",
        "Written by `scripts/report.sh` from `results/dmcontrol.csv`, `results/atari.csv` and `results/curves/` (ours: one row per run, "
        "collected by `scripts/ledger.sh`) and `results/published/` (the tables of the paper). Do not edit: the next call replaces it.",
        "",
        f"Runs in the ledger: {len(runs[DMCONTROL])} on {DMCONTROL.title}, {len(runs[ATARI])} on {ATARI.title}.",
        "",
        "The published tables give means per task, not single runs. DMControl's mean and median, computed again from them, are within "
        f"{aggregates.recomputed(published[DMCONTROL]):.2g} of the published ones; the paper's IQM and optimality gap are over runs, which "
        "were not published with it: they stand here as the paper states them. MLR's paper has no SPR on DMControl: "
        "that column is PlayVirtual's.",
    )
    for tree in TREES:
        section(page, tree, published[tree], runs[tree])
    ablation_section(page, [a for b in TREES for a in comparisons.ablations(b, published[b], runs[b])])
    readout_table(page)
    decoder_table(page)
    hardware_table(page, runs)
    video_table(page)
    page.write()
    if readme is not None:
        write_summary(readme, runs, published)
    print(f"{results / 'REPORT.md'}, {len(page.drawn)} figure(s) in {page.figs}")
    return 0


if __name__ == "__main__":
    run_main(main)
