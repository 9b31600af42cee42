"""What the parts that MLR adds learn from an encoder that stands still, on a real run."""

import subprocess
import sys

import pytest
from decoder import main

from Atari.core.errors import UserError


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "Atari.train", "game=boxing", "method=baseline", "preset=debug", "eval.video=false", f"runs={folder}"]
    assert subprocess.run(command, cwd=root, timeout=300).returncode == 0
    return folder / "atari/boxing/baseline-debug/seed1"


def losses(text: str) -> list[float]:
    return [float(line.split("loss ")[1].split(",")[0]) for line in text.splitlines() if line.startswith("update")]


def test_only_the_added_parts_learn(run, capsys):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    arguments = [str(run), "updates=12", "steps=200", "threads=1", "rainbow.lr=3e-3"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    share = float(said.split("targets: ")[1].split(" of")[0])
    found = losses(said)
    assert share <= 1 and len(found) == 7 and found[-1] < 0.7 * found[0], said
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before, "the run stays as it is"
    main([*arguments[:-1], "rainbow.lr=0"])
    still = losses(capsys.readouterr().out)
    assert len(set(still)) == 1 and still[0] == found[0], "neither encoder nor targets move by themselves"
    main([*arguments, "mlr.mask.strategy=temporal"])
    assert losses(capsys.readouterr().out) != found


def test_mistakes_are_named(run, tmp_path):
    for arguments, says in (
        ([], "say which run"),
        ([str(run), "updates=-1"], "updates=-1"),
        ([str(run), "mlr.mask.ratoi=1"], "mlr.mask.ratio"),
        ([str(tmp_path)], "no config.yaml"),
    ):
        with pytest.raises(UserError, match=says):
            main(arguments)
