"""results/readout.csv: a row for every encoder that scripts/readout.py has looked at, each with its checksum."""

import csv
import io
from pathlib import Path

from ledger import Row, checksum

from DMControl.core.errors import UserError
from DMControl.core.files import write_whole

COLUMNS = ("benchmark", "task", "preset", "method", "name", "seed", "step", "frames", "r2", "rank", "each", "checksum")
UNTRAINED = "untrained"  # the method of an encoder as it was drawn


def read(results: Path) -> list[Row]:
    file = results / "readout.csv"
    if not file.exists():
        return []
    try:
        with open(file, newline="") as handle:
            reader = csv.DictReader(handle)
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}): take it back from the repository, or delete it and measure again") from error
    if columns != COLUMNS or any(None in r or None in r.values() or checksum(r, COLUMNS) != r["checksum"] for r in rows):
        raise UserError(f"{file} is not as scripts/readout.sh wrote it: take it back from the repository, or delete it and measure again")
    return rows


def replace(results: Path, rows: list[Row]) -> Path:
    """Write these rows in place of all that the file has of their tasks and presets, which were measured on other frames."""
    group = {(r["benchmark"], r["task"], r["preset"]) for r in rows}
    rows = [r for r in read(results) if (r["benchmark"], r["task"], r["preset"]) not in group] + rows
    text = io.StringIO()
    out = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    out.writeheader()
    for row in sorted(rows, key=lambda r: (*(r[k] for k in COLUMNS[:5]), int(r["seed"]))):
        out.writerow(row | {"checksum": checksum(row, COLUMNS)})
    results.mkdir(parents=True, exist_ok=True)
    write_whole(results / "readout.csv", text.getvalue())
    return results / "readout.csv"
