"""The ledger: what it collects, refuses and notices."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from DMControl.core.errors import UserError
from scripts.ledger import rows
from scripts.ledger.rows import read
from scripts.ledger.runs import config_hash, other_worlds
from scripts.report import report as reporter
from scripts.trees import ATARI, DMCONTROL, TREES


def test_ledger_collects_each_run_once(ledger, day, tmp_path):
    results = tmp_path / "results"
    assert "1 run(s) of preset debug" in ledger(day[0], "--results", results).stdout
    done = ledger(day[0], "--results", results, "--debug")
    assert done.returncode == 0, done.stderr
    before = {b: (results / f"{b.name}.csv").read_bytes() for b in TREES}
    again = ledger(day[0], "--results", results, "--debug")
    assert again.returncode == 0 and "0 new, 1 run(s) in all" in again.stdout
    assert before == {b: (results / f"{b.name}.csv").read_bytes() for b in TREES}
    for benchmark, folder in ((DMCONTROL, "dmcontrol/cartpole_swingup/mlr-debug/seed1"), (ATARI, "atari/pong/mlr-debug/seed1")):
        (row,) = read(results, benchmark)
        result = json.loads((day[0] / folder / "result.json").read_text())
        assert [float(r) for r in row["eval_returns"].split()] == pytest.approx(result["eval_returns"], rel=1e-5)
        assert float(row["score"]) == pytest.approx(sum(result["eval_returns"]) / len(result["eval_returns"]), rel=1e-5)
        assert (row["config_hash"], row["commit"], row["finished"]) == (result["config_hash"], result["commit"], "yes")
        assert int(row[benchmark.step]) == int(row["planned"]) == result[f"{benchmark.step}s"] and row["hardware"] == result["hardware"]
    assert "env_steps=1200" in read(results, DMCONTROL)[0]["changed"] and read(results, ATARI)[0]["changed"] == ""


def test_a_run_that_was_cut_off_has_the_score_of_its_last_evaluation(ledger, day, tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    folder = runs / "dmcontrol/cartpole_swingup/mlr-debug/seed1"
    shutil.copytree(day[0] / "dmcontrol", runs / "dmcontrol")
    (folder / "result.json").unlink()
    lines = (folder / "eval.csv").read_text().splitlines()
    (folder / "eval.csv").write_text("\n".join(lines[:3]) + "\n")  # before step 0 and at 600
    assert "(at 600 of 1,200; --cut-off adds it as it is)" in ledger(runs, "--results", results, "--debug").stdout
    assert ledger(runs, "--results", results, "--debug", "--cut-off").returncode == 0
    (row,) = read(results, DMCONTROL)
    assert (row["env_step"], row["planned"], row["finished"]) == ("600", "1200", "no") and row["commit"] != "unknown"
    for kept in (len(lines), 3):  # further; then, after a crash, on its way again from the save before
        (folder / "eval.csv").write_text("\n".join(lines[:kept]) + "\n")
        done = ledger(runs, "--results", results, "--debug", "--cut-off")
        (row,) = read(results, DMCONTROL)
        assert done.returncode == 0 and (row["env_step"], row["finished"]) == ("1200", "no"), done.stderr
    assert "resumed from an earlier save, and the ledger has it at 1,200" in done.stdout
    assert ledger(day[0], "--results", results, "--debug").returncode == 0  # it has finished since
    (row,) = read(results, DMCONTROL)
    assert (row["env_step"], row["finished"]) == ("1200", "yes")


def test_ledger_refuses_another_run_of_the_same_name(ledger, day, tmp_path):
    results = tmp_path / "results"
    ledger(day[0], "--results", results, "--debug")
    runs = tmp_path / "runs"
    shutil.copytree(day[0] / "atari", runs / "atari")
    file = runs / "atari/pong/mlr-debug/seed1/result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hours": 1.0}))
    done = ledger(runs, "--results", results, "--debug")
    assert done.returncode == 1 and "the ledger holds another run of pong mlr debug  1" in done.stderr
    both = ledger(day[0], runs, "--results", tmp_path / "new", "--debug")
    assert both.returncode == 1 and "is the same run as" in both.stderr


def edit(file: Path, change) -> None:
    """result.json or config.yaml with other values."""
    read_text, write = (json.loads, json.dumps) if file.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    values = read_text(file.read_text())
    change(values)
    file.write_text(write(values))


@pytest.mark.parametrize("benchmark", TREES, ids=lambda b: b.name)
@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("result.json", lambda v: v["eval_returns"].__setitem__(0, 999.5), "are not those of the last evaluation"),
        ("result.json", lambda v: v["eval_returns"].pop(), "are not those of the last evaluation"),
        ("result.json", lambda v: v["eval_returns"].append(v["eval_returns"][0]), "are not those of the last evaluation"),
        ("result.json", lambda v: v.update(env_steps=600, frames=640), "which is not finished"),
        ("result.json", lambda v: v.update(env_steps=9600, frames=9600), "are not those of the last evaluation"),
        ("result.json", lambda v: v.update(config_hash="0" * 12), "ran with other settings"),
        ("result.json", lambda v: v.update(seed=2), "its result.json says seed=2"),
        ("result.json", lambda v: v.update(method="baseline"), "its result.json says method=baseline"),
        ("origin.json", lambda v: v[0].update(config_hash="0" * 12), "ran with other settings"),
        ("config.yaml", lambda v: v.update(preset="small"), "its config.yaml is that of"),
        ("config.yaml", lambda v: v.update(seed=2), "its config.yaml is that of"),
        ("config.yaml", lambda v: v["mlr"].update(window=5), "ran with other settings"),
        ("config.yaml", lambda v: v.update(env_steps=600, steps=160), "ran with other settings"),
    ],
)
def test_ledger_refuses_a_folder_with_files_of_two_runs(ledger, day, tmp_path, benchmark, name, change, says):
    folder = next((day[0] / benchmark.name).rglob("result.json")).parent
    copy = tmp_path / "runs" / folder.relative_to(day[0])
    shutil.copytree(folder, copy)
    edit(copy / name, change)
    done = ledger(tmp_path / "runs", "--results", tmp_path / "results", "--debug")
    assert done.returncode == 1 and done.stderr.startswith(f"refused: {copy}: ") and says in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / f"results/{benchmark.name}.csv").exists()


@pytest.mark.parametrize("preset", ["small", "nonsense"])
def test_ledger_refuses_another_preset_even_if_the_folder_is_named_after_it(ledger, day, tmp_path, preset):
    copy = tmp_path / f"atari/pong/mlr-{preset}/seed1"
    shutil.copytree(day[0] / "atari/pong/mlr-debug/seed1", copy)
    edit(copy / "config.yaml", lambda v: v.update(preset=preset))
    done = ledger(tmp_path, "--results", tmp_path / "results")
    assert done.returncode == 1 and "ran with other settings" in done.stderr, done.stderr
    own = config_hash(yaml.safe_load((copy / "config.yaml").read_text()))
    edit(copy / "origin.json", lambda v: [start.update(config_hash=own) for start in v])
    edit(copy / "result.json", lambda v: v.update(config_hash=own, preset=preset))
    done = ledger(tmp_path, "--results", tmp_path / "results")
    if preset == "nonsense":  # a preset of the user's own that is no more
        assert done.returncode == 1 and "cannot be compared with its preset" in done.stderr and "nonsense" in done.stderr
    else:  # who forges all three gets a row that names each setting of the other preset
        assert "rainbow." in read(tmp_path / "results", ATARI)[0]["changed"]


@pytest.mark.parametrize(
    "what", ["score", "curve", "row twice", "order", "row deleted", "row and curve deleted", "all deleted", "curve added"]
)
def test_ledger_sees_edits_by_hand(ledger, invent, tmp_path, what):
    own = [invent(tmp_path, DMCONTROL, "cheetah_run", "mlr", s) for s in (1, 2)]
    rows.write(tmp_path, DMCONTROL, own)
    assert ledger("--check", "--results", tmp_path).returncode == 0
    file = tmp_path / "dmcontrol.csv"
    lines = file.read_text().splitlines()
    if what == "score":
        with open(file, newline="") as handle:
            score = next(csv.DictReader(handle))["score"]
        file.write_text(file.read_text().replace(score, "999.5"))
    elif what == "curve":
        curve = rows.curve_file(tmp_path, DMCONTROL, own[0])
        curve.write_text(curve.read_text().replace("\n0,", "\n1,"))
    elif what == "curve added":
        curve = rows.curve_file(tmp_path, DMCONTROL, own[0])
        shutil.copy(curve, curve.with_name("another.csv"))
    elif what == "all deleted":
        shutil.rmtree(tmp_path / "curves")
        file.unlink()
    else:
        kept = {"row twice": (2, 2), "order": (2, 1)}.get(what, (2,))
        if what == "row and curve deleted":
            rows.curve_file(tmp_path, DMCONTROL, own[0]).unlink()
        file.write_text("\n".join([lines[0], *(lines[k] for k in kept)]) + "\n")
    done = ledger("--check", "--results", tmp_path)
    says = {
        "score": "does not match its checksum",
        "curve": "does not match line 2",
        "row twice": "is there twice",
        "order": "out of order",
        "row deleted": "has 1 of its 2 rows",
        "row and curve deleted": "has 1 of its 2 rows",
        "all deleted": "dmcontrol.csv is missing",
        "curve added": "has no row in",
    }
    assert done.returncode == 2 and says[what] in done.stderr
    with pytest.raises(UserError, match=says[what]):
        reporter.main(["--results", str(tmp_path), "--figs", str(tmp_path / "figs")])
    assert not (tmp_path / "REPORT.md").exists()


def test_a_row_that_was_deleted_can_be_collected_again(ledger, day, tmp_path):
    assert ledger(day[0], "--results", tmp_path, "--debug").returncode == 0
    file = tmp_path / "atari.csv"
    before = file.read_text()
    file.write_text(before.splitlines()[0] + "\n")
    assert "atari.csv has 0 of its 1 rows" in ledger("--check", "--results", tmp_path).stderr
    assert ledger(day[0], "--results", tmp_path, "--debug").returncode == 0
    assert file.read_text() == before and ledger("--check", "--results", tmp_path).returncode == 0


@pytest.mark.parametrize("change", ["edited", "missing", "new"])
def test_published_tables_are_unchanged(ledger, root, tmp_path, monkeypatch, change):
    folder = tmp_path / "published"
    shutil.copytree(root / "results/published", folder)
    monkeypatch.setattr(rows, "PUBLISHED", folder)
    assert "8 table(s), unchanged" in ledger("--check").stdout
    file = folder / ("more.csv" if change == "new" else "atari100k.csv")
    if change == "missing":
        file.unlink()
    else:
        file.write_text((folder / "atari100k.csv").read_text().replace("alien", "aliens"))
    done = ledger("--check")
    assert done.returncode == 2 and f"{file} does not match" in done.stderr
    with pytest.raises(UserError, match="does not match"):
        reporter.main(["--results", str(tmp_path), "--figs", str(tmp_path / "figs")])


@pytest.mark.parametrize(("name", "number"), [("readout.csv", "0.5747"), ("decoder.csv", "0.0182")])
def test_ledger_checks_the_tables_of_the_probes(ledger, root, tmp_path, name, number):
    text = (root / "results" / name).read_text()
    (tmp_path / name).write_text(text)
    assert f"{name}: {len(text.splitlines()) - 1} row(s)" in ledger("--check", "--results", tmp_path).stdout
    (tmp_path / name).write_text(text.replace(number, "0.9747", 1))
    done = ledger("--check", "--results", tmp_path)
    assert done.returncode == 2 and "line 2: the row does not match its checksum" in done.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [("result.json", "{"), ("result.json", "{}"), ("eval.csv", "frame,seed\nx,1\n"), ("config.yaml", "a: ["), ("config.yaml", "a: 1")],
)
def test_ledger_names_a_damaged_run_and_collects_the_others(ledger, day, tmp_path, name, text):
    runs = tmp_path / "runs"
    shutil.copytree(day[0] / "atari", runs / "atari")
    folder, sound = (runs / f"atari/pong/mlr-debug/{name}seed1" for name in ("", "other-"))
    shutil.copytree(folder, sound)
    for file in ("config.yaml", "result.json"):
        edit(sound / file, lambda v: v.update(name="other"))
    (folder / name).write_text(text)
    done = ledger(runs, "--results", tmp_path / "results", "--debug")
    assert done.returncode == 1 and done.stderr.startswith(f"refused: {folder}: ") and done.stderr.count("\n") == 1, done.stderr
    assert [row["name"] for row in read(tmp_path / "results", ATARI)] == ["other"]


def test_a_ledger_that_is_no_table(ledger, tmp_path):
    (tmp_path / "atari.csv").write_bytes(b"game,\xff\xfe\0\n")
    done = ledger("--check", "--results", tmp_path)
    assert done.returncode == 2 and "atari.csv cannot be read" in done.stderr
    assert ledger("--results").returncode == 2


def test_the_ledger_of_this_repository_is_unchanged(run, root):
    done = run(root, "scripts/ledger.sh", "--check")
    assert done.returncode == 0 and "unchanged" in done.stdout


def test_worlds_of_the_last_judgement_from_the_same_initial_states():
    """The own clean evaluation has other initial states than those of `evaluate`, whose clean world counts; a second call counts alone."""
    config = {"world": "clean", "intensity": 0.1, "seed": 1}

    def line(world, seed, episode, score, source="procedural"):
        source = "suite" if world == "clean" else source
        return {
            "env_step": "8",
            "world": world,
            "intensity": "",
            "source": source,
            "seed": str(seed),
            "episode": str(episode),
            "episode_return": str(score),
        }

    own = [line("clean", 1, 0, 900), line("clean", 1, 1, 700)]
    first = [line(w, 10_001, e, s) for w, s in (("clean", 500), ("video_hard", 100)) for e in range(2)]
    second = [line("video_hard", 10_001, e, 300) for e in range(3)]

    def told(rows):
        return other_worlds(rows, DMCONTROL, config, 8)

    assert told(own) == "" and told([*own, line("clean", 10_001, 0, 500)]) == ""
    assert told(own + first) == "clean[suite]:2=500 video_hard[procedural]:2=100"
    assert told(own + first + second) == "clean[suite]:2=500 video_hard[procedural]:3=300"
    mixed = [*own, line("video_hard", 1, 0, 50), *first, line("color_hard", 10_001, 0, 80)]
    assert told(mixed) == "clean[suite]:2=500 color_hard[procedural]:1=80 video_hard[procedural]:2=100", "never two kinds of starts"
    assert told([*own, line("video_hard", 1, 0, 50)]) == "clean[suite]:2=800 video_hard[procedural]:1=50"
