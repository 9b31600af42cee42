"""The ledger's files: results/<benchmark>.csv, a row per run with a checksum, and a curve per run. The report reads runs only here."""

import csv
import hashlib
import io
import itertools
from pathlib import Path

from DMControl.core.errors import UserError
from DMControl.core.run.files import write_whole
from scripts.trees import Tree

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT if (ROOT / "requirements.txt").exists() else Path.cwd()  # of runs and results; pip installs the code alone
PUBLISHED = ROOT / "results" / "published"
COUNTS = "rows.txt"  # in the folder of the tables
RESTORE = "restore it from the repository"
EDITED = f"rows are written by scripts/ledger.sh only; {RESTORE}, or delete the line and collect the run again"

Row = dict[str, str]


def columns(tree: Tree) -> tuple[str, ...]:
    key = (tree.task, "method", "preset", "name", "seed")
    outcome = (tree.step, "planned", "finished", "episodes", "score", "std", "worlds", "hours")
    return (*key, *outcome, "changed", "config_hash", "commit", "hardware", "versions", "eval_returns", "curve", "checksum")


def key(tree: Tree, row: Row) -> tuple:
    """What names a run, and orders the rows."""
    return (row[tree.task], row["method"], row["preset"], row["name"], int(row["seed"]))


def table_file(results: Path, tree: Tree) -> Path:
    return results / f"{tree.name}.csv"


def curve_file(results: Path, tree: Tree, row: Row) -> Path:
    return results / "curves" / tree.name / f"{tree.label(row)}.csv"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def checksum(row: Row, columns: tuple[str, ...]) -> str:
    return digest("\x1f".join(row[c] for c in columns if c != "checksum").encode())


def read_counts(results: Path) -> dict[str, int]:
    """How many rows each table had when it was written."""
    file = results / COUNTS
    return {name: int(count) for name, count in (line.split() for line in file.read_text().splitlines())} if file.exists() else {}


def read_table(file: Path, columns: tuple[str, ...], advice: str, writing: bool = False) -> list[Row]:
    """The rows of a table, none where there is no file.

    advice: what to do with a row that was edited. writing: the table is about to be written, so rows may have been deleted from it.
    """
    written = 0 if writing else read_counts(file.parent).get(file.name, 0)
    if not file.exists():
        if written:
            raise UserError(f"{file} is missing: {RESTORE}")
        return []
    try:
        with open(file, newline="") as handle:
            reader = csv.DictReader(handle)
            found, rows = tuple(reader.fieldnames or ()), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}): {RESTORE}") from error
    if found != columns:
        raise UserError(f"{file} must have the columns {','.join(columns)}: {RESTORE}")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values() or checksum(row, columns) != row["checksum"]:
            raise UserError(f"{file}, line {number}: the row does not match its checksum; {advice}")
    if len(rows) < written:
        raise UserError(f"{file} has {len(rows)} of its {written} rows: {RESTORE}, or let the script that writes it run again")
    return rows


def write_table(file: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    """With a checksum per row."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "checksum": checksum(row, columns)} for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    counts = read_counts(file.parent) | {file.name: len(rows)}
    write_whole(file, out.getvalue())
    write_whole(file.parent / COUNTS, "".join(f"{name} {count}\n" for name, count in sorted(counts.items())))


def read(results: Path, tree: Tree, collecting: bool = False) -> list[Row]:
    """All rows, checked with their curves. A curve without a row is an error too, unless runs are about to be collected."""
    file = table_file(results, tree)
    rows = read_table(file, columns(tree), EDITED, collecting)
    curves = [curve_file(results, tree, row) for row in rows]
    for number, (row, curve) in enumerate(zip(rows, curves, strict=True), 2):
        if not curve.exists() or digest(curve.read_bytes()) != row["curve"]:
            raise UserError(f"{curve} is missing or does not match line {number} of {file}; {EDITED}")
    for before, after in itertools.pairwise(key(tree, row) for row in rows):
        if before >= after:
            fault = "is there twice" if before == after else "is out of order"
            raise UserError(f"{file}: {' '.join(map(str, after))} {fault}; {EDITED}")
    if not collecting:
        for curve in sorted((results / "curves" / tree.name).glob("*.csv")):
            if curve not in curves:
                raise UserError(f"{curve} has no row in {file}: {RESTORE}, or delete the curve too")
    return rows


def write(results: Path, tree: Tree, rows: list[Row]) -> None:
    write_table(table_file(results, tree), columns(tree), sorted(rows, key=lambda row: key(tree, row)))


def read_curve(results: Path, tree: Tree, row: Row) -> list[dict[str, float]]:
    """A run's own evaluations: step, hours, episodes, mean, std."""
    with open(curve_file(results, tree, row), newline="") as handle:
        return [{k: float(v) for k, v in line.items()} for line in csv.DictReader(handle)]


def check_published(folder: Path) -> int:
    """Compare the published tables with SHA256SUMS; returns how many there are."""
    sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())  # name -> hash
    for name in sorted({*sums, *(file.name for file in folder.glob("*.csv"))}):
        file = folder / name
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != sums.get(name):
            raise UserError(f"{file} does not match {folder / 'SHA256SUMS'}: {RESTORE}")
    return len(sums)
