"""Whether the ledger holds runs from somewhere else in the places of those about to start: it would refuse these once they are done.

python scripts/taken.py RESULTS < what the launchers say with --dry-run
"""

import json
import re
import shlex
import sys
from pathlib import Path

from DMControl.core.errors import UserError, run_main
from DMControl.core.run.config import plain
from DMControl.core.run.folder import read_config
from scripts.ledger.collect import BENCHMARKS, Row, config_hash, read

PLACE = re.compile(r"/(?P<benchmark>\w+)/(?P<task>\w+)/(?P<method>\w+)-(?P<preset>\w+)/((?P<name>[^/]+)-)?seed(?P<seed>\d+)$")
SKIPPED = "finished, skipped: "


def folder_of(line: str) -> str:
    """Where a launcher's command leaves its run, or what it found finished; nothing for other lines."""
    if not line.startswith("+ "):
        return line.removeprefix(SKIPPED) if line.startswith(SKIPPED) else ""
    words = shlex.split(line)
    said = dict(word.split("=", 1) for word in words if "=" in word)
    benchmark = next(b for b in BENCHMARKS if b.task in said)
    name = f"{said['name']}-" if said.get("name") else ""
    return f"{said['runs']}/{benchmark.name}/{said[benchmark.task]}/{said['method']}-{said['preset']}/{name}seed{said['seed']}"


def comes_from(folder: Path, row: Row) -> bool:
    """Whether the row is the run that this folder holds; one that was cut off may go on here."""
    if row["finished"] == "no":
        begun = (folder / "config.yaml").exists()
        return begun and config_hash(plain(read_config(folder))) == row["config_hash"]
    file = folder / "result.json"
    result = json.loads(file.read_text()) if file.exists() else {"hours": -1, "eval_returns": []}
    return (f"{result['hours']:.4f}", " ".join(f"{r:.6g}" for r in result["eval_returns"])) == (row["hours"], row["eval_returns"])


def main(arguments: list[str]) -> int:
    results = Path(arguments[0])
    if results.is_file():
        raise UserError("--results needs a folder")
    rows = {b.name: {b.key(row): row for row in read(results, b)} for b in BENCHMARKS}
    taken = []
    for folder in filter(None, map(folder_of, sys.stdin.read().splitlines())):
        place = PLACE.search(folder).groupdict(default="")
        benchmark = next(b for b in BENCHMARKS if b.name == place["benchmark"])
        row = rows[benchmark.name].get(benchmark.key({**place, benchmark.task: place["task"]}))
        if row and not comes_from(Path(folder), row):
            taken.append(folder)
    if taken:
        raise UserError(
            f"{results} holds {len(taken)} of these runs from somewhere else, {taken[0]} first, and would refuse yours: "
            "begin a ledger of your own with --results mine"
        )
    return 0


if __name__ == "__main__":
    run_main(main)
