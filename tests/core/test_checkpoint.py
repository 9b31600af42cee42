"""Saves: the newest sound one wins, nothing is run on loading, frames are written once."""

import json
import pickle

import pytest
import torch

from DMControl.core.errors import UserError
from DMControl.core.run.checkpoint import Checkpoints

CPU = torch.device("cpu")


def save(c: Checkpoints, step: int, segments=()) -> None:
    c.save(step, {"agent": {"w": torch.full((3,), float(step))}, "state": {"step": step}}, list(segments))


def test_newest_wins_and_two_are_kept(tmp_path):
    c = Checkpoints(tmp_path / "checkpoint")
    assert c.load(("agent",), CPU) is None
    for step in (10, 20, 1000):
        save(c, step)
    assert [p.name for p in c.complete()] == ["step_000001000", "step_000000020"]
    manifest, parts = c.load(("agent", "state"), CPU)
    assert manifest["step"] == parts["state"]["step"] == 1000 and parts["agent"]["w"].tolist() == [1000.0] * 3


@pytest.mark.parametrize("harm", ["truncate", "flip", "missing", "manifest"])
def test_a_harmed_save_is_passed_over(tmp_path, harm, capsys):
    c = Checkpoints(tmp_path)
    save(c, 1)
    save(c, 2)
    file = tmp_path / "step_000000002" / "agent.pt"
    data = file.read_bytes()
    if harm == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        file.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif harm == "missing":
        file.unlink()
    else:
        file.with_name("manifest.json").write_text("{")
    manifest, _ = c.load(("agent", "state"), CPU)
    assert manifest["step"] == 1
    assert "passed over step_000000002" in capsys.readouterr().out
    (tmp_path / "step_000000001" / "agent.pt").unlink()
    with pytest.raises(UserError, match="no sound checkpoint"):
        c.load(("agent", "state"), CPU)


def test_an_unfinished_save_is_no_save(tmp_path):
    c = Checkpoints(tmp_path)
    save(c, 1)
    unfinished = tmp_path / "tmp_step_000000002"
    unfinished.mkdir()
    (unfinished / "agent.pt").write_bytes(b"half")
    assert c.load(("agent",), CPU)[0]["step"] == 1
    save(c, 2)  # and is in nobody's way
    assert c.load(("agent",), CPU)[0]["step"] == 2


def test_frames_are_shared_and_forgotten(tmp_path):
    c = Checkpoints(tmp_path)
    one = c.write_frames(0, b"abc", 3)
    assert c.read_frames(one) == b"abc"
    save(c, 1, [one])
    two = c.write_frames(3, b"de", 2)
    save(c, 2, [one, two])
    save(c, 3, [two])
    assert {p.name for p in c.frames.iterdir()} == {one["file"], two["file"]}
    save(c, 4, [two])
    assert {p.name for p in c.frames.iterdir()} == {two["file"]}
    (c.frames / two["file"]).write_bytes(b"dX")
    with pytest.raises(ValueError, match="checksum"):
        c.read_frames(two)


def test_damaged_frames_and_manifests_are_passed_over(tmp_path):
    c = Checkpoints(tmp_path)
    one = c.write_frames(0, b"abc", 3)
    save(c, 1, [one])
    two = c.write_frames(3, b"de", 2)
    save(c, 2, [one, two])
    (c.frames / two["file"]).write_bytes(b"dX")
    assert c.load(("agent", "state"), CPU)[0]["step"] == 1
    (tmp_path / "step_000000002" / "manifest.json").write_text("{")
    assert c.load(("agent", "state"), CPU)[0]["step"] == 1
    save(c, 3, [one])  # and the next save is not in their way
    assert [p.name for p in c.complete()] == ["step_000000003", "step_000000001"]


class Bomb:
    def __reduce__(self):
        return (print, ("the pickle was run",))


def test_a_crafted_pickle_is_refused_unrun(tmp_path, capsys):
    c = Checkpoints(tmp_path)
    save(c, 1)
    folder = tmp_path / "step_000000001"
    torch.save({"w": Bomb()}, folder / "agent.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    from DMControl.core.run.checkpoint import checksum

    manifest["files"]["agent.pt"] = checksum(folder / "agent.pt")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="no sound checkpoint"):
        c.load(("agent",), CPU)
    (folder / "agent.pt").write_bytes(pickle.dumps(Bomb()))
    manifest["files"]["agent.pt"] = checksum(folder / "agent.pt")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="no sound checkpoint"):
        c.load(("agent",), CPU)
    assert "was run" not in capsys.readouterr().out
