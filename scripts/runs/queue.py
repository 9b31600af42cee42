"""The runs that a launcher's words ask for, a line each: task, method, seed, folder and log, with tabs between them.

python -m scripts.runs.queue TREE RUNS PRESET NAME SEEDS [TASKS METHODS]... [-- key=value ...]

TASKS are names of tasks or games, or of sets: each file in configs/sets/TREE is one. A mistake in a name or in a setting of any run is
an error before the first one starts. Imports no torch, because a launcher waits for this.
"""

import itertools
import re
from pathlib import Path

import yaml

from DMControl.core.errors import UserError, run_main
from scripts.trees import TREES, Tree, tree_named

SETS = Path(__file__).resolve().parents[2] / "configs" / "sets"


def known_sets(tree: Tree) -> dict[str, Path]:
    return {file.stem: file for file in sorted((SETS / tree.name).glob("*.yaml"))}


def read_set(file: Path) -> list[str]:
    try:
        names = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if not names or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file} must be a list of names, each on a line that begins with '- '")
    return names


def tasks_of(tree: Tree, words: str) -> list[str]:
    """The tasks or games that these words name, each once; KungFuMaster becomes kung_fu_master, gym:ALE/Pong-v5 stays as it is."""
    own, found = known_sets(tree), []
    for word in words.replace(",", " ").split():
        other = next((t for t in TREES if t is not tree and word in known_sets(t)), None)
        if word not in own and other:
            raise UserError(f"{word} is a set of {other.task}s: use it with scripts/run_{other.name}.sh; sets here: {', '.join(own)}")
        found += read_set(own[word]) if word in own else [word]
    return list(dict.fromkeys(name if ":" in name else re.sub(r"(?<=[A-Za-z0-9])([A-Z])", r"_\1", name).lower() for name in found))


def seeds_of(text: str) -> list[int]:
    """1-3 or 1,2,5"""
    found = []
    for part in text.replace(",", " ").split():
        low, _, high = part.partition("-")
        if not low.isdecimal() or not (high or low).isdecimal():
            raise UserError(f"--seeds {text} must look like 1-3 or 1,2,5")
        found += range(int(low), int(high or low) + 1)
    if not found:
        raise UserError("--seeds counts upwards, such as 1-3")
    return list(dict.fromkeys(found))


def methods_of(text: str) -> list[str]:
    methods = list(dict.fromkeys(text.replace(",", " ").split()))
    if not methods:
        raise UserError("--method names no method")
    return methods


def check(tree: Tree, task: str, method: str, shared: list[str], checked: set[tuple[str, str]]) -> None:
    """Read the settings of these runs, once for all tasks that have them in the same file."""
    key = (tree.settings_file(task), method)
    if key not in checked:
        tree.read_config([f"{tree.task}={task}", f"method={method}", *shared])
        checked.add(key)


def main(arguments: list[str]) -> int:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    name_of_tree, runs, preset, name, seeds, *pairs = arguments[:end]
    tree, lines, checked = tree_named(name_of_tree), {}, set()
    shared = [f"preset={preset}", f"seed={max(seeds_of(seeds))}", f"runs={runs}", *arguments[end + 1 :]]
    for words, methods in zip(pairs[::2], pairs[1::2], strict=True):
        tasks = tasks_of(tree, words)
        if not tasks:
            raise UserError(f"say which {tree.task}s: scripts/run_{tree.name}.sh --help")
        for task, method in itertools.product(tasks, methods_of(methods)):
            check(tree, task, method, shared, checked)
        for seed in seeds_of(seeds):
            for task in tasks:
                for method in methods_of(methods):
                    values = {tree.task: task, "method": method, "preset": preset, "seed": seed, "name": name}
                    folder = tree.run_path(values, runs)
                    log = Path(runs, "logs", tree.name, f"{tree.label(values)}.log")
                    lines["\t".join(map(str, (task, method, seed, folder, log)))] = None  # a run that is named twice is made once
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    run_main(main)
