"""What a user types, typed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from Atari.settings import read_config as read_atari
from DMControl.core.errors import UserError
from DMControl.settings import read_config
from scripts.bench import bench
from scripts.bench.flops import atari_flops, dmcontrol_flops, image_passes
from scripts.bench.subjects import PARTS, Subject
from scripts.bench.tables import beside_baseline, beside_table, write_table
from scripts.runs import doctor
from scripts.trees import ATARI, DMCONTROL


def run(root, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=root)


def test_quickstart(root, tmp_path):
    """The whole of it at the debug preset: what it prints comes from the run, and the files it names are there."""
    done = run(root, "-m", "scripts.runs.quickstart", "preset=debug", f"runs={tmp_path}")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "dmcontrol/cartpole_swingup/mlr-debug/quickstart-seed1"
    result = json.loads((folder / "result.json").read_text())
    mean = sum(result["eval_returns"]) / len(result["eval_returns"])
    assert f"after 2,000 env steps: return {mean:6.1f}" in done.stdout and "before training: return" in done.stdout
    for name in ("curve.png", "video/final.mp4", "train.csv", "eval.csv"):
        assert (folder / name).stat().st_size > 100 and str(folder / name) in done.stdout
    assert "tensorboard --logdir" in done.stdout
    film = run(root, "-m", "scripts.media.policies", str(folder), f"figs={tmp_path}")
    assert film.returncode == 0, film.stderr
    made = tmp_path / "policies/cartpole_swingup_mlr_debug_quickstart.gif"
    with Image.open(made) as image:
        count, first = len(result["eval_returns"]), result["eval_returns"][0]
        says = f"cartpole_swingup, MLR, debug, seed 1: {mean:.0f} after 2,000 env steps, mean of {count}; shown: the first, {first:.0f}"
        assert image.info["comment"].decode() == says and image.n_frames > 50
    assert made.stat().st_size < 1_000_000
    (folder / "result.json").unlink()
    film = run(root, "-m", "scripts.media.policies", str(folder), f"figs={tmp_path}")
    assert film.returncode == 2 and "has no result.json" in film.stderr


@pytest.mark.parametrize("arguments", [["preset=debug"], ["preset=small", "game=pong"]])
def test_doctor_finds_this_machine_well(root, arguments):
    done = run(root, "-m", "scripts.runs.doctor", *arguments)
    assert done.returncode == 0 and "all is well" in done.stdout, done.stdout
    assert "torch 2." in done.stdout and "of it for the replay" in done.stdout


@pytest.mark.parametrize(("arguments", "says"), [(["preset=papr"], "did you mean paper"), (["game=pnog"], "did you mean pong")])
def test_doctor_names_what_is_wrong(capsys, arguments, says):
    assert doctor.main(arguments) == 1
    said = capsys.readouterr().out
    assert says in said and "1 problem(s)" in said


def test_bench(root, tmp_path):
    done = run(root, "-m", "scripts.bench.bench", "preset=debug", "updates=3", "--json", str(tmp_path / "bench.json"))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert [r["tree"] for r in results] == ["DMControl", "Atari"]
    for r in results:
        assert r["ms_per_update"] > 0 and r["matrix_gflops"] > 0 and 0 < r["ratio"] < 2
        assert sum(r["parts_ms"].values()) > 0 and r["parts_ms"]["objective forward"] > 0 and r["peak_rss_gb"] > 0.1
        assert r["fastest_form_gflops"] >= r["matrix_gflops"]


def test_bench_compares_methods_with_the_baseline(root, tmp_path):
    file = tmp_path / "bench.json"
    arguments = ("tree=dmcontrol", "preset=debug", "replay.capacity=100", "method=baseline,curl", "updates=2", "--json", str(file))
    done = run(root, "-m", "scripts.bench.bench", *arguments)
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())["results"]
    assert [r["method"] for r in results] == ["baseline", "curl"]
    assert [(b.run["method"], round(b.counted, 2)) for b in beside_baseline(results)] == [("curl", 1.67)]
    assert [b.measured for b in beside_baseline(results)] == [r["ms_per_update"] / results[0]["ms_per_update"] for r in results[1:]]
    assert done.stdout.count(" times the Baseline's, 1.67 by its image passes") == 1
    results[0]["preset"] = "small"
    assert beside_baseline(results) == [], "of another preset"
    same = [r | {"preset": "small", "date": "today"} for r in results]
    assert not beside_table([same[0] | {"date": "yesterday"}, *same[1:]]), "of another day"
    assert [line.split(" | ")[0] for line in beside_table(same)[3:]] == ["| curl small"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tree=atari", "preset=debug", "game=pnog"], "did you mean pong"),
        (["--against", "HEAD"], "--against is for one tree"),
        (["tree=dmcontrol", "preset=debug", "--against", "no_such_commit"], "no_such_commit"),
        (["tree=dmcontrol", "preset=debug", "method=crul"], "did you mean curl"),
        (["tree=dmcontrol", "preset=papr"], "did you mean paper"),
        (["--table", "tree=atari"], "stands alone"),
        (["--json", "."], "that is a folder"),
        (["updates=1"], "at least 2"),
    ],
)
def test_bench_names_what_is_wrong(arguments, says):
    with pytest.raises(UserError, match=says):
        bench.main(arguments)


def test_bench_keeps_what_it_had_when_it_is_interrupted(root, tmp_path):
    file = tmp_path / "bench.json"
    command = [sys.executable, "-m", "scripts.bench.bench", "tree=atari", "preset=debug,small", "updates=2", "--json", str(file)]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as bench:
        until = time.monotonic() + 300
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.1)
        bench.send_signal(signal.SIGINT)
        _, errors = bench.communicate(timeout=60)
    assert bench.returncode == 130 and f"interrupted: 1 of 2 measured, kept in {file}" in errors
    assert [r["preset"] for r in json.loads(file.read_text())["results"]] == ["debug"]


def test_bench_finds_each_method_that_it_times():
    """All of them exist in an agent of one method or another, so that none is missed after a change of names."""
    arguments = {DMCONTROL: ("preset=debug", "replay.capacity=100"), ATARI: ("preset=debug",)}
    for tree, methods in {DMCONTROL: ("mlr", "svea", "dreamer", "slac"), ATARI: ("mlr",)}.items():
        subjects = [Subject(tree, [*arguments[tree], f"method={method}"]) for method in methods]
        found = {path for subject in subjects for _, path, _ in subject.timed_methods()}
        assert found == {path for paths in PARTS[tree.name].values() for path in paths}


def test_bench_fills_the_replay_as_a_run_does():
    subject = Subject(DMCONTROL, ["preset=debug", "replay.capacity=600"])  # two episodes of 250 steps, and a part of a third
    env, filled = subject.env, subject.replay
    added = DMCONTROL.make_replay(subject.config, env, subject.agent)
    frame = filled.store.frames[0].permute(1, 2, 0).numpy()
    for step in range(600):
        if step % 250 == 0:
            added.start(frame)
        added.add(np.zeros(env.action_dim, np.float32), 0.0, False, step % 250 == 249, frame)
    assert env.episode_length == 250 and len(filled) == len(added) == 600
    for name in ("frame", "age", "ends", "not_done", "reward", "bounds"):
        assert torch.equal(getattr(filled, name), getattr(added, name)), name
    assert torch.equal(filled.store.frames, added.store.frames) and (filled.host == added.host).all()
    assert filled.action.std() > 0.5
    for replay in (filled, added):  # both go on alike
        replay.add(np.zeros(env.action_dim, np.float32), 1.0, False, False, frame)
    assert len(filled) == len(added) and torch.equal(filled.frame, added.frame) and torch.equal(filled.age, added.age)


def test_bench_writes_its_table(root, tmp_path):
    for file in (root / "results/bench").glob("*"):
        shutil.copy(file, tmp_path)
    page = tmp_path / "README.md"
    text = page.read_text()
    page.write_text(re.sub(r"(<!-- bench:.*?-->\n).*(<!-- end of bench -->)", r"\1\2", text, flags=re.DOTALL))
    assert write_table(tmp_path) == page and page.read_text() == text, "run scripts/bench.sh --table"


def test_published_work_per_update():
    """The formulas give the figures that were counted for an update as published."""
    assert dmcontrol_flops(read_config(["task=cheetah_run"]), 6) == pytest.approx(3678, rel=1e-3)
    small = ["sac.batch_size=64", "mlr.batch_size=16", "mlr.window=8", "encoder.filters=32", "task=cheetah_run"]
    assert dmcontrol_flops(read_config(small), 6) == pytest.approx(79.8, rel=2e-3)


@pytest.mark.parametrize(
    ("method", "actions", "more"), [("spr", 4, 6.6), ("playvirtual", 4, 118), ("playvirtual", 6, 174), ("playvirtual", 18, 543)]
)
def test_work_beside_ataris_baseline(method, actions, more):
    """GFLOP of an update as published, beyond the Baseline's. `more` was counted without the heads."""
    ours = atari_flops(read_atari([f"method={method}"]), actions) - atari_flops(read_atari(["method=baseline"]), actions)
    headless = atari_flops(read_atari([f"method={method}", "rainbow.hidden=1"]), actions)
    headless -= atari_flops(read_atari(["method=baseline", "rainbow.hidden=1"]), actions)
    assert headless == pytest.approx(more, rel=0.01) and headless < ours < 1.5 * headless


