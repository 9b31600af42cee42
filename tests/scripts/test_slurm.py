"""--multirun on a real Slurm, which scripts/slurm_local.sh sets up: disturbed jobs end as undisturbed runs do."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

LAUNCH = (
    "-m", "DMControl.train", "--multirun", "preset=debug", "task=cartpole_swingup,cartpole_balance", "seed=1,2", "action_repeat=8",
    "env_steps=1000", "checkpoint.every=600", "eval.every=1000", "eval.episodes=1", "eval.video=false",
)  # fmt: skip
SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.gpus_per_node=null", "hydra.launcher.mem_gb=1")
SAVED = 75  # agent steps in 600 env steps: the only save before the end, unless a signal asks for one
RUNS = [(task, seed) for task in ("cartpole_swingup", "cartpole_balance") for seed in (1, 2)]
NOBODY = 65534


def script(root, *arguments, **how):
    return subprocess.run([root / "scripts/slurm_local.sh", *arguments], capture_output=True, text=True, **how)


@pytest.fixture
def cluster(root, tmp_path):
    """The environment in which Slurm's commands reach a Slurm of our own."""
    pytest.importorskip("submitit", reason="needs requirements-cluster.txt")
    folder = tmp_path / "slurm"
    started = script(root, "start", folder)
    if started.returncode == 2:
        pytest.skip(started.stderr.strip())
    try:
        assert started.returncode == 0, started.stderr
        yield os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1", "MUJOCO_GL": "osmesa"}
    finally:
        pids = [file.read_text().strip() for file in folder.glob("*.pid")]
        stopped = script(root, "stop", folder)
    assert stopped.returncode == 0 and not folder.exists(), stopped.stderr
    assert len(pids) == 3 and not any(os.path.exists(f"/proc/{pid}") for pid in pids)


class Queue:
    def __init__(self, environment):
        self.environment = environment

    def __call__(self, *command) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def jobs(self) -> list[str]:
        return self("squeue", "--noheader", "--format=%i %T").splitlines()

    def wait(self, done, what: str, seconds: int = 600) -> None:
        deadline = time.time() + seconds
        while not done():
            assert time.time() < deadline, f"{what}: {self.jobs()}"
            time.sleep(0.05)


def run_of(runs, number: int):
    task, seed = RUNS[number]
    return runs / f"dmcontrol/{task}/mlr-debug/seed{seed}"


def disturb(queue: Queue, runs, commands: dict[int, list[str]]) -> None:
    """Once the job of this number has saved, hand it to the command."""
    left = dict(commands)

    def all_done() -> bool:
        for number in [n for n in left if (run_of(runs, n) / f"checkpoint/step_{SAVED:09d}/manifest.json").exists()]:
            (job,) = [j.split()[0] for j in queue.jobs() if j.endswith(f"_{number} RUNNING")]
            queue(*left.pop(number), job)
            print("\n".join([f"{' '.join(commands[number])} {job}", *queue.jobs()]))
        return not left

    queue.wait(all_done, "no save")


def outcome(folder):
    """The rows without hours and times, and the final networks."""
    rows = []
    for name in ("train.csv", "eval.csv"):
        with open(folder / name, newline="") as file:
            rows += [{k: v for k, v in r.items() if k != "hours" and not k.startswith(("time/", "perf/"))} for r in csv.DictReader(file)]
    return rows, torch.load(max(folder.glob("checkpoint/step_*")) / "agent.pt", weights_only=True)


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in leaves(tree[key])]
    return [tree]


@pytest.mark.slurm
def test_requeued_and_cancelled_jobs_end_as_undisturbed_runs_do(root, tmp_path, cluster):
    queue, runs = Queue(cluster), tmp_path / "runs"
    command = [sys.executable, *LAUNCH, f"runs={runs}", *SLURM]
    wrong = subprocess.run([*command, "hydra.launcher.partition=nosuch"], cwd=root, capture_output=True, text=True, env=cluster)
    (line,) = [x for x in wrong.stderr.splitlines() if x.startswith("error: ")]
    assert wrong.returncode == 2 and "invalid partition" in line and "Traceback" not in wrong.stderr

    launch = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=cluster)
    try:
        disturb(queue, runs, {0: ["scontrol", "requeue"], 1: ["scancel"], 2: ["scancel", "--signal=USR2"]})
        queue.wait(lambda: not queue.jobs(), "jobs are left")
    finally:
        launch.terminate()  # without Slurm's accounting it does not hear of the cancelled job
        said = launch.communicate()[0]
    assert [(run_of(runs, n) / "result.json").exists() for n in range(4)] == [True, False, True, True], said
    logs = {n: next(runs.glob(f"multirun/*/*/.submitit/*_{n}/*.out")).read_text() for n in (0, 1, 2)}
    assert "SIGUSR2: saving, then stopping\n" in logs[2] and "Requeued job" in logs[2]  # as before the end of its time
    for text in (logs[0], logs[1]):
        assert "SIGTERM: saving, then stopping\n" in text and "saved: waiting until Slurm requeues or ends this job" in text

    again = subprocess.run(command, cwd=root, capture_output=True, text=True, env=cluster, timeout=600)
    assert again.returncode == 0, again.stderr
    for number in (0, 1, 2):
        first, second = json.loads((run_of(runs, number) / "origin.json").read_text())
        assert first["step"] == 0 and second["step"] > SAVED  # it saved when it was told to go

    plain = [a.replace(str(runs), str(tmp_path / "plain")) for a in command if "launcher" not in a]
    subprocess.run(plain, cwd=root, check=True, capture_output=True, env=cluster, timeout=600)
    for number in range(4):
        (rows, networks), (rows_here, networks_here) = outcome(run_of(runs, number)), outcome(run_of(tmp_path / "plain", number))
        assert rows == rows_here and len(rows) == 3
        assert all(torch.equal(a, b) for a, b in zip(leaves(networks), leaves(networks_here), strict=True) if torch.is_tensor(a))
    print((tmp_path / "slurm/ended.txt").read_text())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_what_is_missing_is_named(root, tmp_path):
    def says(*arguments, **how):
        done = subprocess.run([shutil.which("bash"), "-s", *arguments], input=text, cwd="/", capture_output=True, text=True, **how)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        return done.stderr

    text = (root / "scripts/slurm_local.sh").read_text()
    assert "start|stop" in says()
    assert "only root" in says("start", user=NOBODY)
    (tmp_path / "id").symlink_to(shutil.which("id"))
    assert "apt-get install -y --no-install-recommends slurm-wlm munge" in says("start", env={"PATH": str(tmp_path)})
