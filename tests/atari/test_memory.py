"""What a run will take, known before it is built."""

import pytest
import torch

from Atari.core.errors import UserError
from Atari.core.machine import Precision
from Atari.memory import parameters
from Atari.methods import make_agent
from Atari.settings import read_config
from Atari.train import Trainer

FP32 = Precision(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    "changes",
    [
        ["preset=debug"], ["preset=small"], ["preset=small", "method=baseline"],
        ["preset=debug", "mlr.target=pixels", "mlr.decoder.width=0"],
        ["preset=debug", "encoder.filters=[8,16,8]", "encoder.kernels=[5,4,3]", "encoder.strides=[2,2,1]", "mlr.action_tokens=false"],
    ],
    ids=lambda c: " ".join(c),
)  # fmt: skip
def test_the_networks_are_counted(changes):
    config = read_config(changes)
    agent = make_agent(config, 6, FP32)
    trained = set(agent.optimizer.parameters)
    every = trained | set(agent.target.parameters()) | (set(agent.objective.parameters()) if agent.objective is not None else set())
    counted = parameters(config, 6)
    assert counted[0] == pytest.approx(sum(p.numel() for p in trained), rel=0.02)
    assert sum(counted) == pytest.approx(sum(p.numel() for p in every), rel=0.02)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["replay.capacity=1e9", "steps=1e9", "env.size=256"], r"needs about \d{5,}\.\d+ GB of RAM \(\d{5,}\.\d+ GB replay"),
        (["mlr.decoder.width=1000000"], r"needs about \d{5,}\.\d+ GB of RAM .*\d{5,}\.\d+ GB networks"),
        (["rainbow.batch_size=100000000"], r"needs about \d{5,}\.\d+ GB of RAM .*\d{5,}\.\d+ GB activations"),
    ],
)
def test_a_run_that_cannot_fit_says_so_before_it_starts(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        Trainer(read_config(["preset=debug", f"runs={tmp_path}", *changes]), "test")
    assert not list(tmp_path.iterdir())
