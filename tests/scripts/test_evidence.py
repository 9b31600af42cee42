"""scripts/evidence.sh with the real launchers and ledger, and runs that take no time: a stand-in for the interpreter trains them."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import yaml

from DMControl.core.run.config import plain
from DMControl.logger import Logger
from DMControl.settings import read_config
from scripts.ledger.rows import read
from scripts.ledger.runs import config_hash
from scripts.trees import DMCONTROL

TASKS = ("cartpole_swingup", "ball_in_cup_catch", "reacher_easy", "cheetah_run", "finger_spin", "walker_walk")
STUBS = ("report.sh", "readout.sh", "policies.sh", "masks.sh", "decoder.sh")  # they say that they were called
PYTHON = """#!/usr/bin/env bash
case "${{QUICK:-}} $*" in
  "1 -m scripts.ledger.conflicts"*) ;;
  "1 -m scripts.ledger.collect"*) echo "ledger.sh" >>called ;;
  *DMControl.train*) exec {python} {checkout}/train.py "$@" ;;
  *DMControl.evaluate*) exec {python} {checkout}/judge.py "$@" ;;
  *) exec {python} "$@" ;;
esac
"""
TRAIN = """
import json, os, signal, sys, time, yaml
from DMControl.core.run.paths import run_path
said = dict(a.split("=", 1) for a in sys.argv if "=" in a)
label = f"{said['task']}-{said['method']}-{said.get('name', '')}-{said['seed']}"
folder = run_path(said["runs"], "dmcontrol", *(said.get(k, "") for k in ("task", "method", "preset", "seed", "name")))
if (folder / "result.json").exists():
    sys.exit()
print("begins", flush=True)
with open("begun", "a") as file: file.write(label + "\\n")
folder.mkdir(parents=True, exist_ok=True)
config = yaml.safe_load(open("config.yaml")) | {k: said[k] for k in ("task", "method", "preset")}
config |= {"seed": int(said["seed"]), "name": said.get("name", "")}
(folder / "config.yaml").write_text(yaml.safe_dump(config))
fails, waits = label == os.environ.get("FAILS"), "WAITS" in os.environ
steps = (0, 50_000) if fails or waits else (0, 50_000, 100_000)
rows = [f"{s},{s},{said['seed']},0,{s / 1000},1,{s / 1e6},clean,,suite" for s in steps]
(folder / "eval.csv").write_text("\\n".join([open("columns").read(), *rows]) + "\\n")
if fails:
    sys.exit("no luck")
def told(number, frame):
    with open("told", "a") as file: file.write(label + "\\n")
    time.sleep(0.5)
    with open("called", "a") as file: file.write("saved\\n")
    os._exit(128 + number)
if waits:
    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    open(f"waiting-{label}", "w").close()
    time.sleep(60)
made = {"eval_returns": [100.0], "hours": 0.1, "env_steps": 100_000, "commit": "c", "hardware": "h", "python": "3", "versions": {}}
made |= {k: config[k] for k in ("task", "method", "preset", "name", "seed")}
made["config_hash"] = json.load(open("hashes"))["-".join(config[k] for k in ("task", "method", "preset"))]
(folder / "result.json").write_text(json.dumps(made))
(folder / "checkpoint").mkdir(exist_ok=True)
"""
JUDGE = """
import os, sys
folder = next(a.split("=", 1)[1] for a in sys.argv if a.startswith("run="))
with open("judged", "a") as file: file.write(folder + "\\n")
for intensity in ("0.025",) if "CUT" in os.environ else ("0.025", "0.5"):
    with open(f"{folder}/eval.csv", "a") as file:
        file.write(f"100000,100000,10001,0,1.0,1,,distracting_cs,{intensity},procedural\\n")
