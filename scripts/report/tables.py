"""The report's tables of runs."""

from collections import Counter
from collections.abc import Iterable

from scripts.report import data
from scripts.report.aggregates import FEW
from scripts.report.comparisons import Comparison
from scripts.report.data import Published, Run, method_name
from scripts.report.page import NO_RUN, Page, number, ours_text, published_text, with_interval
from scripts.trees import ATARI, Tree

ONE_SEED = "Ours: the last evaluation's mean, of one seed each."
RERUN = "Agarwal et al. 2021"  # whose runs MLR's table quotes


def score_table(page: Page, tree: Tree, published: Published, runs: list[Run], budget: int, preset: str) -> None:
    """Per task: each method of ours with its published score and the difference, then every other published method."""
    found = data.groups(runs, budget)
    known = budget in data.BUDGETS[tree.name]
    theirs = data.BUDGETS[tree.name][0] if not known else budget
    digits = tree.digits
    ours = data.ordered([*(("mlr", "baseline") if page.everything or not found else ()), *(m for _, m in found)])
    beside = [m for m in ours if m in published.methods and data.of_the_papers_table(m, preset)]
    others = [m for m in published.methods if m not in (*beside, "human", "random")]
    references = [m for m in ("human", "random") if m in published.methods]
    head = [tree.task, *(method_name(m) for m in references)]
    for method in ours:
        head += [f"**{method_name(method)}, ours**"]
        if method in beside:
            head += [f"{method_name(method)}, published", "difference"]
    head += [f"{method_name(m)}, published" for m in others]
    rows = []
    shown = [t for t in published.tasks if page.everything or any(t == task for task, _ in found)]
    for task in [*shown, *sorted({t for t, _ in found} - set(published.tasks))]:
        row = [task, *(number(published.scores.get((theirs, task, m)), digits) for m in references)]
        for method in ours:
            scores = found.get((task, method))
            own = [r for r in runs if (r.task, r.method) == (task, method) and r.at(budget) is not None]
            row.append(ours_text(scores, digits) + page.note(data.remarks(own)))
            if method in beside:
                score = published.scores.get((theirs, task, method))
                row.append(published_text(published, theirs, task, method, digits))
                comparable = known and scores and score is not None
                row.append(f"{data.spread(scores)[0] - score:+,.{digits}f}" if comparable else "")
        rows.append([*row, *(published_text(published, theirs, task, m, digits) for m in others)])
    page.say(
        f"#### Scores at {budget:,} {tree.unit}",
        "",
        ("Ours: mean ± sample standard deviation over seeds of the last evaluation's mean." if several(found.values()) else ONE_SEED)
        + ("" if known else f" The published columns are at {theirs:,} {tree.unit}, so there is no difference to take."),
    )
    page.table(head, rows)


def several(seeds: Iterable[list[float]]) -> bool:
    """Whether a cell has more than one seed."""
    return any(len(scores) > 1 for scores in seeds)


def sources_table(page: Page, tree: Tree, published: Published) -> None:
    """Where MLR's table and a method's own paper give different scores: both."""
    columns = list(dict.fromkeys((method, source) for _, method, source in published.sources if source != RERUN))
    if not columns:
        return
    budget = data.BUDGETS[tree.name][0]
    head, rows = [tree.task], []
    for method, source in columns:
        head += [f"{method_name(method)}, in MLR's table", f"{method_name(method)}, {source}"]
    for task in published.tasks:
        row = [task]
        for method, source in columns:
            row += [number(published.scores[budget, task, method], tree.digits), published.sources.get((task, method, source), "")]
        rows.append(row)
    page.say(
        f"### Published scores of one method in two places, {tree.name}",
        "",
        "MLR's table quotes runs of 100 seeds (Agarwal et al. 2021), with code of that year; the other columns are those of each method's "
        "own paper. Seeds and sources: `results/published/atari100k_sources.csv`.",
    )
    page.table(head, rows)


def comparison_table(page: Page, tree: Tree, found: list[Comparison], budget: int) -> None:
    """One method against each of the others."""
    name, rows = method_name(found[0].method), []
    for c in found:
        normalised = len(c.tasks) > 1 and tree is ATARI
        over = c.tasks[0] if len(c.tasks) == 1 else f"{len(c.tasks)} {tree.task}s" + (", normalised" if normalised else "")
        digits = 3 if normalised else tree.digits
        gains = [with_interval(*gain, digits, "+") if gain else "" for gain in (c.last, c.whole)]
        probability = with_interval(*c.probability, 2)
        rows.append([method_name(c.other), over, f"{c.seeds[0]} and {c.seeds[1]}", *gains, probability, c.verdict])
    text = (
        f"Difference: the mean of {name} less the mean of the other. Probability: how often a run of {name} scores above one of the other."
    )
    if any(c.last[1] for c in found):
        text += (
            f" In brackets, from {FEW} seeds of both on: 95% interval of a bootstrap over seeds, stratified by {tree.task}. "
            "Two methods differ beyond chance if the interval of the difference excludes 0."
        )
    page.say(f"#### {name} against the others at {budget:,} {tree.unit}", "", text)
    head = ["against", "on", "seeds", f"difference at {budget:,}", "averaged over the training", "probability", "verdict"]
    page.table(head, rows)


