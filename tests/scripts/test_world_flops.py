"""The counted floating-point work of an update of a world model, against what torch counts while it runs."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

from scripts.bench.flops import dmcontrol_flops
from tests.dmcontrol.small_agents import fill, make


@pytest.mark.parametrize("method", ["dreamer", "planet", "slac"])
def test_the_formula_is_what_torch_counts(method):
    agent, config = make(method, *(["train.catch_up=0"] if method == "slac" else []))
    replay = fill(agent, config)
    with FlopCounterMode(display=False) as counter:
        agent.update(replay, 0)
    assert dmcontrol_flops(config, 2) * 1e9 == pytest.approx(counter.get_total_flops(), rel=0.05)
