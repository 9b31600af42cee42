"""The code as pip installs it, away from its checkout."""

import os
import shutil
import subprocess
import sys
import tomllib

import pytest


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory):
    """installed(command, ...) runs a command of the installation in an empty folder."""
    source, site, here = (tmp_path_factory.mktemp(name) for name in ("source", "site", "here"))
    for name in ("DMControl", "Atari", "scripts", "configs", "results/published"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(root / name, source)
    pip = ("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(source))
    subprocess.run([sys.executable, *pip], check=True, capture_output=True)

    def call(command, *arguments):
        environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        return subprocess.run([str(site / "bin" / command), *arguments], cwd=here, env=environment, capture_output=True, text=True)

    call.folder = here
    return call


def test_a_run_its_row_and_the_report(installed):
    short = (
        "preset=debug",
        "steps=60",
        "train.random_steps=40",
        "eval.every=60",
        "eval.episodes=1",
        "eval.final_episodes=1",
        "env.max_steps=40",
    )
    done = installed("mlr-atari", *short, "game=pong", "eval.video=false", "device=cpu")
    assert done.returncode == 0, done.stderr
    assert "1 new" in installed("mlr-ledger", "--debug").stdout
    assert installed("mlr-report").returncode == 0
    assert {"runs", "results"} <= {file.name for file in installed.folder.iterdir()}
    assert "pong" in (installed.folder / "results/REPORT.md").read_text()
    wrong = installed("mlr-dmcontrol", "preset=debug", "mlr.mask.ratoi=1")
    assert wrong.returncode == 2 and "ratio" in wrong.stderr and wrong.stderr.count("\n") == 1


def test_every_pinned_version_lies_within_the_ranges(root):
    from packaging.requirements import Requirement

    with open(root / "pyproject.toml", "rb") as file:
        ranges = {r.name: r.specifier for r in map(Requirement, tomllib.load(file)["project"]["dependencies"])}
    lines = [line.split("#")[0].strip() for line in (root / "requirements.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    tools = {"pytest", "pytest-xdist", "hypothesis", "ruff", "hydra-submitit-launcher"}
    assert set(ranges) == set(pins) - tools
    for name, allowed in ranges.items():
        assert pins[name] in allowed, name
