"""What a user's own presets change, according to their YAML. The report needs it, as it puts their runs beside published scores."""

from functools import cache
from typing import Any

import yaml

from DMControl.core.errors import UserError
from DMControl.core.run.config import flatten
from scripts.trees import ATARI, Tree

DOCUMENTED = ("paper", "small", "madi", "madi_small")  # in the README of each tree
WHOLE_GAME = 27_000  # agent steps of a game at most, in all published scores


def _read(tree: Tree, preset: str) -> dict[str, Any]:
    """The preset's file; empty if it is gone."""
    file = tree.load("settings").CONFIGS / "preset" / f"{preset}.yaml"
    return yaml.safe_load(file.read_text()) or {} if file.exists() else {}


def description(tree: Tree, preset: str) -> str:
    """What a preset that no README describes inherits and sets."""
    if preset in DOCUMENTED:
        return ""
    values = _read(tree, preset)
    if not values:
        return f"`{preset}` has no file in configs/{tree.name}/preset/ any more, which would say what it changes."
    bases = [name for name in values.pop("defaults", []) if isinstance(name, str) and name != "_self_"]
    own = " ".join(f"`{k}={str(v).replace(' ', '')}`" for k, v in flatten(values) if k != "preset")
    begins = f"inherits {' and '.join(f'`{name}`' for name in bases)}" if bases else "begins from the published values"
    return f"`{preset}` {begins} and sets {own or 'nothing else'}."


@cache
def _max_steps(tree: Tree, method: str, preset: str) -> int | None:
    try:
        return tree.read_config([f"method={method}", f"preset={preset}"]).env.max_steps
    except UserError:  # gone, or for another version of the code
        return None


def game_limit(tree: Tree, method: str, preset: str, changed: dict[str, str]) -> int | None:
    """The agent steps after which a run's games were cut short; None where they were as long as the published ones."""
    if tree is not ATARI or (preset in DOCUMENTED and "env.max_steps" not in changed):
        return None
    limit = int(changed["env.max_steps"]) if "env.max_steps" in changed else _max_steps(tree, method, preset)
    return limit if limit is not None and limit < WHOLE_GAME else None
