"""An update that bench times trains all that the agent has, also where its first updates train the model alone."""

import pytest

from scripts.bench.subjects import Subject
from scripts.trees import DMCONTROL


@pytest.mark.parametrize(("method", "key"), [("dreamer", "dreamer.model_updates"), ("slac", "train.catch_up")])
def test_a_timed_update_trains_everything(method, key):
    always, later = (Subject(DMCONTROL, [f"method={method}", "preset=debug", f"{key}={count}"]).flops for count in (0, 9))
    assert later == always > 0
