"""How long a run will take on a CPU, from the measurements that scripts/bench.sh has kept."""

import json
import re
from pathlib import Path
from typing import Any

from .config import Config

TREE = Path(__file__).resolve().parents[2]
BENCH = TREE.parent / "results" / "bench"  # a tree that was carried away has none
LONG = 10.0  # hours; a run that takes longer says so when it starts
CPU = re.compile(r".* with (?P<units>\S+), (?P<threads>\d+) threads?")  # as machine.describe names it


def measured() -> list[dict[str, Any]]:
    """Every measurement of this tree on a CPU."""
    rows = [row for file in sorted(BENCH.glob("*.json")) for row in json.loads(file.read_text())["results"]]
    return [row for row in rows if row["tree"] == TREE.name and CPU.fullmatch(row["hardware"])]


def ahead(config: Config, hardware: str, number_format: str, updates: int) -> str:
    """A line on the hours that this many updates will take, if they are many; otherwise "".

    It uses the most similar measurement at this preset and in this format: of the method, or else of MLR; with the same vector units
    if there is one; with the nearest number of threads. The time is scaled to the threads at hand.
    """
    here = CPU.fullmatch(hardware)
    alike = [row for row in measured() if (row["preset"], row["precision"]) == (config.preset, number_format)]
    alike = [row for row in alike if row["method"] == config.method or (row["method"] == "mlr" and {"sac", "rainbow"} & set(config))]
    if here is None or not alike:
        return ""
    threads = int(here["threads"])

    def distance(row: dict[str, Any]) -> tuple[bool, bool, int]:
        there = CPU.fullmatch(row["hardware"])
        return row["method"] != config.method, there["units"] != here["units"], abs(int(there["threads"]) - threads)

    row = min(alike, key=distance)
    hours = updates * row["ms_per_update"] / 3.6e6 * int(CPU.fullmatch(row["hardware"])["threads"]) / threads
    if hours < LONG:
        return ""
    return (
        f"note: about {hours:,.0f} hours are ahead, if this machine is as fast as the one where scripts/bench.sh measured "
        f"{row['method']} at preset={row['preset']} ({row['hardware']}); the small presets are for a CPU"
    )
