"""README's evidence, between its marks: a row per task and method, cut-off runs by the steps they reached, figures and videos."""

import os
from pathlib import Path

from PIL import Image

from scripts.ledger.collect import DMCONTROL, Benchmark
from scripts.report import aggregates
from scripts.report import sections as marks
from scripts.report.aggregates import BUDGETS, OURS_FIRST, Published, Run, method_name, ordered
from scripts.report.tables import NO_RUN, UNITS, Report, lead_table, ours_text, preset_order, published_text, readout_table, worlds_table


def readme(report: Report, runs: dict[Benchmark, list[Run]], published: dict[Benchmark, Published], path: Path) -> None:
    """What replaces the lines between the marks of `path`."""
    page = Report(report.results, report.figs)
    rows = []
    for benchmark, own in runs.items():
        methods = ordered(r.method for r in own)
        keys = {(r.preset, r.task, r.method) for r in own}
        for preset, task, method in sorted(keys, key=lambda k: (preset_order(k[0]), k[1], methods.index(k[2]))):
            chosen = [r for r in aggregates.main_runs(own, preset) if (r.task, r.method) == (task, method)]
            for step in sorted({r.step for r in chosen}, reverse=True):
                rows.append(readme_row(page, benchmark, published[benchmark], [r for r in chosen if r.step == step]))
    if rows:
        page.table(["task", "method", "preset", "at", "ours", "published", "hours a run", "hardware"], rows)
        page.say(
            "*ours*: mean ± sample standard deviation over seeds. "
            "*published*: the paper's, with the paper's settings, at these steps where nothing else is said."
        )
    else:
        page.say(NO_RUN)
    lead_table(page, runs)
    for name in report.drawn:
        if name.endswith("curves_steps") or name == "ablations":
            page.say(f"![{name.replace('_', ' ')}]({os.path.relpath(report.figs / name, path.parent)}.png)")
    for benchmark, own in runs.items():
        for preset in sorted({r.preset for r in own}, key=preset_order):
            worlds_table(page, benchmark, published[benchmark], aggregates.main_runs(own, preset), preset)
    readout_table(page, "####")
    videos = sorted((report.figs / "policies").glob("*.gif"))
    if videos:
        cells = [(f"![{v.stem}]({os.path.relpath(v, path.parent)})", caption(v)) for v in videos]
        for start in range(0, len(cells), 4):
            part = cells[start : start + 4]
            page.table([c for c, _ in part], [[text for _, text in part]])
    marks.fill(path, "evidence", "\n".join(page.lines).rstrip().splitlines())


def readme_row(page: Report, benchmark: Benchmark, published: Published, runs: list[Run]) -> list[str]:
    first = runs[0]
    digits = 0 if benchmark is DMCONTROL else 1
    budget = next((b for b in BUDGETS[benchmark.name] if first.step < b * 1.01), BUDGETS[benchmark.name][-1])
    hours = sum(r.hours for r in runs) / len(runs)
    where = " / ".join(dict.fromkeys(r.hardware for r in runs))
    at = f"{first.step:,} {UNITS[benchmark.name]}" + ("" if first.finished else " (cut off)")
    theirs = published_text(published, budget, first.task, first.method, digits) if first.method in OURS_FIRST else ""
    if theirs and not budget <= first.step < budget * 1.01:
        theirs += f" at {budget:,}"
    ours = ours_text([r.score for r in runs], digits) + page.note(aggregates.mixed(runs))
    return [first.task, method_name(first.method), first.preset, at, ours, theirs, f"{hours:.2f}", where]


def caption(video: Path) -> str:
    """What scripts/policies.sh wrote into the file."""
    with Image.open(video) as image:
        return image.info["comment"].decode()
