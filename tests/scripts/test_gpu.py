"""A GPU's first quarter of an hour, rehearsed on the CPU: its tests, its runs, its end, and programs that hang."""

import math
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from Atari.methods import METHODS as ATARI_METHODS
from DMControl.core.errors import UserError
from DMControl.methods import METHODS as DMCONTROL_METHODS
from scripts.runs import gpu, gpu_tests, processes
from scripts.runs.processes import Program
from scripts.trees import ATARI, DMCONTROL

STUBBORN = "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); p = subprocess.Popen(['sleep', '60'])"
STUBBORN += "; print(p.pid, flush=True); time.sleep(60)"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_signal_saves_and_packs_what_there_is(root, tmp_path):
    """The second half of a rehearsal, with an interpreter of the user's and on one core."""
    words = ["--rehearse", "--runs-only", "--out", tmp_path / "out", "--runs", tmp_path / "runs"]
    environment, core = os.environ | {"MLR_PYTHON": sys.executable}, {min(os.sched_getaffinity(0))}
    log = tmp_path / "runs/logs/dmcontrol/cartpole_swingup-mlr-debug-seed1.log"
    with subprocess.Popen(
        [root / "scripts/gpu.sh", *words],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    ) as process:
        until = time.monotonic() + 60
        while not (log.exists() and "eval at" in log.read_text()) and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and ", 1 core(s)" in said and "runs: 1 side by side" in said, said
    assert "SIGTERM: saving and packing" in said and "done, 0 failure(s)" in said and said == (tmp_path / "out/report.txt").read_text()
    assert re.search(r"^cartpole_swingup-mlr-debug-seed1: eval at .*; stopped at \d+ env steps", said, re.MULTILINE), said
    (file,) = (tmp_path / "out").glob("*.tar")
    with tarfile.open(file) as archive:
        found = archive.getnames()
    run = "dmcontrol/cartpole_swingup/mlr-debug/seed1"
    assert {f"{run}/{name}" for name in ("config.yaml", "origin.json", "train.csv", "eval.csv")} <= set(found)
    assert "logs/dmcontrol/cartpole_swingup-mlr-debug-seed1.log" in found and any(name.startswith(f"{run}/policy/") for name in found)


def test_runs_end_when_the_time_is_up(tmp_path, capsys):
    """One may have hardly begun, and others have no turn."""
    short = gpu.read_options(["--rehearse", "--minutes", "0.2", "--out", str(tmp_path / "out")], tmp_path / "runs")
    short.cores, short.renderers, begun = 1, 1, time.monotonic()
    gpu.train(short)
    assert 1 < time.monotonic() - begun < 4 and len(short.programs) == 1
    gpu.finish(short)
    said = capsys.readouterr().out
    assert short.failures == 0 and all(program.code is not None for _, program in short.programs)
    assert "runs: 1 side by side for 2 s" in said and "packed: 1 file(s)" in said, said


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path):
    stubborn, polite = Program([sys.executable, "-c", STUBBORN], tmp_path / "a/log"), Program(["sleep", "60"], tmp_path / "b.log")
    until = time.monotonic() + 20
    while not stubborn.lines() and time.monotonic() < until:
        time.sleep(0.05)
    begun = time.monotonic()
    processes.end([stubborn, polite], patience=0.5)
    assert (stubborn.code, polite.code) == (-signal.SIGKILL, -signal.SIGTERM) and time.monotonic() - begun < 5
    until = time.monotonic() + 20  # the child was killed with its parent, but is gone only when the system has reaped it
    while alive(int(stubborn.lines()[0])) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(int(stubborn.lines()[0]))
    done = processes.run(["sleep", "60"], tmp_path / "c.log", 0.3)
    assert done.code == -signal.SIGTERM and 0.2 < done.seconds < 5
    assert processes.run([sys.executable, "-c", "print('a\\rb\\n\\n')"], tmp_path / "c.log", 20).lines() == ["a", "b"]


