"""The two trees, and the words in which they differ. What a script needs of a tree beyond these stays in the script, by `tree.name`."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from DMControl.core.errors import UserError, nearest
from DMControl.core.run.paths import run_path


@dataclass(frozen=True)
class Tree:
    name: str  # of the folders under runs/, configs/ and configs/sets/, and of the ledger's file
    package: str
    task: str  # the key that says what is learnt: task=..., game=...
    step: str  # the x axis, as the CSV files call it
    unit: str  # the x axis in a sentence
    title: str
    digits: int  # of a score in a table

    @property
    def train(self) -> str:
        """The module that trains: python -m ..."""
        return f"{self.package}.train"

    def load(self, module: str) -> ModuleType:
        """tree.load("memory") is DMControl.memory. Not imported before: most modules take torch and a simulator with them."""
        return importlib.import_module(f"{self.package}.{module}")

    def read_config(self, arguments: list[str]) -> Any:
        """The settings that these words choose. Each tree has a UserError of its own; scripts meet only DMControl's."""
        try:
            return self.load("settings").read_config(arguments)
        except self.load("core.errors").UserError as error:
            raise UserError(str(error)) from error

    def run_path(self, values: Mapping[str, Any], runs: str | Path) -> Path:
        """The folder of a run with these settings; a row of the ledger has them too."""
        return run_path(str(runs), self.name, values[self.task], *(values[key] for key in ("method", "preset", "seed", "name")))

    def label(self, values: Mapping[str, Any]) -> str:
        """pong-mlr-paper-seed1, for a file that tells of this run."""
        return "-".join(self.run_path(values, ".").parts[1:])


DMCONTROL = Tree("dmcontrol", "DMControl", "task", "env_step", "env steps", "DeepMind Control Suite", 0)
ATARI = Tree("atari", "Atari", "game", "frame", "frames", "Atari-100k", 1)
TREES = (DMCONTROL, ATARI)


def tree_named(name: str) -> Tree:
    """dmcontrol or atari, in letters of either case."""
    found = {tree.name: tree for tree in TREES}
    if name.lower() not in found:
        raise UserError(f"tree {name} is unknown: {nearest(name, found)}")
    return found[name.lower()]


def tree_of(config: Mapping[str, Any]) -> Tree:
    """The tree of a run's settings, or of words such as game=pong."""
    found = [tree for tree in TREES if tree.task in config]
    if len(found) != 1:
        raise UserError("these are not the settings of a run: they must have either task or game")
    return found[0]
