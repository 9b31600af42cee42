"""A mistake that YAML and names alone show is answered before the slow imports, and by the launchers before the first run starts."""

import signal
import subprocess
import sys

import pytest

from DMControl.core.errors import UserError
from scripts.runs import queue

SLOW = ("torch", "dm_control", "mujoco", "kornia", "matplotlib", "pandas")
ENTRY = f"""
import runpy, sys
sys.argv[1:] = sys.argv[2:]
try:
    runpy.run_module(sys.orig_argv[3], run_name="__main__", alter_sys=True)
finally:
    print([name for name in {SLOW} if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["DMControl.train", "task=cheetah_rum"], "error: task=cheetah_rum is unknown: did you mean cheetah_run?"),
        (["DMControl.train", "sac.lr=-5"], "error: sac.lr=-5.0 must be between 0 and 1"),
        (["DMControl.train", "--multirun", "task=cheetah_run,walker_wlak"], "error: task=walker_wlak is unknown: did you mean walker_walk"),
        (["Atari.train", "game=pongg"], "error: game=pongg is not an Atari game of ALE: did you mean pong"),
        (["scripts.runs.quickstart", "env_stepps=9"], "error: key env_stepps is unknown: did you mean env_steps"),
    ],
)
def test_typos_are_answered_before_slow_imports(root, words, says):
    done = subprocess.run([sys.executable, "-c", ENTRY, *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(says) and done.stderr.count("\n") == 1
    assert done.stdout == "[]\n"


def test_ctrl_c_during_the_slow_imports_is_one_line(root):
    code = "import os; from DMControl.core.errors import check_first; check_first(print); os.kill(os.getpid(), 2); print('went on')"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "interrupted before the run started\n") and "went on" not in done.stdout


@pytest.mark.parametrize(
    ("tree", "preset", "seeds", "words", "says"),
    [
        ("dmcontrol", "small", "1", ["walker_walk cheetah_rum", "mlr"], "task=cheetah_rum is unknown: did you mean cheetah_run?"),
        ("dmcontrol", "small", "1", ["walker_walk", "mlr mlrr"], "method=mlrr is unknown: did you mean mlr"),
        ("dmcontrol", "smal", "1", ["walker_walk", "mlr"], "preset=smal is unknown: did you mean small"),
        (
            "dmcontrol",
            "small",
            "1",
            ["walker_walk", "mlr", "hopper_hop", "sac", "--", "mlr.tau=0.1"],
            "no effect with method=sac",
        ),
        ("dmcontrol", "small", f"1,{2**31},2", ["walker_walk", "mlr"], "must be between 0"),
        ("atari", "small", "1", ["alien nosuchgame", "mlr"], "game=nosuchgame is not an Atari game"),
        ("atari", "small", "1", ["pong", "mlr", "--", "mlr.mask.patch=5"], "does not divide the frame of 84 pixels"),
        ("atari", "small", "1", ["pong", "mlr", "--", "mlr.decoder.heads=7"], "width=128 is not a multiple"),
        ("atari", "small", "1", ["pong", "der", "--", "rainbow.v_min=9", "rainbow.v_max=8"], "v_min=9.0 must be less than"),
        ("atari", "small", "1", ["pong", "der", "--", "device=gpu"], "device=gpu is unknown: use auto, cpu, cuda or cuda:1"),
        ("dmcontrol", "small", "1", ["walker_walk", "mlr", "--", "encoder.strides=[4,4,4,4]"], "too small for 4 convolutions"),
        ("dmcontrol", "small", "1", ["walker_walk", "sac", "--", "augment.order=[shift]"], "method=sac augments nothing"),
        ("dmcontrol", "small", "1", ["walker_walk", "baseline", "--", "augment.order=[crob]"], "did you mean crop"),
        ("dmcontrol", "small", "1", ["walker_walk", "baseline", "--", "precision=fp64"], "precision=fp64 is unknown"),
    ],
)
def test_launchers_check_every_run_before_the_first_starts(tmp_path, tree, preset, seeds, words, says):
    with pytest.raises(UserError, match=says):
        queue.main([tree, str(tmp_path), preset, "", seeds, *words])


def test_launchers_pass_the_settings_on_to_the_check(run, root, tmp_path):
    done = run(root, "scripts/run_atari.sh", "pong", "--runs", str(tmp_path), "name=a", "rainbow.lr=-5", "--dry-run")
    assert done.returncode == 2 and done.stderr == "error: rainbow.lr=-5.0 must be between 0 and 1\n" and not done.stdout
