"""README's table of results, and the report's animations."""

import os
from pathlib import Path

from PIL import Image

from scripts.report import sections
from scripts.report.data import BUDGETS, Published, Run, main_runs, method_name, of_the_papers_table, ordered, preset_order, remarks
from scripts.report.page import NO_RUN, Page, ours_text, published_text
from scripts.trees import Tree

ROWS = 18  # seven methods on a task, and what else there is


def chosen_runs(runs: dict[Tree, list[Run]]) -> list[tuple[Tree, list[Run]]]:
    """The runs of each row. The rule looks at no score.

    Finished runs of the presets as they stand: preset paper first, then small, then the others by name. Within a preset the
    control suite before Atari, tasks by name, each with all its methods. The first task that does not fit into ROWS ends the table.
    """
    chosen: list[tuple[Tree, list[Run]]] = []
    for preset in sorted({r.preset for own in runs.values() for r in own}, key=preset_order):
        for tree, own in runs.items():
            finished = [r for r in main_runs(own, preset) if r.finished]
            for task in sorted({r.task for r in finished}):
                of_task = [r for r in finished if r.task == task]
                methods = ordered(r.method for r in of_task)
                rows = sorted({(methods.index(r.method), -r.step) for r in of_task})
                if len(chosen) + len(rows) > ROWS:
                    return chosen
                chosen += [(tree, [r for r in of_task if (methods.index(r.method), -r.step) == row]) for row in rows]
    return chosen


def write_summary(file: Path, runs: dict[Tree, list[Run]], published: dict[Tree, Published]) -> None:
    page = Page(file.parent, file.parent)
    rows = [summary_row(page, tree, published[tree], own) for tree, own in chosen_runs(runs)]
    if rows:
        page.table(["task", "method", "preset", "at", "ours", "published", "hours a run"], rows)
    else:
        page.say(NO_RUN)
    sections.fill(file, "results", "\n".join(page.lines).rstrip().splitlines())


def summary_row(page: Page, tree: Tree, published: Published, runs: list[Run]) -> list[str]:
    """A task and a method at one step; the published number has its own step where that is another one."""
    first = runs[0]
    budget = next((b for b in BUDGETS[tree.name] if first.step < b * 1.01), BUDGETS[tree.name][-1])
    theirs = (
        published_text(published, budget, first.task, first.method, tree.digits) if of_the_papers_table(first.method, first.preset) else ""
    )
    if theirs and not budget <= first.step < budget * 1.01:
        theirs += f" at {budget:,}"
    ours = ours_text([r.score for r in runs], tree.digits) + page.note(remarks(runs))
    hours = sum(r.hours for r in runs) / len(runs)
    return [first.task, method_name(first.method), first.preset, f"{first.step:,} {tree.unit}", ours, theirs, f"{hours:.2f}"]


def video_table(page: Page) -> None:
    """The animations of scripts/policies.sh, four a row, with the captions in the files."""
    videos = sorted((page.figs / "policies").glob("*.gif"))
    if not videos:
        return
    page.say("## Animations")
    for start in range(0, len(videos), 4):
        part = videos[start : start + 4]
        page.table([f"![{v.stem}]({Path(os.path.relpath(v, page.results)).as_posix()})" for v in part], [[caption(v) for v in part]])


def caption(video: Path) -> str:
    with Image.open(video) as image:
        return image.info["comment"].decode()
