"""CSV files and videos, and the sizes of a run's records."""

import contextlib
import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .files import write_whole

RECORDS = ("train.csv", "eval.csv")
EVENTS = "events.out.tfevents.*"  # of TensorBoard


class Csv:
    """Rows of fixed columns. After a resume, rows past the resumed step are cut off."""

    def __init__(self, path: Path, columns: tuple[str, ...], resumed_at: int | None, key: str) -> None:
        self.columns = columns
        rows: list[dict[str, str]] = []
        if path.exists() and resumed_at is not None:
            with open(path, newline="") as file:
                rows = [r for r in csv.DictReader(file) if r.get(key, "").isdigit() and int(r[key]) <= resumed_at]
        kept = io.StringIO()
        writer = csv.DictWriter(kept, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(path, kept.getvalue())
        self.file = open(path, "a", newline="")
        self.writer = csv.DictWriter(self.file, columns)

    def write(self, row: dict[str, Any]) -> None:
        unknown = set(row) - set(self.columns)
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: a metric needs a column; add it to `columns` of the agent or objective")
        self.writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def append_rows(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Append rows to a CSV file, which may belong to a finished or a running run."""
    fresh = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if fresh:
            writer.writeheader()
        writer.writerows({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def gif(frames: list[np.ndarray], fps: int) -> bytes:
    pictures = [Image.fromarray(f) for f in frames]
    out = io.BytesIO()
    pictures[0].save(out, "GIF", save_all=True, append_images=pictures[1:], duration=max(20, round(1000 / fps)), loop=0)
    return out.getvalue()


def video(path: Path, frames: list[np.ndarray], fps: int) -> None:
    """Write an MP4 from frames (H, W, 3) uint8."""
    import imageio.v2 as imageio  # takes half a second, and few runs get here

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name("tmp_" + path.name)
    with imageio.get_writer(temporary, fps=fps, codec="libx264", quality=7, macro_block_size=2) as writer:
        for frame in frames:
            writer.append_data(frame)
    os.replace(temporary, path)


def strip(rows: list[np.ndarray]) -> np.ndarray:
    """Arrange rows of pictures (n, H, W, C) in one RGB picture with white gaps."""
    lines, gap = [], 2
    for row in rows:
        row = np.repeat(row, 3, -1) if row.shape[-1] == 1 else row
        n, h, w, c = row.shape
        line = np.full((h + 2 * gap, n * (w + gap) + gap, c), 255, np.uint8)
        for i, picture in enumerate(row):
            line[gap : gap + h, gap + i * (w + gap) : gap + i * (w + gap) + w] = picture
        lines.append(line)
    return np.concatenate(lines)


def record_sizes(folder: Path) -> dict[str, int]:
    """Sync the records to disk and return their sizes in bytes."""
    out = {}
    for path in _records(folder):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            out[path.name] = os.fstat(file.fileno()).st_size
    return out


def cut_back(folder: Path, saved: dict[str, int]) -> None:
    """Remove what was recorded after the save, since the run repeats it. Rows that the evaluate command added stay."""
    for path in _records(folder):
        size = saved.get(path.name, 0)
        data = path.read_bytes()
        if len(data) <= size:
            continue
        kept = _rows_of_evaluations(data[:size], data[size:]) if path.suffix == ".csv" else b""
        if kept:
            write_whole(path, data[:size] + kept)
        elif size:
            os.truncate(path, size)
        else:
            path.unlink()


def _records(folder: Path) -> list[Path]:
    return [p for p in (folder / name for name in RECORDS) if p.exists()] + sorted(folder.glob(EVENTS))


def _rows_of_evaluations(head: bytes, tail: bytes) -> bytes:
    """The complete rows of the evaluate command. They have no `hours`; rows of the run itself do."""
    columns = next(csv.reader(io.StringIO(head.decode())), [])
    kept = b""
    for line in tail.splitlines(keepends=True):
        with contextlib.suppress(UnicodeDecodeError, csv.Error, StopIteration):
            row = dict(zip(columns, next(csv.reader([line.decode()])), strict=False))
            if line.endswith(b"\n") and len(row) == len(columns) and row.get("hours") == "":
                kept += line
    return kept
