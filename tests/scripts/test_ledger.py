"""A user's day on debug runs of both trees: launch, watch, collect, report."""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from DMControl.core.errors import UserError
from scripts.ledger import collect as collector
from scripts.ledger.collect import ATARI, BENCHMARKS, DMCONTROL, read
from scripts.report import aggregates
from scripts.report import report as reporter
from scripts.runs import plan as planner

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def run(root, *command: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, cwd=root, env=ENVIRONMENT, **more)


def ledger(*arguments) -> SimpleNamespace:
    """scripts/ledger.py in this process: its exit code and what it says."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = collector.main([str(a) for a in arguments])
        except UserError as error:
            code = 2
            print(error, file=errors)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=errors.getvalue())


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """Runs of both trees from the launchers, one of them with a game that does not exist, and what the launchers said."""
    root = Path(__file__).resolve().parents[2]
    runs = tmp_path_factory.mktemp("day") / "runs"
    shared = ("--preset", "debug", "--jobs-per-gpu", "2", "--gpus", "none", "--runs", str(runs))
    atari = run(root, "scripts/run_atari.sh", "pong nosuchgame", "--seeds", "1", *shared)
    small = ("env_steps=1200", "eval.every=600", "eval.episodes=1", "checkpoint.every=600")
    dmcontrol = run(root, "scripts/run_dmcontrol.sh", "cartpole_swingup", "--method", "mlr", *shared, *small)
    return runs, atari, dmcontrol


# ---- launchers


def test_launchers_run_and_list_what_failed(day):
    runs, atari, dmcontrol = day
    assert dmcontrol.returncode == 0 and "1 finished, 0 skipped as finished before, 0 failed" in dmcontrol.stdout, dmcontrol.stderr
    assert atari.returncode == 1 and "1 finished, 0 skipped as finished before, 1 failed" in atari.stdout
    failed = [line for line in atari.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1 and "nosuchgame/mlr-debug/seed1 (exit code 2" in failed[0] and "error: game=nosuchgame" in failed[0]
    assert (runs / "atari/pong/mlr-debug/seed1/result.json").exists()
    assert {f.name for f in (runs / "logs/atari").iterdir()} == {"pong-mlr-debug-seed1.log", "nosuchgame-mlr-debug-seed1.log"}
    assert "finished at" in (runs / "logs/atari/pong-mlr-debug-seed1.log").read_text()
    for line in ("game=pong method=mlr preset=debug seed=1", "game=nosuchgame"):
        assert line in atari.stdout  # each command is printed before it runs


def test_launchers_skip_what_has_finished(root, day):
    runs = day[0]
    again = run(root, "scripts/run_atari.sh", "pong", "--preset", "debug", "--gpus", "none", "--runs", str(runs))
    assert again.returncode == 0 and f"finished, skipped: {runs}/atari/pong/mlr-debug/seed1" in again.stdout
    assert "0 finished, 1 skipped" in again.stdout
    other = run(root, "scripts/run_atari.sh", "pong", "--preset", "debug", "--gpus", "none", "--runs", str(runs), "mlr.mask.ratio=0.9")
    assert other.returncode == 1 and "holds a run with other settings: mlr.mask.ratio (0.5 -> 0.9)" in other.stdout


def test_launchers_deal_out_gpus_and_know_their_sets(root):
    from Atari.games import SCORES

    dry = run(root, "scripts/run_atari.sh", "all26", "--seeds", "1,2", "--gpus", "0,3", "--jobs-per-gpu", "2", "--dry-run", "name=a")
    lines = [line for line in dry.stdout.splitlines() if line.startswith("+")]
    assert len(lines) == 52 and {re.search(r"game=(\w+)", line)[1] for line in lines} == set(SCORES)
    assert [re.search(r"CUDA_VISIBLE_DEVICES=(\d)", line)[1] for line in lines[:4]] == ["0", "3", "0", "3"]
    assert not (root / "runs/logs/atari/alien-mlr-paper-a-seed1.log").exists()
    six = run(root, "scripts/run_dmcontrol.sh", "all6", "--seeds", "1-3", "--method", "mlr baseline", "--gpus", "none", "--dry-run")
    lines = six.stdout.splitlines()
    assert len(lines) == 36 and all("device=cpu" in line for line in lines) and "CUDA" not in six.stdout
    tasks = aggregates.load_published(root / "results/published", DMCONTROL).tasks
    assert {re.search(r"task=(\w+)", line)[1] for line in lines} == set(tasks)


def test_launchers_start_no_run_twice(root, tmp_path):
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
    launcher = subprocess.Popen(
        ["scripts/run_atari.sh", *arguments, "steps=100000"], cwd=root, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )

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
        (["all6"], "all6 is a word of run_dmcontrol.sh"),
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
def test_launchers_name_mistakes(root, arguments, says):
    done = run(root, "scripts/run_atari.sh", *arguments)
    assert done.returncode == 2 and says in done.stderr


def test_launcher_stops_its_runs(root, tmp_path):
    """SIGTERM to the launcher: the run saves, nothing new is begun, the same line goes on."""
    arguments = ("--preset", "debug", "--gpus", "none", "--runs", str(tmp_path), "steps=100000", "eval.episodes=1")
    launcher = subprocess.Popen(
        ["scripts/run_atari.sh", "pong", "--seeds", "1-2", *arguments], cwd=root, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    folder = tmp_path / "atari/pong/mlr-debug/seed1"
    deadline = time.time() + 60
    while not list(folder.glob("checkpoint/step_*")) and time.time() < deadline:
        time.sleep(0.1)
    launcher.send_signal(signal.SIGTERM)
    said, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 143 and "0 failed, 1 stopped" in said and "stopped pong/mlr-debug/seed1" in said
    assert "stopped at" in (tmp_path / "logs/atari/pong-mlr-debug-seed1.log").read_text()
    assert not (tmp_path / "atari/pong/mlr-debug/seed2").exists()


# ---- ledger


def test_ledger_collects_each_run_once(day, tmp_path):
    results = tmp_path / "results"
    assert "1 run(s) of the preset debug" in ledger(day[0], "--results", results).stdout
    done = ledger(day[0], "--results", results, "--debug")
    assert done.returncode == 0, done.stderr
    before = {b: (results / f"{b.name}.csv").read_bytes() for b in BENCHMARKS}
    again = ledger(day[0], "--results", results, "--debug")
    assert again.returncode == 0 and "0 new, 1 run(s) in all" in again.stdout
    assert before == {b: (results / f"{b.name}.csv").read_bytes() for b in BENCHMARKS}
    for benchmark, folder in ((DMCONTROL, "dmcontrol/cartpole_swingup/mlr-debug/seed1"), (ATARI, "atari/pong/mlr-debug/seed1")):
        (row,) = read(results, benchmark)
        result = json.loads((day[0] / folder / "result.json").read_text())
        assert [float(r) for r in row["eval_returns"].split()] == pytest.approx(result["eval_returns"], rel=1e-5)
        assert float(row["score"]) == pytest.approx(sum(result["eval_returns"]) / len(result["eval_returns"]), rel=1e-5)
        assert (row["config_hash"], row["commit"], row["finished"]) == (result["config_hash"], result["commit"], "yes")
        assert int(row[benchmark.step]) == int(row["planned"]) == result[f"{benchmark.step}s"] and row["hardware"] == result["hardware"]
    assert "env_steps=1200" in read(results, DMCONTROL)[0]["changed"] and read(results, ATARI)[0]["changed"] == ""


def test_ledger_takes_a_run_that_was_cut_off_as_far_as_it_went(day, tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    folder = runs / "dmcontrol/cartpole_swingup/mlr-debug/seed1"
    shutil.copytree(day[0] / "dmcontrol", runs / "dmcontrol")
    (folder / "result.json").unlink()
    lines = (folder / "eval.csv").read_text().splitlines()
    (folder / "eval.csv").write_text("\n".join(lines[:3]) + "\n")  # before step 0 and at 600
    assert "(at 600 of 1,200; --cut-off takes it as it is)" in ledger(runs, "--results", results, "--debug").stdout
    assert ledger(runs, "--results", results, "--debug", "--cut-off").returncode == 0
    (row,) = read(results, DMCONTROL)
    assert (row["env_step"], row["planned"], row["finished"]) == ("600", "1200", "no") and row["commit"] != "unknown"
    for kept in (len(lines), 3):  # further; then, after a crash, on its way again from the save before
        (folder / "eval.csv").write_text("\n".join(lines[:kept]) + "\n")
        done = ledger(runs, "--results", results, "--debug", "--cut-off")
        (row,) = read(results, DMCONTROL)
        assert done.returncode == 0 and (row["env_step"], row["finished"]) == ("1200", "no"), done.stderr
    assert "went on from an earlier save, and the ledger has it at 1,200" in done.stdout
    assert ledger(day[0], "--results", results, "--debug").returncode == 0  # it has finished since
    (row,) = read(results, DMCONTROL)
    assert (row["env_step"], row["finished"]) == ("1200", "yes")


def test_ledger_refuses_another_run_in_a_place_that_is_taken(day, tmp_path):
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


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.name)
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
def test_ledger_refuses_a_run_whose_files_tell_of_two(day, tmp_path, benchmark, name, change, says):
    folder = next((day[0] / benchmark.name).glob("*/*/*"))
    copy = tmp_path / "runs" / folder.relative_to(day[0])
    shutil.copytree(folder, copy)
    edit(copy / name, change)
    done = ledger(tmp_path / "runs", "--results", tmp_path / "results", "--debug")
    assert done.returncode == 1 and done.stderr.startswith(f"refused: {copy}: ") and says in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / f"results/{benchmark.name}.csv").exists()


@pytest.mark.parametrize("preset", ["small", "nonsense"])
def test_ledger_refuses_another_preset_even_where_the_folder_follows(day, tmp_path, preset):
    copy = tmp_path / f"atari/pong/mlr-{preset}/seed1"
    shutil.copytree(day[0] / "atari/pong/mlr-debug/seed1", copy)
    edit(copy / "config.yaml", lambda v: v.update(preset=preset))
    done = ledger(tmp_path, "--results", tmp_path / "results")
    assert done.returncode == 1 and "ran with other settings" in done.stderr, done.stderr
    own = collector.config_hash(yaml.safe_load((copy / "config.yaml").read_text()))
    edit(copy / "origin.json", lambda v: [start.update(config_hash=own) for start in v])
    edit(copy / "result.json", lambda v: v.update(config_hash=own, preset=preset))
    done = ledger(tmp_path, "--results", tmp_path / "results")
    if preset == "nonsense":  # a preset of the user's own that is no more
        assert done.returncode == 1 and "cannot be compared with its preset" in done.stderr and "nonsense" in done.stderr
    else:  # who forges all three gets a row that names each setting of the other preset
        assert "rainbow." in read(tmp_path / "results", ATARI)[0]["changed"]


@pytest.mark.parametrize("what", ["score", "curve", "row twice", "order", "row deleted"])
def test_ledger_sees_edits_by_hand(invent, tmp_path, what):
    rows = [invent(tmp_path, DMCONTROL, "cheetah_run", "mlr", s) for s in (1, 2)]
    collector.write(tmp_path, DMCONTROL, rows)
    assert ledger("--check", "--results", tmp_path).returncode == 0
    file = tmp_path / "dmcontrol.csv"
    lines = file.read_text().splitlines()
    if what == "score":
        with open(file, newline="") as handle:
            score = next(csv.DictReader(handle))["score"]
        file.write_text(file.read_text().replace(score, "999.5"))
    elif what == "curve":
        curve = tmp_path / DMCONTROL.curve_file(rows[0])
        curve.write_text(curve.read_text().replace("\n0,", "\n1,"))
    else:
        kept = {"row twice": (2, 2), "order": (2, 1), "row deleted": (2,)}[what]
        file.write_text("\n".join([lines[0], *(lines[k] for k in kept)]) + "\n")
    done = ledger("--check", "--results", tmp_path)
    says = {
        "score": "does not match its checksum",
        "curve": "does not match line 2",
        "row twice": "is there twice",
        "order": "out of order",
        "row deleted": "has no row in",
    }
    assert done.returncode == 2 and says[what] in done.stderr
    with pytest.raises(UserError, match=says[what]):
        reporter.main(["--results", str(tmp_path), "--figs", str(tmp_path / "figs")])
    assert not (tmp_path / "REPORT.md").exists()


def test_a_row_that_was_deleted_can_be_collected_again(day, tmp_path):
    assert ledger(day[0], "--results", tmp_path, "--debug").returncode == 0
    file = tmp_path / "atari.csv"
    before = file.read_text()
    file.write_text(before.splitlines()[0] + "\n")
    assert "seed1.csv has no row in" in ledger("--check", "--results", tmp_path).stderr
    assert ledger(day[0], "--results", tmp_path, "--debug").returncode == 0
    assert file.read_text() == before and ledger("--check", "--results", tmp_path).returncode == 0


@pytest.mark.parametrize("change", ["edited", "missing", "new"])
def test_published_tables_are_as_they_were_written(root, tmp_path, monkeypatch, change):
    folder = tmp_path / "published"
    shutil.copytree(root / "results/published", folder)
    monkeypatch.setattr(collector, "PUBLISHED", folder)
    assert "6 table(s), as they were written" in ledger("--check").stdout
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
def test_ledger_checks_what_was_read(root, tmp_path, name, number):
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
def test_ledger_names_a_damaged_run_and_takes_the_others(day, tmp_path, name, text):
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


def test_a_ledger_that_is_no_table(tmp_path):
    (tmp_path / "atari.csv").write_bytes(b"game,\xff\xfe\0\n")
    done = ledger("--check", "--results", tmp_path)
    assert done.returncode == 2 and "atari.csv cannot be read" in done.stderr
    assert ledger("--results").returncode == 2


def test_the_ledger_of_this_repository_is_as_it_was_written(root):
    done = run(root, "scripts/ledger.sh", "--check")
    assert done.returncode == 0 and "as they were written" in done.stdout


# ---- TensorBoard


def test_tensorboard_serves_scalars_images_layout_and_hparams(day):
    from scripts.media.screenshot import tensorboard

    def get(path: str, body: dict | None = None) -> dict | list:
        request = urllib.request.Request(address + path, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=30).read())

    dmcontrol, atari = "dmcontrol/cartpole_swingup/mlr-debug/seed1", "atari/pong/mlr-debug/seed1"
    with tensorboard(day[0]) as address:
        deadline = time.time() + 60
        while set(get("/data/runs")) != {dmcontrol, atari} and time.time() < deadline:
            time.sleep(0.3)
        scalars = get("/data/plugin/scalars/tags")
        for name in (dmcontrol, atari):
            shared = {"eval/episode_return", "loss/mlr", "mlr/mask_ratio", "mlr/target_distance", "final/episode_return", "time/update"}
            assert shared <= set(scalars[name])
            result = json.loads((day[0] / name / "result.json").read_text())
            points = get(f"/data/plugin/scalars/scalars?run={name}&tag=final/episode_return")
            assert points[-1][2] == pytest.approx(sum(result["eval_returns"]) / len(result["eval_returns"]), rel=1e-4)
            ratio = get(f"/data/plugin/scalars/scalars?run={name}&tag=mlr/mask_ratio")
            assert 0.3 < ratio[-1][2] < 0.7
            for tag, magic in (("mlr/frames_and_masked", b"\x89PNG"), ("eval/episode", b"GIF8")):
                pictures = get(f"/data/plugin/images/images?run={name}&tag={tag}&sample=0")
                query = pictures[-1]["query"]
                assert urllib.request.urlopen(f"{address}/data/plugin/images/individualImage?{query}", timeout=30).read().startswith(magic)
            assert set(get("/data/plugin/text/tags")[name]) == {"run/command/text_summary", "run/config/text_summary"}
            config = get(f"/data/plugin/text/text?run={name}&tag=run/config/text_summary")[0]["text"]
            assert "preset: debug" in config and "ratio: 0.5" in config
        layout = get("/data/plugin/custom_scalars/layout")
        assert [c["title"] for c in layout["category"]] == ["return", "losses", "mask and momentum", "speed"]
        every = {tag for tags in scalars.values() for tag in tags}
        for chart in (chart for category in layout["category"] for chart in category["chart"]):
            assert any(re.search(tag, name) for tag in chart["multiline"]["tag"] for name in every), chart  # no empty chart
        columns = [{"hparam": "method"}, {"metric": {"tag": "final/episode_return", "group": ""}, "order": "ORDER_DESC"}]
        statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
        body = {"experimentName": "", "colParams": columns, "allowedStatuses": statuses, "startIndex": 0, "sliceSize": 9}
        groups = get("/data/plugin/hparams/session_groups", body)["sessionGroups"]
        assert [g["name"] for g in groups] == [dmcontrol, atari]  # sorted by the final score
        assert groups[0]["hparams"]["task"] == "cartpole_swingup" and groups[1]["hparams"]["game"] == "pong"
        finals = [m["value"] for g in groups for m in g["metricValues"] if m["name"]["tag"] == "final/episode_return"]
        assert len(finals) == 2 and finals[0] > finals[1]
        experiment = get("/data/plugin/hparams/experiment", {"experimentName": "", "includeMetrics": True})
        assert {"method", "preset", "seed"} <= {h["name"] for h in experiment["hparamInfos"][:5]}
        assert experiment["metricInfos"][0]["name"]["tag"].startswith("final/")


# ---- plan


def test_plan_counts_what_is_left(day, capsys):
    shared = ["--seeds", "1-3", "--preset", "debug", "--gpus", "none", "--runs", str(day[0]), "threads=1"]
    assert planner.main(["pong", *shared]) == 0
    said = capsys.readouterr().out
    assert "runs:  2 to do, 1 finished already; 1 side by side" in said and "steps: 1,920 frames in all" in said
    share = [int(n) for n in re.findall(r"(\d+)%", said)]
    assert len(share) == 4 and 97 <= sum(share) <= 103
    assert re.search(r"RAM \d+\.\d\d GB", said) and re.search(r"disk \d+\.\d MB for what stays", said)
    assert planner.main(["cartpole_swingup", *shared]) == 0
    assert "steps: 4,000 env steps in all" in capsys.readouterr().out


def test_plan_names_mistakes():
    with pytest.raises(UserError, match="did you mean pong"):
        planner.main(["pnog"])
    for arguments, says in ((["--seeds", "3-1"], "counts upwards"), (["--seeds"], "needs a value"), (["--method", ","], "names no method")):
        with pytest.raises(UserError, match=says):
            planner.main(["pong", *arguments])
    assert len(planner.names("all6 walker_stand all6")[1]) == 7 and planner.names("Pong pong all26")[1][0] == "pong"


def test_plan_takes_the_quickest_update_of_each_phase():
    assert planner.per_update([3.0, 1.0, 2.0, 5.0, 4.0], period=2) == 1.5  # 2 with the actor's step, 1 without
    assert planner.per_update([3.0, 2.0], period=1) == 2.0
    assert planner.per_update([7.0], period=2) == 7.0


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
    told = lambda rows: collector.other_worlds(rows, collector.DMCONTROL, config, 8)  # noqa: E731
    assert told(own) == "" and told([*own, line("clean", 10_001, 0, 500)]) == ""
    assert told(own + first) == "clean[suite]:2=500 video_hard[procedural]:2=100"
    assert told(own + first + second) == "clean[suite]:2=500 video_hard[procedural]:3=300"
    mixed = [*own, line("video_hard", 1, 0, 50), *first, line("color_hard", 10_001, 0, 80)]
    assert told(mixed) == "clean[suite]:2=500 color_hard[procedural]:1=80 video_hard[procedural]:2=100", "never two kinds of starts"
    assert told([*own, line("video_hard", 1, 0, 50)]) == "clean[suite]:2=800 video_hard[procedural]:1=50"
