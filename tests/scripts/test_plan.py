"""What scripts/plan.sh says before anything runs."""

import os
import re

import pytest

from DMControl.core.errors import UserError
from scripts.runs import plan as planner


def test_plan_counts_what_is_left(day, capsys):
    shared = ["--seeds", "1-3", "--preset", "debug", "--gpus", "none", "--runs", str(day[0]), "threads=1"]
    assert planner.main(["pong", *shared]) == 0
    said = capsys.readouterr().out
    side = min(3, len(os.sched_getaffinity(0)))
    assert f"runs:  2 to do, 1 finished already; {side} side by side" in said and "steps: 1,920 frames in all" in said
    share = [int(n) for n in re.findall(r"(\d+)%", said)]
    assert len(share) == 4 and 97 <= sum(share) <= 103
    assert re.search(r"RAM \d+\.\d\d GB", said) and re.search(r"disk \d+\.\d MB for what stays", said)
    assert planner.main(["cartpole_swingup", *shared]) == 0
    assert "steps: 4,000 env steps in all" in capsys.readouterr().out


def test_plan_names_mistakes():
    with pytest.raises(UserError, match="did you mean pong"):
        planner.main(["pnog"])
    for arguments, says in ((["--seeds", "3-1"], "counts upwards"), (["--seeds"], "needs a value"), (["--method", ","], "names no method")):
        with pytest.raises(UserError, match=says):
            planner.main(["pong", *arguments])
    with pytest.raises(UserError, match="a gym: environment"):
        planner.names("gym:CarRacing-v3")
    assert len(planner.names("all6 walker_stand all6")[1]) == 7 and planner.names("Pong pong all26")[1][0] == "pong"


def test_plan_takes_the_quickest_update_of_each_phase():
    assert planner.per_update([3.0, 1.0, 2.0, 5.0, 4.0], period=2) == 1.5  # 2 with the actor's step, 1 without
    assert planner.per_update([3.0, 2.0], period=1) == 2.0
    assert planner.per_update([7.0], period=2) == 7.0
