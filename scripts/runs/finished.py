"""The folders of finished runs, a line each.

python -m scripts.runs.finished RUNS [benchmark=atari] [task=boxing] [method=mlr,madi] [preset=small] [seed=1] [name=]
"""

from pathlib import Path

from DMControl.core.errors import UserError, nearest, run_main
from DMControl.core.run.paths import RunPath, parse_path
from scripts.trees import TREES, Tree


def run_folders(runs: Path, tree: Tree, holding: str) -> list[Path]:
    """The folders of this tree's runs, finished or not, that hold a file of this name."""
    return sorted(file.parent for file in (runs / tree.name).glob(f"*/*/*/{holding}"))


def main(arguments: list[str]) -> int:
    runs, *words = arguments
    wanted = {key: text.split(",") for key, _, text in (word.partition("=") for word in words)}
    for key in set(wanted) - set(RunPath._fields):
        raise UserError(f"{key} is not part of a run's path: {nearest(key, RunPath._fields)}")
    for tree in TREES:
        for folder in run_folders(Path(runs), tree, "result.json"):
            said = parse_path(folder)._asdict()
            if all(str(said[key]) in texts for key, texts in wanted.items()):
                print(folder)
    return 0


if __name__ == "__main__":
    run_main(main)
