"""What was read from encoders and decoders: tables in results/, each row with its checksum."""

from dataclasses import dataclass
from pathlib import Path

from scripts.ledger.rows import RESTORE, Row, read_table, write_table

LOSSES = ("own", "other", "constant")  # of MLR, on windows that are not trained on
UNTRAINED = "untrained"  # an encoder with its initial weights


@dataclass(frozen=True)
class Table:
    """New measurements replace the rows that agree with them in `group`."""

    file: str
    script: str
    columns: tuple[str, ...]
    group: tuple[str, ...]

    def read(self, results: Path, writing: bool = False) -> list[Row]:
        advice = f"rows are written by {self.script} only; {RESTORE}, or delete the file and measure again"
        return read_table(results / self.file, (*self.columns, "checksum"), advice, writing)

    def replace(self, results: Path, rows: list[Row]) -> Path:
        measured = {tuple(r[c] for c in self.group) for r in rows}
        rows = [r for r in self.read(results, writing=True) if tuple(r[c] for c in self.group) not in measured] + rows
        rows.sort(key=lambda r: [int(r[c]) if c == "seed" else r[c] for c in self.columns])
        write_table(results / self.file, (*self.columns, "checksum"), rows)
        return results / self.file


READOUT = Table(  # a row for every encoder; those of a task and preset are measured on the same frames
    "readout.csv",
    "scripts/readout.sh",
    ("benchmark", "task", "preset", "method", "name", "seed", "step", "frames", "r2", "rank", *LOSSES, "each"),
    ("benchmark", "task", "preset"),
)
DECODER = Table(  # a row for every decoder: trained apart, or as a run trained it
    "decoder.csv",
    "scripts/decoder.sh",
    ("game", "preset", "method", "name", "seed", "trained", "settings", "after", "frame_share", *LOSSES),
    ("game", "preset", "method", "name", "seed", "trained", "settings"),
)
APART = "on its encoder, standing still"
APART_UNTRAINED = "on an untrained encoder, standing still"
IN_THE_RUN = "with its encoder, in the run"
