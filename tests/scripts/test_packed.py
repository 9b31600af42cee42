"""Runs in packed files: what they hold, within which limits, and what is taken in."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import torch

from DMControl.core.errors import UserError
from DMControl.core.machine import Precision
from DMControl.core.method.frames import Frames
from scripts.ledger.rows import read
from scripts.probes.readout import has_mlr
from scripts.runs import packed
from scripts.trees import ATARI, DMCONTROL, TREES

FOLDERS = {DMCONTROL: "dmcontrol/cartpole_swingup/mlr-debug/seed1", ATARI: "atari/pong/mlr-debug/seed1"}
FP32 = Precision(torch.device("cpu"), torch.float32)


@pytest.fixture
def pack(day, tmp_path):
    """pack() packs the runs of the day; returns what was made and its files."""

    def make(name="out", **more):
        out = tmp_path / name
        out.mkdir()
        made = packed.pack([day[0] / folder for folder in FOLDERS.values()], out, **more)
        return made, sorted(out.glob("packed-*.tar"))

    return make


def names(files) -> list[str]:
    found = []
    for file in files:
        with tarfile.open(file) as archive:
            found += archive.getnames()
    return found


def test_packed_runs_enter_the_ledger_and_act_as_they_did(day, ledger, pack, tmp_path):
    made, files = pack()
    assert not made.left_out and len(files) == 1
    runs, results = tmp_path / "runs", tmp_path / "results"
    done = ledger(runs, "--from", *files, "--results", results, "--debug")
    assert done.returncode == 0 and done.stdout.count("taken in: ") == 2, done.stderr
    ledger(day[0], "--results", tmp_path / "own", "--debug")
    for tree in TREES:
        assert read(results, tree) == read(tmp_path / "own", tree) and len(read(results, tree)) == 1
        whole, here = day[0] / FOLDERS[tree], runs / FOLDERS[tree]
        config = tree.load("core.run.folder").read_config(whole)
        env = tree.make_env(config, 1, judge=True)
        (one, step), (two, same) = (tree.load_agent(folder, config, env, FP32) for folder in (whole, here))
        size = config.image.size if tree is DMCONTROL else config.env.size
        channels = 9 if tree is DMCONTROL else config.env.stack
        generator = torch.Generator().manual_seed(0)
        images = Frames.of_images(torch.randint(0, 256, (8, channels, size, size), dtype=torch.uint8, generator=generator))
        acted = [agent.act(images, agent.begin(8), explore=False, generator=torch.Generator().manual_seed(1))[0] for agent in (one, two)]
        assert step == same > 0 and np.abs(acted[0].astype(float) - acted[1]).max() < (0.01 if tree is DMCONTROL else 1)
        assert has_mlr(one) and not has_mlr(two)  # nobody reads a loss off an objective that did not come along


def test_packed_twice_is_the_same_run(ledger, pack, tmp_path):
    words = (tmp_path / "runs", "--from", *pack()[1], "--results", tmp_path / "results", "--debug")
    ledger(*words)
    again = ledger(*words)
    assert again.returncode == 0 and again.stdout.count("left as it is: ") == 2 and "0 new" in again.stdout


def test_a_run_that_went_on_replaces_what_was_taken_in_before(day, ledger, pack, tmp_path):
    runs, parts = tmp_path / "runs", tmp_path / "day"
    shutil.copytree(day[0] / "dmcontrol", parts / "dmcontrol")
    folder = parts / FOLDERS[DMCONTROL]
    (folder / "result.json").unlink()
    whole = (folder / "eval.csv").read_bytes()
    (folder / "eval.csv").write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    (tmp_path / "early").mkdir()
    packed.pack([folder], tmp_path / "early")
    early, late = sorted((tmp_path / "early").glob("*.tar")), pack()[1]
    for files, count in ((early, 3), (late, 4), (early, 4)):
        assert not packed.unpack(files, runs)
        assert len((runs / FOLDERS[DMCONTROL] / "eval.csv").read_text().splitlines()) == count
    assert (runs / FOLDERS[DMCONTROL] / "result.json").exists()
    changes = ("origin.json", b'"commit": "', b'"commit": "0'), ("config.yaml", b"seed: 1", b"seed: 2"), ("eval.csv", b"1,", b"2,")
    for name, old, new in changes:
        file = runs / FOLDERS[DMCONTROL] / name
        kept = file.read_bytes()
        file.write_bytes(kept.replace(old, new))
        (refused,) = packed.unpack(late, runs)
        assert "holds another run" in refused and FOLDERS[DMCONTROL] in refused, name
        if name != "eval.csv":
            file.write_bytes(kept)
    done = ledger(runs, "--from", *late, "--results", tmp_path / "results", "--debug")
    assert done.returncode == 1 and "refused: " in done.stderr


def test_a_run_that_can_go_on_here_is_left_alone(day, pack, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(day[0] / "dmcontrol", runs / "dmcontrol")
    folder = runs / FOLDERS[DMCONTROL]
    (folder / "result.json").unlink()
    (folder / "eval.csv").unlink()
    assert not packed.unpack(pack()[1], runs) and not (folder / "result.json").exists() and (folder / "checkpoint").exists()


@pytest.mark.parametrize("limits", [(2, 10**6), (9, 65_000)])
def test_limits_of_size_and_number(pack, monkeypatch, limits):
    """Records find room before policies. What finds none is named, and no policy is torn."""
    _, (file,) = pack()
    for name, value in zip(("FILES", "ALL_BYTES", "FILE_BYTES"), (*limits, 30_000), strict=True):
        monkeypatch.setattr(packed, name, value)
    made, files = pack("small", more={"note.txt": b"a note"})
    found = names(files)
    assert 1 < len(files) <= limits[0] and sum(made.sizes) <= limits[1] and max(made.sizes) <= 30_000
    assert all(0 <= f.stat().st_size - size < tarfile.RECORDSIZE for f, size in zip(files, made.sizes, strict=True))
    assert any(name.endswith("manifest.json") for name in made.left_out) and all("/policy/" in name for name in made.left_out)
    assert any("/policy/" in name for name in found)
    assert sorted([*found, *made.left_out]) == sorted([*names([file]), "note.txt"]) and len(set(found)) == len(found)
    kept = {name.split("/")[-1] for name in found if name.startswith(FOLDERS[ATARI])}
    assert {"config.yaml", "origin.json", "result.json", "train.csv", "eval.csv"} <= kept


def test_an_incomplete_policy_is_not_loaded(pack, tmp_path, monkeypatch):
    _, files = pack()
    runs = tmp_path / "runs"
    packed.unpack(files, runs)
    folder = runs / FOLDERS[DMCONTROL]
    config = DMCONTROL.load("core.run.folder").read_config(folder)
    env = DMCONTROL.make_env(config, 1, judge=True)
    next(folder.glob("policy/*/actor.pt")).unlink()
    with pytest.raises(UserError, match="no sound checkpoint"):
        DMCONTROL.load_agent(folder, config, env, FP32)
    next(folder.glob("policy/*/manifest.json")).unlink()
    with pytest.raises(UserError, match="no sound checkpoint"):
        DMCONTROL.load_agent(folder, config, env, FP32)


@pytest.mark.parametrize(
    "name",
    ["../x", "/x", "dmcontrol/../../../x/config.yaml", "dmcontrol/a/b/seed1/../../x", "dmcontrol/a/b/seed1/other.txt",
     "elsewhere/a/b/seed1/config.yaml", "dmcontrol/a/b/seed1/policy/step_000000001/../../x.pt", "dmcontrol/a/b/seed1/checkpoint/x.pt"],
)  # fmt: skip
def test_only_files_of_runs_are_unpacked(tmp_path, name):
    with tarfile.open(tmp_path / "packed-1.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("dmcontrol/a/b/seed1/config.yaml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    assert packed.unpack([tmp_path / "packed-1.tar"], tmp_path / "runs") == [] and sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_taken_in_is_one_line(ledger, pack, tmp_path):
    _, (file,) = pack()
    with tarfile.open(tmp_path / "policies.tar", "w") as archive:
        member = tarfile.TarInfo(f"{FOLDERS[ATARI]}/train.csv")
        archive.addfile(member, io.BytesIO())
    (tmp_path / "cut.tar").write_bytes(file.read_bytes()[:20_000])
    (tmp_path / "no.tar").write_bytes(b"nothing")
    for word, code, says in (("cut.tar", 2, "copy it again"), ("no.tar", 2, "copy it again"), ("policies.tar", 1, "name them all"),
                             ("gone.tar", 2, "--from needs files")):  # fmt: skip
        done = ledger(tmp_path / "runs", "--from", tmp_path / word, "--results", tmp_path / "results")
        assert (done.returncode, done.stderr.count("\n")) == (code, 1) and says in done.stderr, (word, done.stderr)
    assert ledger("--from").returncode == 2
