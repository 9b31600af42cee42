"""What tests of the scripts share: a ledger of invented runs in a temporary folder, and two real runs of preset debug."""

import contextlib
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from DMControl.core.errors import UserError
from scripts.ledger import collect, rows
from scripts.report import data
from scripts.trees import ATARI, DMCONTROL


def invented(results, benchmark, task, method, seed, preset="paper", name="", end=None, planned=None, changed="", score=None):
    """A row and its curve, as the ledger would hold them; returns the row."""
    published = data.load_published(Path(__file__).resolve().parents[2] / "results/published", benchmark)
    budget = data.BUDGETS[benchmark.name][0]
    end = end or budget
    rng = np.random.default_rng([seed, len(task), len(method), len(name)])
    goal = score if score is not None else published.scores.get((budget, task, method), 500.0) * rng.uniform(0.8, 1.2)
    steps = np.linspace(0, end, 11).astype(int)
    means = goal * (1 - np.exp(-4 * steps / budget)) / (1 - np.exp(-4))
    lines = [f"{benchmark.step},hours,episodes,mean,std"]
    lines += [f"{s},{s / budget * (1.5 if method == 'mlr' else 1.0):.6f},10,{m:.6g},1" for s, m in zip(steps, means, strict=True)]
    curve = "\n".join(lines) + "\n"
    row = dict.fromkeys(rows.columns(benchmark), "") | {
        benchmark.task: task, "method": method, "preset": preset, "name": name, "seed": str(seed), benchmark.step: str(end),
        "planned": str(planned or end), "finished": "no" if planned else "yes", "episodes": "10", "score": f"{means[-1]:.6g}", "std": "1",
        "worlds": "", "hours": f"{end / budget:.4f}",
        "changed": changed, "config_hash": "invented", "commit": "invented", "hardware": "invented",
        "versions": "", "eval_returns": "", "curve": rows.digest(curve.encode()),
    }  # fmt: skip
    file = rows.curve_file(results, benchmark, row)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(curve)
    return row


@pytest.fixture
def invent():
    return invented


@pytest.fixture
def invented_ledger(tmp_path):
    """Two DMControl tasks with 3 seeds of MLR and 2 of the Baseline, one run cut off, ablations; three games with 2 seeds."""
    results = tmp_path / "results"
    own = [invented(results, DMCONTROL, t, "mlr", s) for t in ("cheetah_run", "walker_walk") for s in (1, 2, 3)]
    own += [invented(results, DMCONTROL, t, "baseline", s) for t in ("cheetah_run", "walker_walk") for s in (1, 2)]
    own += [invented(results, DMCONTROL, "finger_spin", "mlr", 1, end=20_000, planned=100_000)]
    own += [
        invented(results, DMCONTROL, "cheetah_run", "mlr", 1, name=f"ratio{r}", changed=f"mlr.mask.ratio={r}", score=s)
        for r, s in ((0.1, 300), (0.9, 250))
    ]
    own += [invented(results, DMCONTROL, "cheetah_run", "mlr", s, name="pixels", changed="mlr.target=pixels", score=350) for s in (1, 2)]
    rows.write(results, DMCONTROL, own)
    games = ("alien", "pong", "kung_fu_master")
    rows.write(results, ATARI, [invented(results, ATARI, g, m, s) for g in games for m in ("mlr", "baseline") for s in (1, 2)])
    return results


# ---- real runs


def run_command(root, *command: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"}, **more)


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess]:
    return run_command


@pytest.fixture(scope="session")
def ledger() -> Callable[..., SimpleNamespace]:
    """scripts/ledger.sh in this process: its exit code and its output."""

    def call(*arguments) -> SimpleNamespace:
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                code = collect.main([str(a) for a in arguments])
            except UserError as error:
                code = 2
                print(error, file=errors)
        return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=errors.getvalue())

    return call


@pytest.fixture(scope="session")
def day(tmp_path_factory):
    """Runs of both trees from the launchers, one of them in a folder that is damaged, and what the launchers printed."""
    root = Path(__file__).resolve().parents[2]
    runs = tmp_path_factory.mktemp("day") / "runs"
    (runs / "atari/alien/mlr-debug/seed1/checkpoint/step_000000009").mkdir(parents=True)  # a run without its config.yaml
    shared = ("--preset", "debug", "--jobs-per-gpu", "2", "--gpus", "none", "--runs", str(runs))
    atari = run_command(root, "scripts/run_atari.sh", "pong alien", "--seeds", "1", *shared)
    small = ("env_steps=1200", "eval.every=600", "eval.episodes=1", "checkpoint.every=600", "action_repeat=20", "train.random_steps=20")
    dmcontrol = run_command(root, "scripts/run_dmcontrol.sh", "cartpole_swingup", "--method", "mlr", *shared, *small)
    return runs, atari, dmcontrol
