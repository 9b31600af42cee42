"""The counted floating-point work of an update of a world model, against what torch counts while it runs."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

from scripts.bench.flops import dmcontrol_flops
from scripts.trees import DMCONTROL
from tests.dmcontrol.small_agents import fill, make


@pytest.mark.parametrize("method", ["dreamer", "planet", "slac"])
def test_the_formula_is_what_torch_counts(method):
    agent, config = make(method, *(["dreamer.model_updates=9"] if method == "dreamer" else []))
    replay = fill(agent, config)
    with FlopCounterMode(display=False) as counter:
        DMCONTROL.update(agent, replay)
    assert dmcontrol_flops(config, 2) * 1e9 == pytest.approx(counter.get_total_flops(), rel=0.05)
