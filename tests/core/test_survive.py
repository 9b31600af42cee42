"""What keeps a run: records cut back to a save, numbers that are not finite noticed, nothing run that was read."""

import ast
import csv
import errno
import json
import resource
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from DMControl.core import errors, machine
from DMControl.core.errors import Crash, Failure, UserError, crashing, run_main
from DMControl.core.method.frames import Frames
from DMControl.core.run import writers
from DMControl.core.run.checkpoint import Checkpoints, _manifest_checksum, checksum
from DMControl.core.run.config import Config
from DMControl.core.run.folder import RunFolder, Stop
from DMControl.core.run.trackers import Header, TensorBoard
from DMControl.core.run.watch import Watch, plain, write_inspection
from DMControl.core.run.writers import Csv, append_rows

CPU = torch.device("cpu")
COLUMNS = ("env_step", "seed", "value", "hours")
HEADER = Header({}, "", {}, (), ())


def values(path) -> list[str]:
    with open(path, newline="") as file:
        return [r["value"] for r in csv.DictReader(file)]


def test_records_are_cut_back_to_the_save(tmp_path):
    """Own rows after the mark go, even those of the same step; rows that an evaluation added stay; half a line goes."""
    table, board = Csv(tmp_path / "eval.csv", COLUMNS, None, "env_step"), TensorBoard(tmp_path, HEADER, None)
    table.write({"env_step": 100, "seed": 1, "value": "kept", "hours": 0.1})
    board.scalars({"x": 1.0}, 100)
    board.flush()
    marks = writers.record_sizes(tmp_path)
    table.write({"env_step": 100, "seed": 1, "value": "again", "hours": 0.2})
    append_rows(tmp_path / "eval.csv", COLUMNS, [{"env_step": 100, "seed": 9, "value": "foreign"}])
    table.write({"env_step": 200, "seed": 1, "value": "later", "hours": 0.3})
    table.close()
    with open(tmp_path / "eval.csv", "a") as file:
        file.write("10")  # a kill in the middle of a row: 100 or 1000 or 10?
    board.scalars({"x": 2.0}, 100)
    board.close()
    TensorBoard(tmp_path / "other", HEADER, None).close()
    later = next((tmp_path / "other").iterdir())
    later.rename(tmp_path / later.name.replace("tfevents.", "tfevents.9"))
    writers.cut_back(tmp_path, marks)
    assert values(tmp_path / "eval.csv") == ["kept", "foreign"]
    assert {p.name: p.stat().st_size for p in tmp_path.glob("events*")} == {k: v for k, v in marks.items() if k.startswith("events")}


def test_a_save_never_replaces_one_of_the_same_step(tmp_path):
    c = Checkpoints(tmp_path)
    for value in (1, 2, 3):
        c.save(7, {"agent": {"w": torch.tensor(value)}}, [])
    assert [p.name for p in c.complete()] == ["step_000000007-2", "step_000000007-1"]
    assert c.load(("agent",), CPU)[1]["agent"]["w"] == 3


def test_a_digit_changed_in_the_manifest_is_seen(tmp_path, capsys):
    c = Checkpoints(tmp_path)
    for step in (1, 2):
        c.save(step, {"agent": {}}, [])
    file = tmp_path / "step_000000002" / "manifest.json"
    file.write_text(file.read_text().replace('"step": 2', '"step": 3'))
    assert c.load(("agent",), CPU)[0]["step"] == 1 and "does not match its checksum" in capsys.readouterr().out
    c.save(2, {"agent": {}}, [])  # the damaged one goes, the sound one of step 1 stays
    assert [p.name for p in c.complete()] == ["step_000000002-1", "step_000000001"]


