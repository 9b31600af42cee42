"""The path of a run's folder. This file does not import torch, so that launchers start quickly."""

import re
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError


class RunPath(NamedTuple):
    """run_path(*parse_path(path)) == path"""

    root: str
    benchmark: str
    task: str
    method: str
    preset: str
    seed: int
    name: str = ""


def run_path(root: str, benchmark: str, task: str, method: str, preset: str, seed: int, name: str = "") -> Path:
    """root/<benchmark>/<task>/<method>-<preset>/[name-]seed<k>. gym:ALE/Pong-v5 becomes gym+ALE+Pong-v5."""
    if re.fullmatch(r"\w+:([\w.-]+/)?[\w.-]+", task):
        task = task.replace(":", "+").replace("/", "+")
    return safe_folder(root, benchmark, task, f"{method}-{preset}", f"{name}-seed{seed}" if name else f"seed{seed}")


def parse_path(path: Path) -> RunPath:
    """The inverse of run_path."""
    pattern = r"(?P<benchmark>[^/]+)/(?P<task>[^/]+)/(?P<method>[^/-]+)-(?P<preset>[^/]+)/((?P<name>[^/]+)-)?seed(?P<seed>\d+)"
    found = re.fullmatch(pattern, "/".join(path.parts[-4:]))
    if found is None:
        raise UserError(f"{path} is not the folder of a run: it must end in <benchmark>/<task>/<method>-<preset>/seed<k>")
    said = found.groupdict(default="")
    said["task"] = said["task"].replace("+", ":", 1).replace("+", "/", 1)
    return RunPath(str(path.parents[3]), **{**said, "seed": int(said["seed"])})


def short_name(run: str) -> str:
    """A run's folder without the one that all runs lie in: dmcontrol/walker_walk/madi-small/seed1."""
    path = Path(run)
    try:
        parse_path(path)
    except UserError:
        return path.name
    return "/".join(path.parts[-4:])


def safe_folder(root: str, *parts: str) -> Path:
    """root/part/part/...; each part must be a plain name, so that the path stays below root."""
    if not root.strip():
        raise UserError("runs= is empty: name a folder")
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.,+-]*", part) or ".." in part:
            raise UserError(f"{part!r} cannot name a folder: use letters, digits, '_', '-' and '.'")
    return Path(root).joinpath(*parts)
