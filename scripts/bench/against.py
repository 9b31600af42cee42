"""Measure this version and another commit in turn, so that both see the same machine."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from DMControl.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5


def measure_once(root: Path, arguments: list[str], file: Path) -> tuple[float, float]:
    """Milliseconds of an update, and environment steps per second, in a process of the version in `root`."""
    command = [sys.executable, "-m", "scripts.bench.bench", *arguments, "--one", str(file)]
    done = subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"{root.name}: {last}")
    result = json.loads(file.read_text())
    return result["ms_per_update"], result["environment_per_second"]["step"]


def compare(commit: str, arguments: list[str]) -> None:
    """Print the medians of several rounds and how much faster this version is."""
    with tempfile.TemporaryDirectory() as place:
        other, file = Path(place) / "other", Path(place) / "one.json"
        made = subprocess.run(["git", "worktree", "add", "--detach", str(other), commit], cwd=ROOT, capture_output=True, text=True)
        if made.returncode:
            raise UserError(f"--against {commit}: {made.stderr.strip().splitlines()[-1]}")
        try:
            rounds = [[measure_once(root, arguments, file) for root in (other, ROOT)] for _ in range(ROUNDS)]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(other)], cwd=ROOT, check=False, capture_output=True)
    (before, steps_before), (now, steps_now) = (
        [statistics.median(v) for v in zip(*column, strict=True)] for column in zip(*rounds, strict=True)
    )
    print(f"{' '.join(arguments)}, medians of {ROUNDS} rounds in turn")
    print(f"  an update: {before:.1f} ms at {commit}, {now:.1f} ms here: {before / now:.2f} times as fast")
    print(
        f"  environment: {steps_before:.0f} steps a second at {commit}, {steps_now:.0f} here: {steps_now / steps_before:.2f} times as fast"
    )
