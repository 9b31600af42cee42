"""The path of a run, there and back."""

from pathlib import Path

import pytest

from DMControl.core.errors import UserError
from DMControl.core.run.paths import parse_path, run_path


@pytest.mark.parametrize("root", ["runs", ".", "/a b/runs", "seed1/atari"])
@pytest.mark.parametrize("name", ["", "ratio-0.7", "a-seed2"])
def test_a_path_says_what_it_was_made_of(root, name):
    path = run_path(root, "atari", "kung_fu_master", "mlr", "madi_small", 3, name)
    assert path.parts[-3:] == ("kung_fu_master", "mlr-madi_small", f"{name}-seed3" if name else "seed3")
    assert parse_path(path) == (root, "atari", "kung_fu_master", "mlr", "madi_small", 3, name)


@pytest.mark.parametrize(
    ("task", "folder"),
    [("gym:CarRacing-v3", "gym+CarRacing-v3"), ("gym:ALE/Pong-v5", "gym+ALE+Pong-v5"), ("gym:a_b/c.d-e-v0", "gym+a_b+c.d-e-v0")],
)
def test_an_id_of_gymnasium_names_a_plain_folder(task, folder):
    path = run_path("runs", "atari", task, "mlr", "small", 1)
    assert path.parts[2] == folder and parse_path(path).task == task
    for odd in ("gym:a/b/c", "gym:../x", "gym:", "gym:a+b"):
        with pytest.raises(UserError, match="cannot name a folder"):
            run_path("runs", "atari", odd, "mlr", "small", 1)


@pytest.mark.parametrize("path", ["runs", "runs/atari/pong/mlr-small", "runs/atari/pong/mlr/seed1", "atari/pong/mlr-small/seedx"])
def test_other_folders_are_no_runs(path):
    with pytest.raises(UserError, match="it must end in"):
        parse_path(Path(path))
