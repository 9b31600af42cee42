"""What a run will take, known before it is built."""

import pytest

from Atari.core.errors import UserError
from Atari.settings import read_config
from Atari.train import make_trainer


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["replay.capacity=1e9", "steps=1e9", "env.size=252"], r"needs about \d{5,}\.\d+ GB of RAM \(\d{5,}\.\d+ GB replay"),
        (["mlr.decoder.width=1000000"], r"needs about \d{5,}\.\d+ GB of RAM .*\d{5,}\.\d+ GB networks"),
        (["rainbow.batch_size=100000000"], r"needs about \d{5,}\.\d+ GB of RAM .*\d{5,}\.\d+ GB activations"),
    ],
)
def test_a_run_that_cannot_fit_says_so_before_it_starts(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        make_trainer(read_config(["preset=debug", f"runs={tmp_path}", *changes]), "test")
    assert not list(tmp_path.iterdir())
