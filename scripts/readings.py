"""results/readout.csv: a row for every encoder that scripts/readout.py has looked at, each with its checksum."""

import csv
import io
from pathlib import Path

from ledger import Row, checksum, read_rows

from DMControl.core.files import write_whole

LOSSES = ("own", "other", "constant")  # of MLR, on windows of these episodes
COLUMNS = ("benchmark", "task", "preset", "method", "name", "seed", "step", "frames", "r2", "rank", *LOSSES, "each", "checksum")
UNTRAINED = "untrained"  # the method of an encoder as it was drawn


def read(results: Path) -> list[Row]:
    edited = "rows are written by scripts/readout.sh only; take it back from the repository, or delete the file and measure again"
    return read_rows(results / "readout.csv", COLUMNS, edited)


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