def test_a_full_disk_leaves_the_last_save_and_no_rubbish(tmp_path):
    """In a process of its own, with a real limit."""
    script = f"""
import resource, torch
from pathlib import Path
from DMControl.core.run.checkpoint import Checkpoints, _manifest_checksum, checksum
from DMControl.core.run.config import Config
c = Checkpoints(Path({str(tmp_path)!r}))
c.save(1, {{"agent": {{"w": torch.ones(3)}}}}, [])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for attempt in (lambda: c.save(2, {{"agent": {{"w": torch.ones(100_000)}}}}, []), lambda: c.write_frames(0, bytes(50_000), 5)):
    try:
        attempt()
    except OSError as error:
        print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "File too large\n" * 2, done.stderr
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["agent.pt", "frames", "manifest.json", "step_000000001"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_the_first_update_that_is_not_finite_is_named():
    watch = Watch()
    assert watch.look() is None
    for update, loss in ((5, 1.0), (6, float("nan")), (7, float("inf"))):
        watch.add(update, {"loss/critic": torch.tensor(loss)}, {"batch": update})
    update, metrics, drawn = watch.look()
    assert update == 6 and drawn == {"batch": 6} and list(metrics) == ["loss/critic"]
    watch.add(8, {"loss/critic": torch.tensor(1.0), "grad/critic": torch.tensor(float("inf"))}, {})
    assert watch.look()[1]["grad/critic"] == float("inf")  # the loss alone would not have told


def test_an_inspection_holds_the_frames_that_were_used(tmp_path):
    @dataclass(frozen=True)
    class Batch:
        obs: Frames
        reward: torch.Tensor

    store = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    batch = Batch(Frames(store, torch.tensor([[7, 8], [8, 3]])), torch.tensor([1.0, float("nan")]))
    write_inspection(tmp_path / "inspect" / "a.pt", {"step": 3}, {"batch": batch})
    read = torch.load(tmp_path / "inspect" / "a.pt", weights_only=True)
    obs = read["batch"]["obs"]
    assert read["step"] == 3 and obs["frames"].flatten()[obs["index"]].tolist() == [[7, 8], [8, 3]] and len(obs["frames"]) == 3
    assert plain(None) is None


def test_a_crash_is_told_apart_from_mistakes():
    @crashing
    def step(error):
        raise error

    with pytest.raises(Crash, match="ValueError: bad"):
        step(ValueError("bad"))
    with pytest.raises(UserError):
        step(UserError("mistake"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("a\nb"), 2), (Failure("end"), 1), (Crash("gone"), 1), (OSError(errno.ENOSPC, "full", "file"), 1),
        (PermissionError(errno.EACCES, "denied", "file"), 2), (KeyboardInterrupt(), 130),
    ],
)  # fmt: skip
def test_every_end_is_one_line(error, code, capsys, monkeypatch):
    def main(arguments):
        raise error

    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as ending:
        run_main(main)
    assert ending.value.code == code and capsys.readouterr().err.count("\n") == 1


def test_a_run_that_cannot_fit_says_so_with_the_numbers():
    with pytest.raises(UserError, match=r"needs about 9\d+\.\d+ GB of RAM \(9\d+\.\d+ GB replay, 0.0 MB networks\), but \d+"):
        machine.require(CPU, {"replay": 10**12, "networks": 0})
    machine.require(CPU, {"replay": 10**6})


def test_a_signal_inside_a_print_harms_nothing():
    """The handler writes past Python's buffers: print() entered twice would be an error."""
    script = """
import os, signal, sys
from DMControl.core.run.folder import RunFolder, Stop
stop = Stop()
class Out:
    def write(self, text):
        if not stop.asked():
            os.kill(os.getpid(), signal.SIGTERM)
        return sys.__stderr__.write(text)
print("text", file=Out())
sys.exit(stop.exit_code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 143 and "saving, then stopping" in done.stderr
    assert Stop.__init__ is not None and errors.DISK_ERRORS


def calls(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_nothing_that_is_read_is_run(root):
    """No eval, exec, yaml.load, pickle or os.system; torch.load with weights_only; no shell."""
    found = 0
    for folder in ("DMControl", "Atari", "scripts"):
        for file in (root / folder).rglob("*.py"):
            for name, call in calls(ast.parse(file.read_text())):
                assert name not in ("eval", "exec", "compile", "yaml.load", "yaml.unsafe_load", "os.system", "__import__"), (file, name)
                assert not name.startswith(("pickle.load", "shelve", "marshal.", "joblib.")), (file, name)
                named = {k.arg: ast.unparse(k.value) for k in call.keywords}
                assert named.get("shell") != "True" and named.get("allow_pickle") != "True", (file, name)
                if name == "torch.load":
                    found += 1
                    assert named.get("weights_only") == "True", file
    assert found >= 2


def test_manifests_are_readable_by_people(tmp_path):
    c = Checkpoints(tmp_path)
    c.save(3, {"agent": {}}, [c.write_frames(0, b"ab", 2)])
    manifest = json.loads((tmp_path / "step_000000003" / "manifest.json").read_text())
    assert set(manifest) == {"sha256", "format", "step", "files", "segments"} and manifest["segments"][0]["count"] == 2


@pytest.mark.parametrize("content", [b".", b"\x80\x04K\x01}s.", b"cbuiltins\nprint\n(S'run'\ntR.", b"PK\x03\x04", b""])
def test_rubbish_with_the_right_checksum_is_refused(tmp_path, content, capsys):
    """Whatever error the reader makes of it: the older save is used."""
    c = Checkpoints(tmp_path)
    for step in (1, 2):
        c.save(step, {"agent": {}}, [])
    folder = tmp_path / "step_000000002"
    (folder / "agent.pt").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["agent.pt"] = checksum(folder / "agent.pt")
    manifest.pop("sha256")
    (folder / "manifest.json").write_text(json.dumps({"sha256": _manifest_checksum(manifest), **manifest}))
    assert c.load(("agent",), CPU)[0]["step"] == 1 and "passed over step_000000002" in capsys.readouterr().out


def test_a_save_that_memory_has_no_room_for_is_not_called_damaged(tmp_path, monkeypatch):
    c = Checkpoints(tmp_path)
    c.save(1, {"agent": {}}, [])

    def full(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        c.load(("agent",), CPU)
    assert not c.broken


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"eval_returns": []}'])
def test_a_damaged_result_is_one_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match="is damaged: the run had finished"):
        _ = RunFolder(tmp_path, Config({"a": 1})).result


def test_what_a_killed_write_left_goes_when_the_run_goes_on(tmp_path):
    run = RunFolder(tmp_path, Config({"a": 1}))
    left = tmp_path / "result.json.123.tmp"
    left.write_text("{")
    run.begin(machine.choose_precision("fp32", CPU), 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "config.yaml", "origin.json"]
