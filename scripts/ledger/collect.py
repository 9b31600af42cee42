"""The ledger: one row per run, sorted, each with a checksum. The report reads our runs nowhere else.

scripts/ledger.sh [RUNS_FOLDER ...] [--from FILE.tar ...] [--results DIR] [--cut-off] [--debug] [--check]

--from      first take the runs that scripts/gpu.sh packed elsewhere into the first folder (runs/); all files of a pack together
--cut-off   also runs that have not finished: the score of their last evaluation, and its step
--debug     also runs of preset debug, which learn nothing
--check     check what is there, collect nothing
"""

import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path

from DMControl.core.errors import UserError, run_main
from DMControl.core.run.files import write_whole
from scripts.ledger import rows
from scripts.ledger.rows import HOME, Row, table_file
from scripts.ledger.runs import row_of
from scripts.probes import measurements
from scripts.runs.finished import run_folders
from scripts.runs.options import take
from scripts.runs.packed import unpack
from scripts.trees import TREES, Tree

SAME = ("config_hash", "commit", "hours", "eval_returns")  # two rows that agree in these come from one run


@dataclass
class Collection:
    """What becomes of the runs: each is new, left out, refused, or in the ledger already."""

    tree: Tree
    old: dict[tuple, Row]
    new: dict[tuple, tuple[Row, str]] = field(default_factory=dict)  # row and curve
    folders: dict[tuple, Path] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def add(self, folder: Path, row: Row, curve: str) -> None:
        key, step = rows.key(self.tree, row), int(row[self.tree.step])
        if key in self.folders:
            self.refused.append(f"{folder} is the same run as {self.folders[key]}: keep one of them, or give them names")
            self.new.pop(key, None)
            return
        self.folders[key] = folder
        old = self.old.get(key)
        if old:
            same = all(old[c] == row[c] for c in SAME)
            further = old["finished"] == "no" and old["config_hash"] == row["config_hash"]
            if same and old["worlds"] == row["worlds"]:
                return
            if further and row["finished"] == "no" and step < int(old[self.tree.step]):
                print(f"left out: {folder} (it resumed from an earlier save, and the ledger has it at {int(old[self.tree.step]):,})")
                return
            if not same and not further:
                name = " ".join(map(str, key))
                self.refused.append(f"{folder}: the ledger holds another run of {name}: delete that line first, or use name=...")
                return
        self.new[key] = row, curve


def read_run(folder: Path, tree: Tree) -> tuple[Row, str] | None:
    try:
        return row_of(folder, tree)
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"its files are damaged ({type(error).__name__}: {error})") from error


def collect(runs: list[Path], results: Path, tree: Tree, cut_off: bool, debug: bool) -> list[str]:
    """Add what is new; returns what was refused. A run that is refused keeps no other run out."""
    found = Collection(tree, {rows.key(tree, row): row for row in rows.read(results, tree, collecting=True)})
    of_debug = 0
    for folder in (folder for root in runs for folder in run_folders(root, tree, "config.yaml")):
        try:
            made = read_run(folder, tree)
        except UserError as error:
            found.refused.append(f"{folder}: {' '.join(str(error).split())}; mend it, or move it away")
            continue
        if made is None:
            print(f"left out: {folder} (no evaluation yet)")
            continue
        row, curve = made
        if row["preset"] == "debug" and not debug:
            of_debug += 1
        elif row["finished"] == "no" and not cut_off:
            print(f"left out: {folder} (at {int(row[tree.step]):,} of {int(row['planned']):,}; --cut-off adds it as it is)")
        else:
            found.add(folder, row, curve)
    if of_debug:
        print(f"left out: {of_debug} run(s) of preset debug")
    if found.new or not found.refused:
        write(results, found)
    return found.refused


def write(results: Path, found: Collection) -> None:
    for row, curve in found.new.values():
        file = rows.curve_file(results, found.tree, row)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, curve)
    every = found.old | {key: row for key, (row, _) in found.new.items()}
    rows.write(results, found.tree, list(every.values()))
    print(f"{table_file(results, found.tree)}: {len(found.new)} new, {len(every)} run(s) in all")


def check(results: Path) -> None:
    for tree in TREES:
        print(f"{table_file(results, tree)}: {len(rows.read(results, tree))} run(s), unchanged")
    for table in (measurements.READOUT, measurements.DECODER):
        print(f"{results / table.file}: {len(table.read(results))} row(s), unchanged")
    print(f"{rows.PUBLISHED}: {rows.check_published(rows.PUBLISHED)} table(s), unchanged")


def packed_files(words: list[str]) -> list[Path]:
    """Take `--from FILE ...` out of the words."""
    if "--from" not in words:
        return []
    start = words.index("--from")
    end = next((i for i in range(start + 1, len(words)) if not words[i].endswith(".tar")), len(words))
    files = [Path(word) for word in words[start + 1 : end]]
    del words[start:end]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"--from needs files that scripts/gpu.sh packed: {' '.join(map(str, files)) or 'DIR/*.tar'}")
    return files


def main(arguments: list[str]) -> int:
    options, flags = {"--results": str(HOME / "results")}, {"--cut-off": False, "--debug": False, "--check": False}
    words = list(arguments)
    packed = packed_files(words)
    runs = [Path(word) for word in take(words, options, flags, ["--from"])]
    results = Path(options["--results"])
    if results.is_file():
        raise UserError("--results needs a folder")
    for folder in runs:
        if folder.is_file() or not (packed or folder.is_dir()):
            raise UserError(f"{folder} is not a folder of runs")
    if flags["--check"]:
        check(results)
        return 0
    runs = runs or [HOME / "runs"]
    refused = unpack(packed, runs[0])
    for tree in TREES:
        refused += collect(runs, results, tree, flags["--cut-off"], flags["--debug"])
    for line in refused:
        print(f"refused: {line}", file=sys.stderr)
    return int(bool(refused))


if __name__ == "__main__":
    run_main(main)
