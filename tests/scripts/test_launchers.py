"""The launchers: queue, slots, failures, signals."""

import os
import re
import shlex
import signal
import subprocess
import time

import psutil
import pytest

from DMControl.core.errors import UserError
from scripts.report import data
from scripts.runs import queue
from scripts.trees import ATARI, DMCONTROL


def test_launchers_run_and_list_what_failed(day):
    runs, atari, dmcontrol = day
    assert dmcontrol.returncode == 0 and "1 finished, 0 skipped as finished before, 0 failed" in dmcontrol.stdout, dmcontrol.stderr
    assert atari.returncode == 1 and "1 finished, 0 skipped as finished before, 1 failed" in atari.stdout
    failed = [line for line in atari.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1 and "alien/mlr-debug/seed1 (exit code 2" in failed[0] and "without its config.yaml" in failed[0]
    assert (runs / "atari/pong/mlr-debug/seed1/result.json").exists()
    assert {f.name for f in (runs / "logs/atari").iterdir()} == {"pong-mlr-debug-seed1.log", "alien-mlr-debug-seed1.log"}
    assert "finished at" in (runs / "logs/atari/pong-mlr-debug-seed1.log").read_text()
    for line in ("game=pong method=mlr preset=debug seed=1", "game=alien"):
        assert line in atari.stdout  # each command is printed before it runs


def test_launchers_skip_what_has_finished(run, root, day):
    runs = day[0]
    again = run(root, "scripts/run_atari.sh", "pong", "--preset", "debug", "--gpus", "none", "--runs", str(runs))
    assert again.returncode == 0 and f"finished, skipped: {runs}/atari/pong/mlr-debug/seed1" in again.stdout
    assert "0 finished, 1 skipped" in again.stdout
    other = run(root, "scripts/run_atari.sh", "pong", "--preset", "debug", "--gpus", "none", "--runs", str(runs), "mlr.mask.ratio=0.3")
    assert other.returncode == 1 and "holds a run with other settings: mlr.mask.ratio (0.5 -> 0.3)" in other.stdout


def test_launchers_deal_out_gpus_and_know_their_sets(run, root):
    from Atari.games import SCORES

    dry = run(root, "scripts/run_atari.sh", "all26", "--seeds", "1,2", "--gpus", "0,3", "--jobs-per-gpu", "2", "--dry-run", "name=a")
    lines = [line for line in dry.stdout.splitlines() if line.startswith("+")]
    assert len(lines) == 52 and {re.search(r"game=(\w+)", line)[1] for line in lines} == set(SCORES)
    assert [re.search(r"CUDA_VISIBLE_DEVICES=(\d)", line)[1] for line in lines[:4]] == ["0", "3", "0", "3"]
    assert not (root / "runs/logs/atari/alien-mlr-paper-a-seed1.log").exists()
    six = run(root, "scripts/run_dmcontrol.sh", "all6", "--seeds", "1-3", "--method", "mlr baseline", "--gpus", "none", "--dry-run")
    lines = six.stdout.splitlines()
    assert len(lines) == 36 and all("device=cpu" in line for line in lines) and "CUDA" not in six.stdout
    tasks = data.load_published(root / "results/published", DMCONTROL).tasks
    assert {re.search(r"task=(\w+)", line)[1] for line in lines} == set(tasks)
    assert not any("threads=" in line for line in lines)


def test_small_runs_on_a_cpu_are_trained_side_by_side(run, root):
    """One per core with one thread each, unless the user says how many; a single run has all cores."""
    cores, dmcontrol = len(os.sched_getaffinity(0)), "scripts/run_dmcontrol.sh"
    options = ("--preset", "small", "--gpus", "none", "--dry-run", "--seeds")
    many = run(root, dmcontrol, "all6", *options, "1-20").stdout.splitlines()
    assert len(many) == 120 and all("threads=1" in line for line in many) == (cores > 1)
    assert "threads=" not in run(root, dmcontrol, "walker_walk", *options, "1").stdout
    assert "threads=" not in run(root, dmcontrol, "all6", *options, "1-20", "--jobs-per-gpu", "1").stdout


def test_an_environment_of_gymnasium_keeps_its_name(capsys):
    assert queue.tasks_of(ATARI, "gym:ALE/Pong-v5,KungFuMaster gym:ALE/Pong-v5") == ["gym:ALE/Pong-v5", "kung_fu_master"]
    assert queue.main(["atari", "runs", "small", "", "2", "gym:ALE/Pong-v5", "mlr"]) == 0
    folder, log = "runs/atari/gym+ALE+Pong-v5/mlr-small/seed2", "runs/logs/atari/gym+ALE+Pong-v5-mlr-small-seed2.log"
    assert capsys.readouterr().out == "\t".join(["gym:ALE/Pong-v5", "mlr", "2", folder, log]) + "\n"


def test_a_file_beside_the_others_is_a_set(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "SETS", tmp_path)
    for tree, names in (("atari", ["- KungFuMaster", "- pong"]), ("dmcontrol", ["- walker_walk"])):
        (tmp_path / tree).mkdir()
        (tmp_path / tree / f"mine_{tree}.yaml").write_text("\n".join(["# two of them", *names]))
    assert queue.tasks_of(ATARI, "mine_atari alien,pong") == ["kung_fu_master", "pong", "alien"]
    with pytest.raises(UserError, match="mine_dmcontrol is a set of tasks"):
        queue.tasks_of(ATARI, "mine_dmcontrol")
    for text in ("", "pong", "- pong\n- 3", "a: [", "- - pong"):
        (tmp_path / "atari/mine_atari.yaml").write_text(text)
        with pytest.raises(UserError, match=r"mine_atari\.yaml (must be a list of names|cannot be read)"):
            queue.tasks_of(ATARI, "mine_atari")


def test_launchers_start_no_run_twice(run, root, tmp_path):
    arguments = ("KungFuMaster all26 all26,pong", "--seeds", "1,1-2,2", "--method", "mlr,mlr", "--gpus", "none", "--dry-run")
    lines = run(root, "scripts/run_atari.sh", *arguments, "--runs", str(tmp_path / "a b")).stdout.splitlines()
    assert len(lines) == len(set(lines)) == 52 and "game=kung_fu_master" in lines[0]
    assert shlex.split(lines[0])[-2] == f"{tmp_path}/a b/logs/atari/kung_fu_master-mlr-paper-seed1.log"  # as it can be typed
    said = run(tmp_path, str(root / "scripts/run_atari.sh"), "--help")
    assert said.returncode == 0 and "--dry-run" in said.stdout
    elsewhere = run(root.parent, os.path.relpath(root / "scripts/run_atari.sh", root.parent), "--help")
    assert elsewhere.returncode == 0 and elsewhere.stdout == said.stdout


def test_launcher_outlives_runs_that_are_killed_together(root, tmp_path):
    """As the kernel does when the memory is full; a third run waits for its turn."""
    arguments = ("pong", "--seeds", "1-3", "--preset", "debug", "--gpus", "none", "--jobs-per-gpu", "2", "--runs", str(tmp_path))
    launcher = subprocess.Popen(["scripts/run_atari.sh", *arguments, "steps=100000"], cwd=root, stdout=subprocess.PIPE, text=True)

    def kill(count: int) -> None:
        runs, deadline = [], time.time() + 30
        while len(runs) < count and time.time() < deadline:
            time.sleep(0.05)
            alive = [p for p in psutil.Process(launcher.pid).children() if p.status() != psutil.STATUS_ZOMBIE]
            runs = [p for p in alive if "Atari.train" in p.cmdline()]
        launcher.send_signal(signal.SIGSTOP)  # both are dead before it looks
        for process in runs:
            process.kill()
        launcher.send_signal(signal.SIGCONT)

    try:
        kill(2)
        kill(1)
        said, _ = launcher.communicate(timeout=20)
    finally:
        launcher.kill()
    assert launcher.returncode == 1 and "0 finished, 0 skipped as finished before, 3 failed, 0 stopped" in said
    assert len(re.findall(r"FAILED pong/mlr-debug/seed[123] \(exit code 137", said)) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["all6"], "all6 is a set of tasks: use it with scripts/run_dmcontrol.sh"),
        (["pong", "--seeds", "x"], "--seeds x must look like"),
        (["pong", "--seeds", "3-1"], "counts upwards"),
        (["pong", "--seeds"], "--seeds needs a value"),
        (["pong", "--job", "2"], "option --job is unknown"),
        (["pong", "seed=2"], "seed has an option of its own"),
        ([], "say which games"),
        (["pong", "--jobs-per-gpu", "0"], "whole number"),
        (["pong", "--runs", "--dry-run"], "--runs needs a value"),
        (["pong", "--method", ","], "names no method"),
    ],
)
def test_launchers_name_mistakes(run, root, arguments, says):
    done = run(root, "scripts/run_atari.sh", *arguments)
    assert done.returncode == 2 and says in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_launcher_stops_its_runs(root, tmp_path, number):
    """The run saves, its log names the signal, nothing new is begun, the same line goes on."""
    arguments = ("--preset", "debug", "--gpus", "none", "--jobs-per-gpu", "1", "--runs", str(tmp_path), "steps=100000", "eval.episodes=1")
    command = ["env", "--default-signal=INT", "scripts/run_atari.sh", "pong", "--seeds", "1-2", *arguments]
    launcher = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    folder = tmp_path / "atari/pong/mlr-debug/seed1"
    deadline = time.time() + 60
    while not list(folder.glob("checkpoint/step_*")) and time.time() < deadline:
        time.sleep(0.1)
    launcher.send_signal(number)
    said, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + number and "0 failed, 1 stopped" in said and "stopped pong/mlr-debug/seed1" in said
    log = (tmp_path / "logs/atari/pong-mlr-debug-seed1.log").read_text()
    assert f"{number.name}: saving, then stopping" in log and "stopped at" in log
    assert not (tmp_path / "atari/pong/mlr-debug/seed2").exists()


def test_a_second_signal_ends_a_run_that_hangs(root, tmp_path):
    """A run that the system has stopped sees no SIGTERM, as one that waits in a driver does not."""
    arguments = ("pong", "--preset", "debug", "--gpus", "none", "--runs", str(tmp_path), "steps=100000")
    launcher = subprocess.Popen(["scripts/run_atari.sh", *arguments], cwd=root, stdout=subprocess.PIPE, text=True)
    log, runs = tmp_path / "logs/atari/pong-mlr-debug-seed1.log", []
    try:
        deadline = time.time() + 30
        while not (log.exists() and "replay:" in log.read_text()) and time.time() < deadline:
            time.sleep(0.05)
        runs = [p for p in psutil.Process(launcher.pid).children() if "Atari.train" in p.cmdline()]
        runs[0].suspend()
        while runs[0].status() != psutil.STATUS_STOPPED and time.time() < deadline:
            time.sleep(0.05)
        for _ in range(2):
            launcher.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        said, _ = launcher.communicate(timeout=20)
    finally:
        launcher.kill()
        for run in runs:
            if run.is_running():
                run.kill()
    assert launcher.returncode == 143 and "1 stopped" in said
