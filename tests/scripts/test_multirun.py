"""--multirun: two runs as jobs, one of them preempted, one killed; both go on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from Atari.core.run import multirun
from Atari.core.run.folder import Stop

QUICK = ("eval.every=1000", "eval.episodes=1", "eval.final_episodes=1", "checkpoint.every=40")
LAUNCH = ("-m", "Atari.train", "--multirun", "preset=debug", "game=pong", "seed=1,2", "steps=400", "eval.video=false")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def worker(folder) -> psutil.Process:
    """The process that holds the run's lock."""
    lock = str(folder / ".lock")
    for process in psutil.process_iter():
        try:
            if any(file.path == lock for file in process.open_files()):
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"no process holds the lock of {folder}")


def test_jobs_are_requeued_and_resume(root, tmp_path):
    command = [sys.executable, *LAUNCH, f"runs={tmp_path}", "hydra/launcher=submitit_local", *QUICK]
    first = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
    preempted, killed = (tmp_path / f"atari/pong/mlr-debug/seed{seed}" for seed in (1, 2))
    for folder, number in ((preempted, signal.SIGUSR2), (killed, signal.SIGKILL)):
        deadline = time.time() + 90
        while not list(folder.glob("checkpoint/step_*/manifest.json")) and time.time() < deadline:
            time.sleep(0.05)
        worker(folder).send_signal(number)
    said, _ = first.communicate(timeout=200)
    assert (preempted / "result.json").exists() and not (killed / "result.json").exists(), said
    assert first.returncode == 1 and "error: a job failed or was cancelled" in said and "Traceback" not in said
    begun = json.loads((preempted / "origin.json").read_text())
    assert len(begun) == 2 and begun[1]["step"] > 0  # saved when it was asked to make room, and went on from there by itself
    logs = "".join(f.read_text() for f in tmp_path.glob("multirun/*/*/.submitit/*/*.out"))
    assert "SIGUSR2: saving, then stopping" in logs and "Requeued job" in logs and f"run: {preempted} (resumed at" in logs

    command = [a for a in command if "launcher" not in a]  # in one process: the killed one, beside a finished one
    again = subprocess.run(command, cwd=root, capture_output=True, text=True, env=ENVIRONMENT, timeout=200)
    assert again.returncode == 0, again.stderr
    assert f"{preempted} has finished" in again.stdout and f"run: {killed} (resumed at" in again.stdout
    for folder in (preempted, killed):
        assert json.loads((folder / "result.json").read_text())["frames"] == 1600


@pytest.fixture
def in_a_cluster(monkeypatch):
    numbers = (signal.SIGTERM, signal.SIGUSR2)
    before = [signal.getsignal(n) for n in numbers]
    monkeypatch.setattr(Stop, "signals", numbers)
    monkeypatch.setattr(Stop, "cluster_job", True)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_job_saves_whatever_its_scheduler_sends_and_however_often(in_a_cluster):
    stop = Stop()
    for number, answer in ((signal.SIGTERM, 143), (signal.SIGTERM, 143), (signal.SIGUSR2, 140), (signal.SIGTERM, 140)):
        os.kill(os.getpid(), number)
        assert stop.exit_code == answer  # SIGUSR2 asks to be requeued, which a SIGTERM before or after it must not undo


def test_a_saved_job_waits_for_slurm(in_a_cluster):
    """Slurm does not requeue a job that leaves within its grace time."""

    def requeue(*_):
        raise SystemExit("requeued")

    Stop()
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it still waits"))
    signal.alarm(10)
    for seconds, number in ((0.1, signal.SIGTERM), (0.3, signal.SIGUSR2)):
        threading.Timer(seconds, os.kill, (os.getpid(), number)).start()
    with pytest.raises(SystemExit, match="requeued"):
        multirun._wait_for_slurm(requeue)
    signal.alarm(0)


def test_slurm_gets_the_values_of_the_yaml(root, tmp_path):
    """What would be handed to sbatch: a stand-in for the cluster's command keeps the script."""
    commands = {"sbatch": 'cp "$1" "$RECORD/script"; touch "$RECORD/handed"; echo "Submitted batch job 42"', "srun": "", "sacct": ""}
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = ENVIRONMENT | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORD": str(tmp_path)}
    chosen = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=90", f"runs={tmp_path / 'runs'}"]
    command = [sys.executable, *LAUNCH[:4], "game=pong,alien", "seed=1,2", *chosen]
    launch = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    deadline = time.time() + 60
    while not (tmp_path / "handed").exists() and launch.poll() is None and time.time() < deadline:
        time.sleep(0.1)
    launch.terminate()  # it would ask for the jobs' state for a while
    assert (tmp_path / "handed").exists(), launch.communicate()[0]
    script = (tmp_path / "script").read_text()
    for line in ("--array=0-3%4", "--gpus-per-node=1", "--cpus-per-task=8", "--signal=USR2@180", "--partition=gpu", "--time=90"):
        assert f"#SBATCH {line}\n" in script, line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--multirun", "seed=1,x"], "seed=x must be a whole number"),
        (["--multirun", "game=pong,pnog"], "did you mean pong"),
        (["--multirun", "sede=1,2"], "did you mean seed"),
        (["--multirun", "seed=1,2", "hydra/launcher=submitit_slrm"], "did you mean submitit_slurm"),
        (["seed=1", "hydra/launcher=submitit_slurm"], "add --multirun"),
        (["--multirun", "seed=1,2", "hydra/launcher=submitit_slurm"], "sbatch and srun are not on this machine"),
    ],
)
def test_mistakes_are_named_before_anything_is_launched(monkeypatch, arguments, says):
    from Atari.core.errors import UserError
    from Atari.train import main

    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=says):
        main(arguments)


def test_what_hydra_refuses_is_one_line(root, tmp_path):
    wrong = ["hydra/launcher=submitit_local", "hydra.launcher.nosuch=1"]
    done = subprocess.run([sys.executable, *LAUNCH, f"runs={tmp_path}", *wrong], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and "nosuch" in done.stderr and done.stderr.count("\n") == 1


def test_in_this_process_one_after_the_other(root, tmp_path):
    """Without a launcher; a game without a file of its own, and both spellings."""
    command = [sys.executable, "-m", "Atari.train", "-m", "preset=debug", "steps=70", "eval.video=false", "eval.final_episodes=1"]
    done = subprocess.run(
        [*command, "game=Pong,freeway", f"runs={tmp_path}", "eval.episodes=1"], cwd=root, capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert {f.parts[-4] for f in tmp_path.glob("atari/*/*/*/result.json")} == {"pong", "freeway"}
