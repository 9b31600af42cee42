"""The table of runs in a terminal."""

import csv
import fcntl
import re
import shutil

import pytest

from scripts.runs import watch


def cells(roots):
    lines = watch.table(roots)
    return [line.split() for line in lines[1:-2]], lines[-1]


def test_what_runs_what_was_stopped_and_what_is_done(day, tmp_path):
    """Real runs: one as it is, a copy without its result, and a copy on which a process works, with a row half written."""
    shutil.copytree(day[0], tmp_path, dirs_exist_ok=True)
    done = sorted(file.parent for file in tmp_path.rglob("result.json"))
    assert {state for *_, state in cells([tmp_path])[0]} == {"done"}
    (pong,) = (folder for folder in done if "pong" in folder.parts)
    stopped, running = (shutil.copytree(pong, pong.with_name(f"seed{seed}")) for seed in (8, 9))
    for folder in (stopped, running):
        (folder / "result.json").unlink()
    config, rows = running / "config.yaml", (running / "train.csv").read_text().splitlines()
    config.write_text(re.sub(r"(?m)^steps: \d+", "steps: 480", config.read_text()))
    (running / "train.csv").write_text("\n".join([*rows, rows[-1][:9]]))
    with open(running / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found, counts = cells([tmp_path])
    assert [row[2] for row in found[:2]] == ["9", "8"] and [row[-1] for row in found] == ["running", "stopped"] + ["done"] * len(done)
    assert found[0][3:6] == ["50%", "of", "1,920"] and found[1][3] == "100%"
    (_, first), (_, last) = ((float(row["frame"]), float(row["hours"])) for row in csv.DictReader(rows))
    assert float(found[0][-2]) == round(960 * (last - first) / 480, 2) and float(found[0][-3]) > 0
    assert len(found[1]) == len(found[0]) - 2  # no speed and no hours left
    assert counts.startswith(f"1 running, 1 stopped, {len(done)} done")


def test_without_a_terminal_it_prints_once(tmp_path, capsys):
    assert watch.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs under {tmp_path}\n"
    with pytest.raises(watch.UserError, match="is not a folder"):
        watch.main([str(tmp_path / "none")])