ENDINGS = {  # how a test of the file below ends, and what it does
    "good": "assert 1 == 1", "skipped": "pytest.skip()", "bad": "assert 1 == 2", "crash": "os.abort()", "error": "assert 1 == 1",
    "hang": "time.sleep(60)", "late": "assert 1 == 1",
}  # fmt: skip


def test_each_test_has_a_process_and_a_word_of_its_own(tmp_path):
    """A crash and a hang keep no other test from running."""
    cases = [f"def test_{name}({'broken' * (name == 'error')}): {body}" for name, body in ENDINGS.items()]
    head = ["import os, time, pytest", "@pytest.fixture", "def broken(): raise ValueError"]
    (tmp_path / "test_cases.py").write_text("\n".join([*head, *cases]))
    names = [f"{tmp_path}/test_cases.py::test_{name}" for name in ENDINGS]
    told = []
    found = gpu_tests.run(names[:5], tmp_path, 60.0, 3, told.append)
    assert told == found and not list(tmp_path.glob("*.log"))
    found += gpu_tests.run(names[5:6], tmp_path, 1.0, 1, told.append)
    words = {one.name.rpartition("test_")[2]: one.word for one in found}
    crashed = f"crashed (signal {signal.SIGABRT})"
    expected = {"good": "passed", "skipped": "skipped", "bad": "failed", "crash": crashed, "error": "failed", "hang": "timed out"}
    assert words == expected and all(bool(one.said) == (one.word in ("failed", crashed)) for one in found if one.word != "timed out")
    (bad,) = (one for one in found if one.name.endswith("bad"))
    assert str(bad).startswith("failed ") and str(bad).endswith(": assert 1 == 2")
    (late,) = gpu_tests.run(names[6:], tmp_path, 0.0, 1, told.append)
    assert late.word == "no time"


def test_the_tests_that_need_a_gpu(tmp_path):
    """Each method of both trees recorded and without copies, golden values, resume; what matters most comes first."""
    names, _ = gpu_tests.collect(tmp_path, 120.0)
    for tree, methods in (("atari", ATARI_METHODS), ("dmcontrol", DMCONTROL_METHODS)):
        for method in methods:
            for test in ("test_a_recorded_update_is_the_plain_one", "test_no_copy_and_no_wait_inside_an_update_on_a_gpu"):
                assert f"tests/{tree}/test_fast.py::{test}[{method}]" in names
        for part in ("test_train.py::test_a_stop_on_a_gpu", "test_golden_mlr.py::", "test_fast.py::test_updates_are_recorded_again"):
            assert any(name.startswith(f"tests/{tree}/{part}") for name in names), part
    assert all("[cuda" in name for name in names if "golden" in name) and "recorded" in names[0] and "golden" in names[-1]
    some = gpu_tests.one_of_each(names)
    assert len(some) == len({name.partition("::")[0] for name in names}) and set(some) <= set(names)


def session(minutes=12.0, **more) -> gpu.Session:
    return gpu.Session(Path(), Path("runs"), minutes, cores=16, renderers=4, **more)


@pytest.mark.parametrize(
    ("ms", "gpu_gb", "free_gb", "minutes", "count"),
    [
        (30, 7.5, 79.0, 9.0, 2),  # 345 s of updates and 60 more in eight minutes: one run, and one for its pauses
        (12, 7.5, 79.0, 12.0, 4),
        (12, 7.5, math.inf, 12.0, 4),
        (12, 7.5, 20.0, 12.0, 2),  # memory
        (1, 0.5, 79.0, 60.0, 8),  # cores
        (400, 7.5, 5.0, 5.0, 1),  # never none
    ],
)
def test_as_many_runs_as_can_end_in_time(ms, gpu_gb, free_gb, minutes, count):
    assert gpu.side_by_side(session(minutes), {"ms_per_update": ms, "peak_gpu_gb": gpu_gb}, free_gb) == count
    assert gpu.side_by_side(session(), {}, math.inf) == 2  # nothing was measured


