"""tracker=tensorboard, wandb or none: what a run leaves behind and what it loads."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from DMControl.core.errors import UserError
from DMControl.core.run import conditions
from DMControl.settings import read_config
from DMControl.train import make_trainer
from tests.stopped import train

SHORT = ("preset=debug", "method=baseline", "action_repeat=20", "env_steps=1200", "train.random_steps=30", "eval.episodes=1")
LOADED = "import sys; from DMControl.train import main; main(sys.argv[1:]); print('loaded:', *({'tensorboard', 'wandb'} & {*sys.modules}))"


def start(tmp_path, tracker: str, **environment: str) -> subprocess.CompletedProcess:
    """A whole run in a process of its own."""
    arguments = [*SHORT, f"tracker={tracker}", f"runs={tmp_path}", "threads=1"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=clean | environment
    )


def run(tmp_path, tracker: str) -> tuple[Path, str]:
    """The folder of a run, and which of the packages it loaded."""
    ran = start(tmp_path, tracker, WANDB_MODE="offline")
    assert ran.returncode == 0, ran.stderr
    return tmp_path / "dmcontrol/cartpole_swingup/baseline-debug/seed1", ran.stdout.rsplit("loaded:", 1)[1].strip()


@pytest.mark.parametrize("tracker", ["tensorboard", "none"])
def test_a_run_loads_and_writes_what_its_tracker_needs(tmp_path, tracker):
    folder, loaded = run(tmp_path, tracker)
    assert loaded == ("tensorboard" if tracker == "tensorboard" else "")
    assert len(list(folder.glob("events.*"))) == (tracker == "tensorboard")
    assert (folder / "eval.csv").read_text().count("\n") > 2


def test_wandb_keeps_curves_pictures_and_settings_offline(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb (requirements-wandb.txt)")
    folder, loaded = run(tmp_path, "wandb")
    assert loaded == "wandb" and not list(folder.glob("events.*"))
    (log,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data = log.read_bytes()
    with open(folder / "train.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    names = ("eval/episode_return", "final/episode_return", "loss/critic", "env_step", "sac.hidden", "cartpole_swingup/baseline/debug/1")
    assert not [name for name in names if name.encode() not in data]
    assert f"{float(last['episode_return']):.4f}"[:6].encode() in data
    assert list(log.parent.rglob("*.gif"))


def test_wandb_goes_on_under_its_own_id_and_another_tracker_may_take_over(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb (requirements-wandb.txt)")
    monkeypatch.setenv("WANDB_MODE", "offline")

    def stopped(tracker: str, stop_at: int | None) -> Path:
        made, _ = train(make_trainer(read_config([*SHORT, "eval.video=false", f"tracker={tracker}", f"runs={tmp_path}"]), "test"), stop_at)
        made.logger.close()
        return made.folder.path

    stopped("wandb", 10)
    folder = stopped("wandb", 35)
    first, second = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert first.name == second.name and first.stem == f"run-{(folder / 'wandb_id').read_text()}"
    stopped("tensorboard", None)
    assert len(list(folder.glob("events.*"))) == 1 and len(list(folder.glob("wandb/offline-run-*"))) == 2


def test_a_tracker_that_cannot_be_had_is_one_line(monkeypatch, root):
    assert conditions.WANDB in (root / "requirements-wandb.txt").read_text().splitlines()
    monkeypatch.setattr(conditions, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"tracker=wandb needs a package: pip install {conditions.WANDB}"):
        read_config(["tracker=wandb"])
    with pytest.raises(UserError, match="tracker=aim"):
        read_config(["tracker=aim"])


def test_wandb_without_a_login_is_one_line(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb (requirements-wandb.txt)")
    refused = start(tmp_path, "wandb", HOME=str(tmp_path))
    assert "UserError: tracker=wandb cannot begin" in refused.stderr.splitlines()[-1]
    assert "WANDB_MODE=offline needs neither" in refused.stderr.splitlines()[-1]


def test_a_run_goes_on_without_a_wandb_that_fails(tmp_path, monkeypatch, capsys):
    wandb = pytest.importorskip("wandb", reason="needs wandb (requirements-wandb.txt)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    made = make_trainer(read_config([*SHORT, "eval.video=false", "tracker=wandb", f"runs={tmp_path}"]), "test")
    calls = []

    def fail(self, values):
        calls.append(values)
        raise ConnectionResetError("gone")

    monkeypatch.setattr(wandb.Run, "log", fail)
    _, code = train(made)
    made.logger.close()
    said = capsys.readouterr().out
    assert code == 0 and len(calls) == 1 and said.count("tracker=wandb has stopped (gone): the run goes on") == 1
