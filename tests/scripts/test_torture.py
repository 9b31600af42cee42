"""A short version of scripts/torture.sh: real processes, really injured."""

import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("tree", "faults", "method"),
    [("dmcontrol", "kill,crash", "mlr"), ("dmcontrol", "kill", "playvirtual"), ("atari", "kill,stop", "mlr")],
)
def test_nothing_is_lost(root, tree, faults, method):
    command = [sys.executable, "-m", "scripts.torture.torture", "4", f"tree={tree}", f"faults={faults}", f"method={method}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"\| +(\d+) \| +(\d+) \| (.*)", done.stdout)
    assert len(rows) >= 2 and all(tried == survived and lost == "nothing" for tried, survived, lost in rows)
    assert "none not survived" in done.stdout