def test_where_renderers_block_each_other_one_renders_and_a_game_runs_beside_it(tmp_path):
    alone, queue = session(), list(gpu.QUEUE)
    alone.renderers = 1
    first = gpu.ready(alone, queue, [])
    assert first == (DMCONTROL, "cartpole_swingup", "mlr", 1) and gpu.command_of(alone, *first, 2)[2:4] == ["-m", "DMControl.train"]
    running = [Program(["sleep", "0", DMCONTROL.train], tmp_path / "log")]
    assert gpu.ready(alone, queue, running) == (ATARI, "pong", "mlr", 1)
    assert gpu.ready(alone, queue[:-1], running) is None
    alone.renderers = 2
    assert gpu.ready(alone, queue[1:], running) == (DMCONTROL, "cartpole_swingup", "baseline", 1)
    alone.renderers = 0
    assert gpu.ready(alone, queue, []) == (ATARI, "pong", "mlr", 1)
    processes.wait(running, 10)


@pytest.mark.parametrize(
    ("name", "word", "trees"),
    [
        ("tests/dmcontrol/test_fast.py::test_a_recorded_update_is_the_plain_one[mlr]", "failed", {"dmcontrol"}),
        ("tests/atari/test_fast.py::test_a_recorded_update_is_the_plain_one[baseline]", "timed out", {"atari"}),
        ("tests/dmcontrol/test_fast.py::test_a_recorded_update_is_the_plain_one[sgqn]", "failed", set()),
        ("tests/dmcontrol/test_fast.py::test_a_recorded_update_is_the_plain_one[mlr]", "no time", set()),
        ("tests/dmcontrol/test_fast.py::test_no_copy_and_no_wait_inside_an_update_on_a_gpu[mlr]", "failed", set()),
    ],
)
def test_runs_go_unrecorded_only_where_their_recording_fails(name, word, trees):
    passed = gpu_tests.Outcome("tests/atari/test_fast.py::test_a_recorded_update_is_the_plain_one[mlr]", "passed", 1.0, [])
    assert gpu.unrecorded([passed, gpu_tests.Outcome(name, word, 1.0, [])]) == trees


def test_commands_of_runs():
    paper, plain = session(), session(plain={"dmcontrol"})
    run = (DMCONTROL, "reacher_easy", "mlr", 2)
    words = gpu.command_of(paper, *run, 2)
    assert {"task=reacher_easy", "seed=2", "preset=paper", "device=cuda", "threads=2", "runs=runs", "checkpoint.every=25000"} <= set(words)
    assert "compile=false" not in words and "compile=false" in gpu.command_of(plain, *run, 2)
    assert "compile=false" not in gpu.command_of(plain, ATARI, "pong", "mlr", 1, 2)
    for tree, *what in gpu.QUEUE:  # that they are accepted
        settings = [w for w in gpu.command_of(paper, tree, *what, 2)[4:] if not w.startswith("device=")]
        assert tree.read_config(settings).preset == "paper"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--minuts", "3"], "did you mean --minutes"),
        (["--minutes"], "needs a value"),
        (["--minutes", "0"], "between"),
        (["--out", "--rehearse"], "value"),
    ],
)
def test_mistakes_are_named(tmp_path, words, says):
    with pytest.raises(UserError, match=says):
        gpu.read_options(words, tmp_path)


@pytest.mark.parametrize("words", [["--wheels"], ["--wheels", "{}"], ["--debs", "{}"]])
def test_a_folder_without_packages_is_named(root, tmp_path, words):
    done = subprocess.run([root / "scripts/gpu.sh", *(w.format(tmp_path) for w in words)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: --"), done.stderr


def test_without_a_gpu_it_says_so(root, tmp_path):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([root / "scripts/gpu.sh", "--out", tmp_path, "--runs", tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "sees no GPU" in done.stderr and "--rehearse" in done.stderr and done.stderr.count("\n") == 1