"""


def lines(file) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def until(true, seconds: float = 30) -> None:
    deadline = time.time() + seconds
    while not true() and time.time() < deadline:
        time.sleep(0.05)
    assert true()


def as_from_a_terminal() -> None:
    """Also where the tests run in the background or under nohup, which have these ignored: bash cannot trap what is ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def checkout(root, tmp_path):
    """A checkout whose runs cost nothing. checkout(words) runs evidence.sh there, .begin(words) starts it; QUICK: without a ledger."""
    for folder in ("scripts", ".venv/bin", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    for script in (root / "scripts").iterdir():
        if script.name not in STUBS:
            (tmp_path / "scripts" / script.name).symlink_to(script)
    for folder in ("DMControl", "Atari", "configs"):
        (tmp_path / folder).symlink_to(root / folder)
    texts = {f"scripts/{name}": f'#!/bin/sh\necho "{name} $*" >>called\n' for name in STUBS}
    texts |= {
        ".venv/bin/python": PYTHON.format(python=sys.executable, checkout=tmp_path),
        "train.py": TRAIN,
        "judge.py": JUDGE,
    }
    config = read_config(["task=cartpole_swingup", "method=mlr", "preset=small"])
    texts |= {"config.yaml": yaml.safe_dump(plain(config)), "columns": ",".join(Logger.EVAL_COLUMNS)}
    runs = itertools.product(TASKS, ("mlr", "baseline", "madi", "svea", "sac"), ("small", "madi_small", "paper"))
    made = {"-".join(r): config_hash(plain(config) | dict(zip(("task", "method", "preset"), r, strict=True))) for r in runs}
    texts["hashes"] = json.dumps(made)
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for name in ("requirements.txt", ".venv/.requirements"):
        shutil.copy(root / "requirements.txt", tmp_path / name)

    def begin(*words: str, script: str = "scripts/evidence.sh", **environment: str) -> subprocess.Popen:
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        known = {k: v for k, v in os.environ.items() if k not in ("JOBS", "CUDA_VISIBLE_DEVICES")}
        return subprocess.Popen(
            [script, *words], cwd=tmp_path, env=known | {"PATH": path} | environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=as_from_a_terminal,
        )  # fmt: skip

    def run(*words: str, **more: str) -> SimpleNamespace:
        with begin(*words, **more) as process:
            out, errors = process.communicate(timeout=60)
        return SimpleNamespace(returncode=process.returncode, stdout=out, stderr=errors)

    run.begin, run.path = begin, tmp_path
    return run


MINE = ("--gpus", "none", "--results", "mine")


def test_what_fails_keeps_nothing_from_going_on(checkout):
    """Its last evaluation counts; the same line finishes it; runs of the same names in another folder are refused."""
    done = checkout("small", *MINE, FAILS="cartpole_swingup-mlr--2")
    assert done.returncode == 1 and "FAILED scripts/run_dmcontrol.sh cartpole_swingup" in done.stdout, done.stderr
    assert len(lines(checkout.path / "begun")) == 12
    rows = read(checkout.path / "mine", DMCONTROL)
    assert len(rows) == 12
    (cut,) = [r for r in rows if r["finished"] == "no"]
    assert (cut["task"], cut["method"], cut["seed"]) == ("cartpole_swingup", "mlr", "2")
    assert (cut["env_step"], cut["planned"]) == ("50000", "100000")
    called = lines(checkout.path / "called")
    assert called[0].startswith("readout.sh ") and called[1] == "report.sh --results mine --figs mine/figs"

    elsewhere = checkout("small", *MINE, "--runs", "others")
    assert elsewhere.returncode == 2 and "mine holds 12 of these runs from somewhere else" in elsewhere.stderr
    assert "--results" in elsewhere.stderr and elsewhere.stderr.count("\n") == 1 and len(lines(checkout.path / "begun")) == 12

    again = checkout("small", *MINE)
    assert again.returncode == 0 and "FAILED" not in again.stdout, again.stderr
    assert lines(checkout.path / "begun")[12:] == ["cartpole_swingup-mlr--2"]
    assert {r["finished"] for r in read(checkout.path / "mine", DMCONTROL)} == {"yes"}
    (checkout.path / "runs/dmcontrol/cartpole_swingup/mlr-small/seed1/result.json").unlink()  # another run, under way
    assert "mine holds 1 of these runs from somewhere else" in checkout("small", *MINE).stderr


def test_a_signal_saves_collects_and_ends(checkout):
    evidence = checkout.begin("small", "ablations", *MINE, WAITS="1")
    until(lambda: len(list(checkout.path.glob("waiting-*"))) == 2)
    evidence.terminate()
    evidence.communicate(timeout=30)
    assert evidence.returncode == 143
    rows = read(checkout.path / "mine", DMCONTROL)
    assert sorted(f"{r['task']}-{r['method']}--{r['seed']}" for r in rows) == sorted(lines(checkout.path / "told"))
    assert [(r["finished"], r["env_step"]) for r in rows] == [("no", "50000")] * 2
    assert lines(checkout.path / "called") == ["saved", "saved", "report.sh --results mine --figs mine/figs"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_of_the_terminal_tells_each_run_once(checkout, number):
    """As Ctrl-C, a closed terminal or timeout(1) send it: told a second time, a run ends without a save."""
    evidence = checkout.begin("small", "ablations", *MINE, WAITS="1", QUICK="1")
    until(lambda: len(list(checkout.path.glob("waiting-*"))) == 2)
    os.killpg(evidence.pid, number)
    evidence.communicate(timeout=30)
    assert evidence.returncode == 128 + number
    assert sorted(lines(checkout.path / "told")) == sorted(lines(checkout.path / "begun")) and len(lines(checkout.path / "told")) == 2
    assert lines(checkout.path / "called") == ["saved", "saved", "ledger.sh", "report.sh --results mine --figs mine/figs"]


def test_a_launcher_that_was_stopped_by_itself(checkout):
    evidence = checkout.begin("small", "ablations", *MINE, WAITS="1", QUICK="1")
    until(lambda: len(list(checkout.path.glob("waiting-*"))) == 2)
    (launcher,) = [p for p in psutil.Process(evidence.pid).children() if "scripts/run_dmcontrol.sh" in p.cmdline()]
    launcher.terminate()
    evidence.communicate(timeout=30)
    assert evidence.returncode == 143 and len(lines(checkout.path / "begun")) == 2
    assert lines(checkout.path / "called")[:3] == ["saved", "saved", "ledger.sh"]


def test_a_signal_ends_the_collecting_too(checkout):
    (checkout.path / "scripts/report.sh").write_text("#!/bin/sh\ntouch reporting\nexec sleep 60\n")
    evidence = checkout.begin("small", *MINE, QUICK="1")
    until((checkout.path / "reporting").exists)
    (report,) = [p for p in psutil.Process(evidence.pid).children() if "sleep" in p.cmdline()]
    evidence.terminate()
    evidence.communicate(timeout=5)
    assert evidence.returncode == 143
    until(lambda: not report.is_running(), 5)


def test_a_judgement_that_was_cut_off_is_made_again(checkout):
    finished = [f"runs/dmcontrol/cartpole_swingup/{m}-madi_small/seed{s}" for m in ("madi", "sac", "svea") for s in (1, 2)]
    assert checkout("worlds", *MINE, CUT="1", FAILS="cartpole_swingup-sac--1", QUICK="1").returncode == 1
    assert lines(checkout.path / "judged") == [*finished[:2], *finished[3:]]  # what has not finished is not judged
    assert checkout("worlds", *MINE, QUICK="1").returncode == 0 and lines(checkout.path / "judged")[5:] == finished
    assert checkout("worlds", *MINE, QUICK="1").returncode == 0 and len(lines(checkout.path / "judged")) == 11


# ---- before anything starts


@pytest.fixture
def machine(checkout):
    """Two GPUs with 139 and 58 GB free, 16 cores."""
    smi = 'case "$*" in *index*) printf "0\\n1\\n" ;; *--id=1*) echo 60000 ;; *) printf "143000\\n60000\\n" ;; esac'
    for name, text in (("nvidia-smi", smi), ("nproc", "echo 16")):
        (checkout.path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (checkout.path / "bin" / name).chmod(0o755)
    return checkout


def test_paper_takes_what_the_gpus_carry_in_the_order_of_the_evidence(machine):
    done = machine("paper", "--seeds", "1,2", "--dry-run")
    assert done.returncode == 0, done.stderr
    chosen = [line for line in done.stdout.splitlines() if line.startswith("side by side")]
    why = "on each of 2 GPU(s), for 58 GB are free, a run takes about {} GB and a core, and there are 16 cores (JOBS=... to choose)"
    assert chosen == [f"side by side: 5 {why.format(10)}", f"side by side: 7 {why.format(8)}"]
    said = [dict(w.split("=", 1) for w in line.split() if "=" in w) for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert {s["threads"] for s in said} == {"1"} and [s["CUDA_VISIBLE_DEVICES"] for s in said[:4]] == ["0", "1", "0", "1"]
    four = ("cartpole_swingup", "ball_in_cup_catch", "reacher_easy", "cheetah_run")
    control = [(task, method) for method in ("mlr", "baseline") for _ in "12" for task in four]
    control += [(t, m) for _ in "12" for t in ("finger_spin", "walker_walk") for m in ("mlr", "baseline")]
    assert [(s["task"], s["method"]) for s in said if "task" in s] == control
    games = [s["game"] for s in said if "game" in s]
    assert list(dict.fromkeys(games))[:6] == ["pong", "kangaroo", "frostbite", "qbert", "freeway", "alien"]
    assert len(games) == 26 * 2 * 2 and len(set(games)) == 26

    assert "side by side: 5 on each of 1 GPU(s)" in machine("paper", "--gpus", "1", "--dry-run").stdout
    by_hand = machine("paper", "--dry-run", JOBS="2").stdout
    assert "side by side" not in by_hand and by_hand.count(" threads=4 ") == 12 + 52
    (machine.path / "bin/nproc").write_text("#!/bin/sh\necho 6\n")
    assert "side by side: 3 on each of 2" in machine("paper", "--dry-run").stdout


def test_paper_is_refused_where_training_would_find_no_gpu(machine):
    """Whatever nvidia-smi says: torch is asked. The user's own word goes."""
    done = machine("small", "paper", "--results", "mine", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and "torch sees none here" in done.stderr and "--gpus none" in done.stderr
    assert done.stderr.count("\n") == 1 and not lines(machine.path / "begun")
    (machine.path / "scripts/run_atari.sh").unlink()
    (machine.path / "scripts/run_atari.sh").symlink_to("/bin/true")
    done = machine("paper", *MINE, QUICK="1")
    assert done.returncode == 0 and len(lines(machine.path / "begun")) == 12, done.stderr


def test_sets_of_a_launcher_share_a_queue(checkout):
    """The second set does not wait for the end of the first."""
    words = ("cartpole_swingup", "--method", "mlr", "--then", "cartpole_swingup,ball_in_cup_catch", "--method", "mlr,sac")
    launcher = checkout.begin(*words, "--jobs-per-gpu", "3", "--gpus", "none", script="scripts/run_dmcontrol.sh", WAITS="1")
    until(lambda: len(list(checkout.path.glob("waiting-*"))) == 3)
    launcher.terminate()
    assert "0 failed, 3 stopped" in launcher.communicate(timeout=20)[0]
    names = {
        f"{task}-{method}--1" for task, method in (("cartpole_swingup", "mlr"), ("cartpole_swingup", "sac"), ("ball_in_cup_catch", "mlr"))
    }
    assert set(lines(checkout.path / "begun")) == names


def test_the_published_rows_are_in_the_way_of_a_fresh_clone(checkout, root):
    shutil.copytree(root / "results", checkout.path / "results")
    done = checkout("--gpus", "none")
    assert done.returncode == 2 and re.match(r"error: results holds \d+ of these runs from somewhere else", done.stderr)
    assert not lines(checkout.path / "begun") and not (checkout.path / "runs").exists()


def test_evidence_says_what_it_would_train(checkout):
    done = checkout("small", "ablations", "--dry-run")
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert len(commands) == 2 * 2 * 3 + 6 * 2 and sum(" name=" in c and "env_steps" not in c for c in commands) == 12
    assert sum("task=ball_in_cup_catch method=baseline preset=small" in c for c in commands) == 3
    assert all("task=cartpole_swingup" in c for c in commands[:6])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["smal"], "scripts/evidence.sh [STAGE"),
        (["--run"], "scripts/evidence.sh [STAGE"),
        (["--seeds"], "error: --seeds needs a value\n"),
        (["--results", "--dry-run"], "error: --results needs a value\n"),
        (["small", "--seeds", "1-3"], "error: --seeds is for the stage paper"),
        (["paper", "--seeds", "x", *MINE], "error: --seeds x must look like"),
        (["small", "--gpus", "none", "--results", "columns"], "error: --results needs a folder"),
    ],
)
def test_mistakes_are_named(checkout, words, says):
    done = checkout(*words)
    assert done.returncode == 2 and says in done.stderr and not done.stdout and not lines(checkout.path / "begun")
    assert not says.startswith("error") or done.stderr.count("\n") == 1


def test_help(checkout):
    done = checkout("--help")
    assert done.returncode == 0 and done.stdout.startswith("The runs behind README") and not done.stderr
