"""Ledgers of runs that nobody made, to see what the report does with them. They live in temporary folders only."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from scripts.ledger import collect as ledger
from scripts.ledger.collect import ATARI, DMCONTROL
from scripts.report import aggregates


def invented(results, benchmark, task, method, seed, preset="paper", name="", end=None, planned=None, changed="", score=None):
    """A row and its curve, as the ledger would hold them; returns the row."""
    published = aggregates.load_published(Path(__file__).resolve().parents[2] / "results/published", benchmark)
    budget = aggregates.BUDGETS[benchmark.name][0]
    end = end or budget
    rng = np.random.default_rng([seed, len(task), len(method), len(name)])
    goal = score if score is not None else published.scores.get((budget, task, method), 500.0) * rng.uniform(0.8, 1.2)
    steps = np.linspace(0, end, 11).astype(int)
    means = goal * (1 - np.exp(-4 * steps / budget)) / (1 - np.exp(-4))
    lines = [f"{benchmark.step},hours,episodes,mean,std"]
    lines += [f"{s},{s / budget * (1.5 if method == 'mlr' else 1.0):.6f},10,{m:.6g},1" for s, m in zip(steps, means, strict=True)]
    curve = "\n".join(lines) + "\n"
    row = dict.fromkeys(benchmark.columns, "") | {
        benchmark.task: task, "method": method, "preset": preset, "name": name, "seed": str(seed), benchmark.step: str(end),
        "planned": str(planned or end), "finished": "no" if planned else "yes", "episodes": "10", "score": f"{means[-1]:.6g}", "std": "1",
        "worlds": "", "hours": f"{end / budget:.4f}",
        "changed": changed, "config_hash": "invented", "commit": "invented", "hardware": "invented",
        "versions": "", "eval_returns": "", "curve": hashlib.sha256(curve.encode()).hexdigest()[:12],
    }  # fmt: skip
    file = results / benchmark.curve_file(row)
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
    rows = [invented(results, DMCONTROL, t, "mlr", s) for t in ("cheetah_run", "walker_walk") for s in (1, 2, 3)]
    rows += [invented(results, DMCONTROL, t, "baseline", s) for t in ("cheetah_run", "walker_walk") for s in (1, 2)]
    rows += [invented(results, DMCONTROL, "finger_spin", "mlr", 1, end=20_000, planned=100_000)]
    rows += [
        invented(results, DMCONTROL, "cheetah_run", "mlr", 1, name=f"ratio{r}", changed=f"mlr.mask.ratio={r}", score=s)
        for r, s in ((0.1, 300), (0.9, 250))
    ]
    rows += [invented(results, DMCONTROL, "cheetah_run", "mlr", s, name="pixels", changed="mlr.target=pixels", score=350) for s in (1, 2)]
    ledger.write(results, DMCONTROL, rows)
    games = ("alien", "pong", "kung_fu_master")
    ledger.write(results, ATARI, [invented(results, ATARI, g, m, s) for g in games for m in ("mlr", "baseline") for s in (1, 2)])
    return results
