"""What the parts that MLR adds learn from an encoder that stands still, on a real run."""

import subprocess
import sys

import pytest
import torch
from decoder import main

from Atari.core.errors import UserError
from Atari.core.run import read_config
from Atari.evaluate import load_agent
from Atari.methods import make_agent


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "Atari.train", "game=boxing", "method=baseline", "preset=debug", "eval.video=false", f"runs={folder}"]
    assert subprocess.run(command, cwd=root, timeout=300).returncode == 0
    return folder / "atari/boxing/baseline-debug/seed1"


def losses(text: str, name: str) -> list[float]:
    return [float(line.split(f"{name} ")[1].split(",")[0]) for line in text.splitlines() if line.startswith("update")]


def test_only_the_added_parts_learn(run, capsys, monkeypatch):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    arguments = [str(run), "updates=12", "steps=200", "threads=1", "rainbow.lr=3e-3"]
    made = []
    monkeypatch.setattr("decoder.make_agent", lambda *args: made.append(make_agent(*args)) or made[-1])
    assert main(arguments) == 0
    said = capsys.readouterr().out
    share = float(said.split("targets: ")[1].split(" of")[0])
    own, other, constant = (losses(said, name) for name in ("own", "other", "constant"))
    assert share <= 1 and len(own) == len(other) == 7 and own[-1] < 0.7 * own[0], said
    assert len(set(constant)) == 1, "the targets stand still"
    (agent,) = made
    saved, _ = load_agent(run, read_config(run), agent.n_actions, agent.network.trunk.precision)
    for ours, theirs in zip(agent.network.state_dict().values(), saved.network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), "and so does the encoder"
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before, "the run stays as it is"
    main([*arguments, "untrained=true"])
    drawn = losses(capsys.readouterr().out, "constant")
    assert drawn[0] != constant[0] and not torch.equal(*(next(a.network.parameters()) for a in made))


def test_mistakes_are_named(run, tmp_path):
    for arguments, says in (
        ([], "say which run"),
        ([str(run), "updates=-1"], "updates=-1"),
        ([str(run), "mlr.mask.ratoi=1"], "mlr.mask.ratio"),
        ([str(run), "mlr.tau=0.1"], "key mlr.tau is the run's"),
        ([str(run), "encoder.filters=[8,8,8]"], "key encoder.filters is the run's"),
        ([str(tmp_path)], "no config.yaml"),
    ):
        with pytest.raises(UserError, match=says):
            main(arguments)
