"""A terminal table of runs: how far each is, its newest return, its speed, and the hours that are left.

It only reads files, so it disturbs no run. The system's table of locks shows whether a process works on a run.
"""

import csv
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import yaml

from DMControl.core.errors import UserError, run_main
from DMControl.core.run.config import Config
from DMControl.core.run.options import Options
from DMControl.core.run.paths import parse_path
from scripts.runs.finished import run_folders
from scripts.trees import TREES, Tree

HEADINGS = ("task", "method", "seed", "step", "return", "updates/s", "hours left", "state")
RECENT = 5  # episodes from which the speed is taken


class Line(NamedTuple):
    order: tuple[int, str]  # under way first, then stopped, then done
    cells: tuple[str, ...]


def read(file: Path) -> list[dict[str, str]]:
    """The whole rows of a CSV file; the last may be half written."""
    if not file.exists():
        return []
    with open(file, newline="") as handle:
        return [row for row in csv.DictReader(handle) if None not in row.values()]


def locked() -> set[tuple[int, int, int]]:
    """Device and inode of every file on which a process of this machine holds a lock."""
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        major, minor, inode = next(word for word in line.split() if word.count(":") == 2).split(":")
        found.add((int(major, 16), int(minor, 16), int(inode)))
    return found


def is_held(lock: Path, held: set[tuple[int, int, int]]) -> bool:
    if not lock.exists():
        return False
    status = lock.stat()
    return (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino) in held


def describe(folder: Path, tree: Tree, held: set[tuple[int, int, int]]) -> Line:
    said, config = parse_path(folder), Config(yaml.safe_load((folder / "config.yaml").read_text()))
    total, trained, judged = tree.simulator_steps(config), read(folder / "train.csv"), read(folder / "eval.csv")
    state = "done" if (folder / "result.json").exists() else "running" if is_held(folder / ".lock", held) else "stopped"
    at = total if state == "done" else int(trained[-1][tree.step]) if trained else 0
    returns = [float(row["episode_return"]) for row in judged if row[tree.step] == judged[-1][tree.step] and row["hours"]]
    speed = trained[-1]["perf/updates_per_second"] if trained else ""
    left = ""
    if state == "running" and len(trained) > 1:
        first = trained[-min(RECENT, len(trained))]
        steps, hours = at - int(first[tree.step]), float(trained[-1]["hours"]) - float(first["hours"])
        left = f"{(total - at) * hours / steps:.2f}" if steps > 0 and hours >= 0 else ""
    cells = (
        said.task,
        f"{said.method}-{said.preset}",
        f"{said.name}-{said.seed}" if said.name else str(said.seed),
        f"{100 * min(at, total) // total}% of {total:,}",
        f"{statistics.fmean(returns):.1f}" if returns else "",
        f"{float(speed):.1f}" if speed and state == "running" else "",
        left,
        state,
    )
    return Line((("running", "stopped", "done").index(state), str(folder)), cells)


def table(roots: list[Path]) -> list[str]:
    held = locked()
    found = [describe(folder, tree, held) for root in roots for tree in TREES for folder in run_folders(root, tree, "config.yaml")]
    if not found:
        return [f"no runs under {', '.join(map(str, roots))}"]
    rows = [HEADINGS, *(line.cells for line in sorted(found))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    states = [line.cells[-1] for line in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("running", "stopped", "done") if state in states)
    return [*lines, "", f"{counts}    {time.strftime('%H:%M:%S')}"]


def main(arguments: list[str]) -> int:
    options = Options(arguments, {"every": "5"}, words=True)
    roots, every = [Path(word) for word in options.words or ["runs"]], options.whole("every", 0, 3600)
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{root} is not a folder: name the one that holds the runs")
    if not every or not sys.stdout.isatty():
        print("\n".join(table(roots)))
        return 0
    try:
        while True:
            columns, rows = shutil.get_terminal_size()
            lines = table(roots)
            if len(lines) > rows - 1:  # the newest state of what is under way comes first
                lines = [*lines[: rows - 3], "...", lines[-1]]
            print("\x1b[H\x1b[2J" + "\n".join(line[:columns] for line in lines), end="", flush=True)
            time.sleep(every)
    except KeyboardInterrupt:
        print()
        return 0


if __name__ == "__main__":
    run_main(main)
