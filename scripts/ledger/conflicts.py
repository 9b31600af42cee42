"""Check whether the ledger already holds other runs under the names of those about to start: it would refuse the new ones later.

python -m scripts.ledger.conflicts RESULTS < what the launchers print with --dry-run
"""

import json
import shlex
import sys
from pathlib import Path

from DMControl.core.errors import UserError, run_main
from DMControl.core.run.config import plain
from DMControl.core.run.folder import read_config
from DMControl.core.run.paths import parse_path
from scripts.ledger import rows
from scripts.ledger.rows import Row
from scripts.ledger.runs import config_hash
from scripts.trees import TREES, tree_named, tree_of

SKIPPED = "finished, skipped: "


def folder_of(line: str) -> Path | None:
    """The folder of the run that a launcher would start or found finished; None for its other lines."""
    if line.startswith("+ "):
        values = {"name": "", **dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)}
        return tree_of(values).run_path(values, values["runs"])
    return Path(line.removeprefix(SKIPPED)) if line.startswith(SKIPPED) else None


def comes_from(folder: Path, row: Row) -> bool:
    """Whether the row is the run in this folder; a run that was cut off may resume there."""
    if row["finished"] == "no":
        return (folder / "config.yaml").exists() and config_hash(plain(read_config(folder))) == row["config_hash"]
    file = folder / "result.json"
    result = json.loads(file.read_text()) if file.exists() else {"hours": -1, "eval_returns": []}
    return (f"{result['hours']:.4f}", " ".join(f"{r:.6g}" for r in result["eval_returns"])) == (row["hours"], row["eval_returns"])


def main(arguments: list[str]) -> int:
    results = Path(arguments[0])
    if results.is_file():
        raise UserError("--results needs a folder")
    held = {tree: {rows.key(tree, row): row for row in rows.read(results, tree)} for tree in TREES}
    others = []
    for folder in filter(None, map(folder_of, sys.stdin.read().splitlines())):
        path = parse_path(folder)
        tree = tree_named(path.benchmark)
        row = held[tree].get((path.task, path.method, path.preset, path.name, path.seed))
        if row and not comes_from(folder, row):
            others.append(folder)
    if others:
        raise UserError(
            f"{results} holds {len(others)} of these runs from somewhere else, {others[0]} first, and would refuse yours: "
            "begin a ledger of your own with --results mine"
        )
    return 0


if __name__ == "__main__":
    run_main(main)
