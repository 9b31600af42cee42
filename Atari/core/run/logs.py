"""A run's own records, cut back to where they stood when a state was saved."""

import contextlib
import csv
import io
import os
from pathlib import Path

from .files import write_whole

ROWS = ("train.csv", "eval.csv")
POINTS = "events.out.tfevents.*"


def marks(folder: Path) -> dict[str, int]:
    """How long each record is, once it is on the disk."""
    out = {}
    for path in _records(folder):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            out[path.name] = os.fstat(file.fileno()).st_size
    return out


def cut_back(folder: Path, saved: dict[str, int]) -> None:
    """Take away what was recorded after the save: the run will record it again. Rows that an evaluation from outside added stay."""
    for path in _records(folder):
        size = saved.get(path.name, 0)
        data = path.read_bytes()
        if len(data) <= size:
            continue
        kept = _foreign(data[:size], data[size:]) if path.suffix == ".csv" else b""
        if kept:
            write_whole(path, data[:size] + kept)
        elif size:
            os.truncate(path, size)
        else:
            path.unlink()


def _records(folder: Path) -> list[Path]:
    return [p for p in (folder / name for name in ROWS) if p.exists()] + sorted(folder.glob(POINTS))


def _foreign(head: bytes, tail: bytes) -> bytes:
    """Whole rows without `hours`: a run's own rows have them."""
    columns = next(csv.reader(io.StringIO(head.decode())), [])
    kept = b""
    for line in tail.splitlines(keepends=True):
        with contextlib.suppress(UnicodeDecodeError, csv.Error, StopIteration):
            row = dict(zip(columns, next(csv.reader([line.decode()])), strict=False))
            if line.endswith(b"\n") and len(row) == len(columns) and row.get("hours") == "":
                kept += line
    return kept