def worlds_table(page: Page, tree: Tree, published: Published, runs: list[Run], preset: str) -> None:
    """Finished runs in the worlds where they were judged, with the published scores there."""
    judged = [r for r in runs if r.finished and r.worlds]
    worlds = sorted({w for r in judged for w in r.worlds}, key=lambda w: (world_order(w), w))
    if not worlds:
        return
    alike = Counter((r.task, r.method, r.step) for r in judged)
    over = "mean ± sample standard deviation over seeds" if max(alike.values()) > 1 else "one seed"
    episodes = " or ".join(map(str, sorted({n for r in judged for n in r.judged.values()})))
    page.say(
        f"#### In other worlds, after the last step, preset `{preset}`",
        "",
        f"Trained in the clean world. Ours: {over}, each judged by {episodes} episodes a world, "
        "from the same initial states in all worlds. [procedural]: drawn, not filmed; so were all overlay images. "
        "*published*: after 500,000 agent steps, with real footage, from the papers that `results/published/worlds.csv` names."
        + former_camera(judged),
    )
    methods, rows = data.ordered(r.method for r in judged), []
    theirs = [m for m in methods if any((r.task, w.partition("[")[0], m) in published.worlds for r in judged for w in worlds)]
    for task, step in sorted({(r.task, r.step) for r in judged}):
        own = [r for r in judged if (r.task, r.step) == (task, step)]
        for world in worlds:
            columns = [[r for r in own if r.method == m and world in r.worlds] for m in methods]
            cells = [ours_text([r.worlds[world] for r in c], 0) + page.note(data.remarks(c)) if c else "" for c in columns]
            found = [published.worlds.get((task, world.partition("[")[0], m)) for m in theirs]
            texts = ["" if f is None else f"{f[0]:.0f} ± {f[1]:.0f}" for f in found]
            rows.append([task, f"{step:,}", world, *cells, *texts])
    head = [tree.task, tree.unit, "world", *(method_name(m) for m in methods)]
    page.table([*head, *(f"{method_name(m)}, published" for m in theirs)], rows)


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
    """Clean, colours, videos, distractions, each from easy to hard."""
    family, _, rest = name.partition("[")[0].partition("_cs_")
    known = ("clean", "color_easy", "color_hard", "video_easy", "video_hard", "distracting")
    return (known.index(family) if family in known else len(known), float(rest or 0))


def cut_off_table(page: Page, tree: Tree, runs: list[Run]) -> None:
    if not runs:
        return
    page.say("### Runs that ended early", "", "Their scores count in no table above, unless they have reached its steps.")
    rows = [
        [r.task, method_name(r.method), r.preset, r.name, str(r.seed), f"{r.step:,}", f"{r.planned:,}", f"{r.score:,.1f}", f"{r.hours:.2f}"]
        for r in runs
    ]
    page.table([tree.task, "method", "preset", "name", "seed", f"{tree.unit} reached", "planned", "score there", "hours"], rows)


def variant_table(page: Page, tree: Tree, runs: list[Run]) -> None:
    if not runs:
        return
    page.say("### Variants", "", "Runs with settings or a name of their own; they count in no table above.")
    rows = []
    for r in runs:
        settings = " ".join(f"`{k}={v}`" for k, v in r.changed.items())
        rows.append([r.task, method_name(r.method), r.preset, r.name, str(r.seed), f"{r.step:,}", f"{r.score:,.1f}", settings])
    page.table([tree.task, "method", "preset", "name", "seed", tree.unit, "score", "settings"], rows)


def hardware_table(page: Page, runs: dict[Tree, list[Run]]) -> None:
    page.say("## Hours and hardware")
    rows = []
    for tree, own in runs.items():
        keys = sorted({(r.preset, r.method, r.hardware) for r in own})
        for preset, method, where in keys:
            chosen = [r for r in own if (r.preset, r.method, r.hardware) == (preset, method, where)]
            hours = sum(r.hours for r in chosen)
            rate = hours / sum(r.step for r in chosen) * 100_000
            rows.append([tree.name, preset, method_name(method), where, str(len(chosen)), f"{hours:.2f}", f"{rate:.2f}"])
    if rows:
        page.table(["benchmark", "preset", "method", "hardware", "runs", "hours in all", "hours per 100,000 steps of the simulator"], rows)
    else:
        page.say(NO_RUN)
