"""The method that README adds: its text is taken from the page and trained."""

import csv
import os
import re
import shutil
import subprocess
import sys

FOLDER = "runs/dmcontrol/cartpole_swingup/reward-debug/seed1"


def test_the_method_of_the_readme_trains(root, tmp_path):
    section = (root / "README.md").read_text().split("## Add a method")[1].split("\n## ")[0]
    file, yaml, row = (code for _, code in re.findall(r"```(python|yaml)\n(.*?)```", section, re.DOTALL))
    assert len((file + yaml).splitlines()) < 40
    for name in ("DMControl", "configs"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "DMControl/methods/reward.py").write_text(file)
    (tmp_path / "configs/dmcontrol/method/reward.yaml").write_text(yaml)
    table = tmp_path / "DMControl/methods/__init__.py"
    text = table.read_text().replace("import curl,", "import curl, reward,")
    table.write_text(re.sub(r"(METHODS.*?\n)(\})", lambda m: m[1] + row + m[2], text, count=1, flags=re.DOTALL))
    short = ("eval.every=2000", "eval.episodes=1", "eval.video=false")
    command = [sys.executable, "-m", "DMControl.train", "method=reward", "preset=debug", *short]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / FOLDER / "train.csv", newline="") as handle:
        losses = [float(row["loss/reward"]) for row in csv.DictReader(handle) if row["loss/reward"]]
    assert len(losses) == 2 and all(0 < loss < 10 for loss in losses)