IMAGE_PASSES = {  # of an update beside the Baseline's, as published: at equal encoder and batch, and at the method's own
    "mlr": (3.67, 3.67), "spr": (1.42, 1.42), "playvirtual": (1.83, 1.83),
    "curl": (1.67, 0.45), "drq": (1.83, 0.49), "sac_ae": (2.0, 0.135),
}  # fmt: skip


@pytest.mark.parametrize("method", IMAGE_PASSES)
def test_image_passes_beside_the_baselines(method):
    equal, own = IMAGE_PASSES[method]
    base = image_passes(read_config(["method=baseline"]))
    same = ["encoder.filters=64", "sac.batch_size=512"]
    assert image_passes(read_config([f"method={method}", *same])) / base == pytest.approx(equal, abs=0.005)
    assert image_passes(read_config([f"method={method}"])) / base == pytest.approx(own, abs=0.005)
    work = [dmcontrol_flops(read_config([f"method={m}", *same]), 6) for m in (method, "baseline")]
    assert work[0] / work[1] == pytest.approx(equal, rel=0.04), "most of the work is in the convolutions"


@pytest.mark.parametrize(("theirs", "kept"), [("2.11.0+cu130", True), ("2.5.1+cu121", False), ("2.12.0+cpu", False)])
def test_setup_shares_a_gpu_build_of_torch(root, tmp_path, theirs, kept):
    """A GPU build that the chosen interpreter has is used, even from a virtual environment: gigabytes are not fetched again."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/setup.sh").write_text((root / "scripts/setup.sh").read_text())
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "user"], check=True)
    (packages,) = (tmp_path / "user/lib").glob("python3*/site-packages")
    (packages / "torch").mkdir()
    cuda = None if "cpu" in theirs else theirs[-3:]
    (packages / "torch/__init__.py").write_text(f"class version:\n    cuda = {cuda!r}\n")
    (packages / f"torch-{theirs}.dist-info").mkdir()
    (packages / f"torch-{theirs}.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {theirs}\n")
    offline = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    offline |= {"PYTHON": str(tmp_path / "user/bin/python"), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(["bash", "scripts/setup.sh"], cwd=tmp_path, env=offline, capture_output=True, text=True)
    assert (done.returncode == 0) == kept == (tmp_path / ".venv/.requirements").exists(), done.stderr
    assert ("No matching distribution found for torch==2.13.0" in done.stderr) != kept, done.stderr
    if kept:
        where = subprocess.run([tmp_path / ".venv/bin/python", "-c", "import torch; print(torch.__file__)"], capture_output=True, text=True)
        assert where.stdout.strip() == str(packages / "torch/__init__.py"), where.stderr
        (packages / "torch").rename(packages / "gone")
        done = subprocess.run(["bash", "scripts/setup.sh"], cwd=tmp_path, env=offline, capture_output=True, text=True)
        assert "setup: installing" in done.stdout, "what was shared is gone"


def test_every_script_takes_its_interpreter_from_setup(root):
    for script in (root / "scripts").glob("*.sh"):
        assert script.name == "setup.sh" or ".venv/" not in script.read_text(), script


def test_an_interpreter_of_the_users_is_used_as_it_is(root, tmp_path):
    """MLR_PYTHON: nothing is installed, also where there is no .venv."""
    for name in ("scripts", "DMControl", "Atari", "configs", "results", "requirements.txt"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "scripts").unlink()
    shutil.copytree(root / "scripts", tmp_path / "scripts")
    environment = os.environ | {"MLR_PYTHON": sys.executable, "PYTHON": "/nowhere"}
    done = subprocess.run([tmp_path / "scripts/ledger.sh", "--check"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "unchanged" in done.stdout, done.stderr
    words = ["pong", "--gpus", "none", "--dry-run"]
    done = subprocess.run([tmp_path / "scripts/run_atari.sh", *words], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(f"+ {sys.executable} -u -m Atari.train game=pong"), done.stderr
    assert not (tmp_path / ".venv").exists()
    without_torch = tmp_path / "python"
    without_torch.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    without_torch.chmod(0o755)
    for python in (without_torch, "/nowhere/python3"):
        done = subprocess.run([tmp_path / "scripts/ledger.sh"], env=environment | {"MLR_PYTHON": python}, capture_output=True, text=True)
        assert done.returncode == 2 and f"MLR_PYTHON={python} must be" in done.stderr, done.stderr


def test_sync_core_copies(root, tmp_path):
    for tree in ("DMControl", "Atari"):
        (tmp_path / tree / "core").mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "sync_core.sh"
    script.write_text((root / "scripts" / "sync_core.sh").read_text())
    (tmp_path / "DMControl/core/a.py").write_text("1")
    (tmp_path / "Atari/core/b.py").write_text("2")
    subprocess.run(["bash", str(script)], check=True, capture_output=True)
    assert sorted(p.name for p in (tmp_path / "Atari/core").iterdir()) == ["a.py"]
    assert subprocess.run(["bash", str(script), "Elsewhere"], capture_output=True).returncode == 2
