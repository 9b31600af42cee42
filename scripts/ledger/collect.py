"""The ledger: one row per run, sorted, no run twice, a checksum per row. The report reads nothing else of ours.

python scripts/ledger.py [RUNS_FOLDER ...] [--results DIR] [--cut-off] [--debug] [--check]

--cut-off   also runs that have not finished: the score of their last evaluation, and the steps it came after
--debug     also runs of the preset debug, which learn nothing
--check     read and verify what is there, collect nothing
"""

import csv
import hashlib
import io
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DMControl.core.errors import UserError, nearest, run_main
from DMControl.core.run.config import digest, flatten, plain
from DMControl.core.run.files import write_whole
from DMControl.core.run.folder import FREE, read_config

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"

Row = dict[str, str]
CURVE_COLUMNS = ("hours", "episodes", "mean", "std")


@dataclass(frozen=True)
class Benchmark:
    name: str  # of the file and of the folder under runs/
    task: str  # the word for what is learnt
    step: str  # the word of the x axis

    @property
    def columns(self) -> tuple[str, ...]:
        key = (self.task, "method", "preset", "name", "seed")
        told = (self.step, "planned", "finished", "episodes", "score", "std", "worlds", "hours")
        return (*key, *told, "changed", "config_hash", "commit", "hardware", "versions", "eval_returns", "curve", "checksum")

    def key(self, row: Row) -> tuple:
        return (row[self.task], row["method"], row["preset"], row["name"], int(row["seed"]))

    def curve_file(self, row: Row) -> str:
        name = f"{row['name']}-" if row["name"] else ""
        return f"curves/{self.name}/{row[self.task]}-{row['method']}-{row['preset']}-{name}seed{row['seed']}.csv"


DMCONTROL, ATARI = Benchmark("dmcontrol", "task", "env_step"), Benchmark("atari", "game", "frame")
BENCHMARKS = (DMCONTROL, ATARI)


def checksum(row: Row, columns: tuple[str, ...]) -> str:
    return hashlib.sha256("\x1f".join(row[c] for c in columns if c != "checksum").encode()).hexdigest()[:12]


def read_rows(file: Path, columns: tuple[str, ...], edited: str) -> list[Row]:
    """The rows of a table, each as it was written; none where there is no file. `edited`: what to do with one that was edited."""
    if not file.exists():
        return []
    try:
        with open(file, newline="") as handle:
            reader = csv.DictReader(handle)
            found, rows = tuple(reader.fieldnames or ()), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}): take it back from the repository") from error
    if found != columns:
        raise UserError(f"{file} must have the columns {','.join(columns)}: take it back from the repository")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values() or checksum(row, columns) != row["checksum"]:
            raise UserError(f"{file}, line {number}: the row does not match its checksum; {edited}")
    return rows


def read(results: Path, benchmark: Benchmark, collecting: bool = False) -> list[Row]:
    """All rows, each as it was written, with its curve, and no curve without its row, unless that is about to be collected again."""
    file = results / f"{benchmark.name}.csv"
    edited = "rows are written by scripts/ledger.sh only; take it back from the repository, or delete the line and collect the run again"
    rows = read_rows(file, benchmark.columns, edited)
    for number, row in enumerate(rows, 2):
        curve = results / benchmark.curve_file(row)
        if not curve.exists() or hashlib.sha256(curve.read_bytes()).hexdigest()[:12] != row["curve"]:
            raise UserError(f"{curve} is missing or does not match line {number} of {file}; {edited}")
    keys = [benchmark.key(row) for row in rows]
    for before, after in itertools.pairwise(keys):
        if before >= after:
            says = "is there twice" if before == after else "is out of order"
            raise UserError(f"{file}: {' '.join(map(str, after))} {says}; {edited}")
    named = {results / benchmark.curve_file(row) for row in rows}
    for curve in [] if collecting else sorted((results / "curves" / benchmark.name).glob("*.csv")):
        if curve not in named:
            raise UserError(f"{curve} has no row in {file}: take that back from the repository, or delete the curve too")
    return rows


def check_published(folder: Path) -> int:
    """How many published tables there are, each as SHA256SUMS has it."""
    sums = {name: told for told, name in (line.split() for line in (folder / "SHA256SUMS").read_text().splitlines())}
    for name in sorted({*sums, *(file.name for file in folder.glob("*.csv"))}):
        file = folder / name
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != sums.get(name):
            raise UserError(f"{file} does not match {folder / 'SHA256SUMS'}: take it back from the repository")
    return len(sums)


def read_curve(results: Path, benchmark: Benchmark, row: Row) -> list[dict[str, float]]:
    """A run's own evaluations: step, hours, episodes, mean, std."""
    with open(results / benchmark.curve_file(row), newline="") as handle:
        return [{k: float(v) for k, v in line.items()} for line in csv.DictReader(handle)]


def eval_rows(folder: Path) -> list[Row]:
    file = folder / "eval.csv"
    if not file.exists():
        return []
    with open(file, newline="") as handle:
        return list(csv.DictReader(handle))


def world_of(line: Row) -> str:
    """distracting_cs_0.1[procedural]; nothing where the benchmark has but one world."""
    if not line.get("world"):
        return ""
    name = f"{line['world']}_{float(line['intensity']):g}" if line.get("intensity") else line["world"]
    return f"{name}[{line['source']}]" if line.get("source") else name


def evaluations(rows: list[Row], benchmark: Benchmark, config: dict[str, Any]) -> dict[int, list[Row]]:
    """The run's own evaluations in the world of its training, by step; those of `evaluate` have other seeds or no hours."""
    home = config.get("world", "")
    place = f"{home}_{config['intensity']:g}" if home == "distracting_cs" else home
    found: dict[int, list[Row]] = {}
    for line in rows:
        if line["seed"] == str(config["seed"]) and line["hours"] and world_of(line).partition("[")[0] in ("", place):
            found.setdefault(int(line[benchmark.step]), []).append(line)
    return dict(sorted(found.items()))


def other_worlds(rows: list[Row], benchmark: Benchmark, config: dict[str, Any], step: int) -> str:
    """world:episodes=mean ... of a run that was judged at this step in other worlds than its own, by itself or by `evaluate`.

    All from the same initial states, those of the last judgement elsewhere; one in the same world again counts alone.
    """
    home = config.get("world", "")
    place = f"{home}_{config['intensity']:g}" if home == "distracting_cs" else home
    last: dict[tuple[str, str], list[float]] = {}  # by world and seed of the initial states
    for line in rows:
        if int(line[benchmark.step]) != step:
            continue
        key = (world_of(line), line["seed"])
        if int(line["episode"]) == 0:
            last.pop(key, None)  # judged once more
        last.setdefault(key, []).append(float(line["episode_return"]))
    away = [seed for world, seed in last if world.partition("[")[0] not in ("", place)]
    found = {world: returns for (world, seed), returns in last.items() if away and seed == away[-1]}
    return " ".join(f"{w}:{len(returns)}={statistics.fmean(returns):.6g}" for w, returns in sorted(found.items()))


def curve_text(benchmark: Benchmark, evaluations: dict[int, list[Row]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((benchmark.step, *CURVE_COLUMNS))
    for step, lines in evaluations.items():
        returns = [float(line["episode_return"]) for line in lines]
        mean, std = statistics.fmean(returns), statistics.pstdev(returns)
        writer.writerow((step, lines[0]["hours"], len(returns), f"{mean:.6g}", f"{std:.6g}"))
    return out.getvalue()


def reference(benchmark: Benchmark, config: dict[str, Any]) -> dict[str, Any]:
    """The settings of this task, method and preset as the YAML has them now."""
    if benchmark is DMCONTROL:
        from DMControl.settings import read_config as compose
    else:
        from Atari.settings import read_config as compose
    try:
        return plain(compose([f"{k}={config[k]}" for k in (benchmark.task, "method", "preset")]))
    except Exception as error:  # each tree has a UserError of its own
        if type(error).__name__ != "UserError":
            raise
        raise UserError(f"it cannot be compared with its preset, which is gone or another by now: {error}") from error


def changed(config: dict[str, Any], reference: dict[str, Any]) -> str:
    """The settings in which a run departs from its preset: key=value ..."""
    old, new = dict(flatten(reference)), dict(flatten(config))
    hidden = ("seed", "name", *FREE)
    keys = [k for k in sorted(new) if k not in hidden and not k.startswith(tuple(f"{h}." for h in hidden)) and old.get(k) != new[k]]
    return " ".join(f"{k}={str(new[k]).replace(' ', '')}" for k in keys)


def require_one_run(
    folder: Path, benchmark: Benchmark, config: dict[str, Any], sources: list[dict], result: dict | None, evaluated: dict[int, list[Row]]
) -> None:
    """Folder, config.yaml, origin.json, result.json and eval.csv tell of the same run: none was edited or comes from another one."""
    name = f"{config['name']}-" if config["name"] else ""
    place = f"{config[benchmark.task]}/{config['method']}-{config['preset']}/{name}seed{config['seed']}"
    if "/".join(folder.parts[-3:]) != place:
        raise UserError(f"its config.yaml is that of {place}")
    own = config_hash(config)
    begun = [s["config_hash"] for s in sources if s["config_hash"] != own]
    if begun:
        raise UserError(f"it ran with other settings than those in its config.yaml (hash {begun[0]}, now {own})")
    if result is None:
        return
    wrong = [f"{k}={result[k]}" for k in (benchmark.task, "method", "preset", "name", "seed") if result[k] != config[k]]
    if wrong:
        raise UserError(f"its result.json says {' '.join(wrong)}, its config.yaml does not")
    step = result[f"{benchmark.step}s"]
    if step < planned(benchmark, config):
        raise UserError(f"its result.json says {step:,} of {planned(benchmark, config):,} {benchmark.step}s, which is not finished")
    last = [float(line["episode_return"]) for line in evaluated.get(step, [])]
    if step != max(evaluated, default=0) or last != [round(r, 6) for r in result["eval_returns"]]:  # as eval.csv has them
        raise UserError("eval_returns in its result.json are not those of the last evaluation in its eval.csv")


def config_hash(config: dict[str, Any]) -> str:
    return digest(config, (*FREE, "seed", "name"))


def planned(benchmark: Benchmark, config: dict[str, Any]) -> int:
    return config["env_steps"] if benchmark is DMCONTROL else config["steps"] * config["env"]["frame_skip"]


def row_of(folder: Path, benchmark: Benchmark) -> tuple[Row, str] | None:
    """The run's row, without its checksum, and its curve; None before its first evaluation after step 0."""
    config = plain(read_config(folder))
    rows = eval_rows(folder)
    evaluated = evaluations(rows, benchmark, config)
    file = folder / "result.json"
    result = json.loads(file.read_text()) if file.exists() else None
    origin = folder / "origin.json"
    sources = [*(json.loads(origin.read_text()) if origin.exists() else []), *([] if result is None else [result])]
    require_one_run(folder, benchmark, config, sources, result, evaluated)
    if result is not None:
        step, returns, hours = result[f"{benchmark.step}s"], result["eval_returns"], result["hours"]
    elif evaluated and max(evaluated) > 0:
        step, lines = list(evaluated.items())[-1]
        returns, hours = [float(line["episode_return"]) for line in lines], float(lines[0]["hours"])
    else:
        return None
    curve = curve_text(benchmark, evaluated)
    last = sources[-1] if sources else {}
    versions = {"python": last.get("python", "unknown"), **last.get("versions", {})}
    row = {
        **{k: str(config[k]) for k in (benchmark.task, "method", "preset", "name", "seed")},
        benchmark.step: str(step),
        "planned": str(planned(benchmark, config)),
        "finished": "no" if result is None else "yes",
        "episodes": str(len(returns)),
        "score": f"{statistics.fmean(returns):.6g}",
        "std": f"{statistics.pstdev(returns):.6g}",
        "worlds": other_worlds(rows, benchmark, config, step),
        "hours": f"{hours:.4f}",
        "changed": changed(config, reference(benchmark, config)),
        "config_hash": config_hash(config),
        "commit": " ".join(dict.fromkeys(s["commit"] for s in sources)) or "unknown",
        "hardware": " + ".join(dict.fromkeys(s["hardware"] for s in sources)) or "unknown",
        "versions": " ".join(f"{k}={v}" for k, v in versions.items()),
        "eval_returns": " ".join(f"{r:.6g}" for r in returns),
        "curve": hashlib.sha256(curve.encode()).hexdigest()[:12],
    }
    return row, curve


def run_folders(runs: list[Path], benchmark: Benchmark) -> Iterator[Path]:
    for folder in runs:
        yield from sorted(file.parent for file in (folder / benchmark.name).glob("*/*/*/config.yaml"))


SAME = ("config_hash", "commit", "hours", "eval_returns")  # two rows that agree in these come from one run


def collect(runs: list[Path], results: Path, benchmark: Benchmark, cut_off: bool, debug: bool) -> list[str]:
    """Add what is new; returns what was refused, which keeps nothing else out."""
    rows = {benchmark.key(row): row for row in read(results, benchmark, collecting=True)}
    seen: dict[tuple, Path] = {}
    fresh: dict[tuple, tuple[Row, str]] = {}
    refused, left_out = [], 0
    for folder in run_folders(runs, benchmark):
        try:
            made = row_of(folder, benchmark)
        except (ValueError, KeyError, TypeError, csv.Error, UserError) as error:
            damage = f"its files are damaged ({type(error).__name__}: {error})"
            says = " ".join((str(error) if isinstance(error, UserError) else damage).split())
            refused.append(f"{folder}: {says}; mend it, or move it away")
            continue
        if made is None:
            print(f"left out: {folder} (no evaluation yet)")
            continue
        row, curve = made
        key = benchmark.key(row)
        if row["preset"] == "debug" and not debug:
            left_out += 1
            continue
        if row["finished"] == "no" and not cut_off:
            print(f"left out: {folder} (at {int(row[benchmark.step]):,} of {int(row['planned']):,}; --cut-off takes it as it is)")
            continue
        if key in seen:
            refused.append(f"{folder} is the same run as {seen[key]}: keep one of them, or give them names")
            fresh.pop(key, None)
            continue
        seen[key] = folder
        old = rows.get(key)
        same = old and all(old[c] == row[c] for c in SAME)
        if same and old["worlds"] == row["worlds"]:
            continue
        further = old and old["finished"] == "no" and old["config_hash"] == row["config_hash"]
        if further and row["finished"] == "no" and int(row[benchmark.step]) < int(old[benchmark.step]):
            print(f"left out: {folder} (it went on from an earlier save, and the ledger has it at {int(old[benchmark.step]):,})")
            continue
        if old and not same and not further:
            refused.append(f"{folder}: the ledger holds another run of {' '.join(map(str, key))}: delete that line first, or use name=...")
            continue
        fresh[key] = row, curve
    if left_out:
        print(f"left out: {left_out} run(s) of the preset debug")
    if refused and not fresh:
        return refused
    for row, curve in fresh.values():
        file = results / benchmark.curve_file(row)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, curve)
    rows |= {key: row for key, (row, _) in fresh.items()}
    write(results, benchmark, list(rows.values()))
    print(f"{results / f'{benchmark.name}.csv'}: {len(fresh)} new, {len(rows)} run(s) in all")
    return refused


def write(results: Path, benchmark: Benchmark, rows: list[Row]) -> None:
    results.mkdir(parents=True, exist_ok=True)
    out = io.StringIO()
    writer = csv.DictWriter(out, benchmark.columns, lineterminator="\n")
    writer.writeheader()
    for row in sorted(rows, key=benchmark.key):
        writer.writerow({**row, "checksum": checksum(row, benchmark.columns)})
    write_whole(results / f"{benchmark.name}.csv", out.getvalue())


def main(arguments: list[str]) -> int:
    results, runs, flags = ROOT / "results", [], {"--cut-off": False, "--debug": False, "--check": False}
    rest = iter(arguments)
    for argument in rest:
        if argument == "--results":
            results = Path(next(rest, "-"))
            if str(results).startswith("-") or results.is_file():
                raise UserError("--results needs a folder")
        elif argument in flags:
            flags[argument] = True
        elif argument.startswith("-"):
            raise UserError(f"option {argument} is unknown: {nearest(argument, [*flags, '--results'])}")
        elif not Path(argument).is_dir():
            raise UserError(f"{argument} is not a folder of runs")
        else:
            runs.append(Path(argument))
    refused = []
    for benchmark in BENCHMARKS:
        if flags["--check"]:
            print(f"{results / f'{benchmark.name}.csv'}: {len(read(results, benchmark))} run(s), as they were written")
        else:
            refused += collect(runs or [ROOT / "runs"], results, benchmark, flags["--cut-off"], flags["--debug"])
    if flags["--check"]:
        from scripts.probes import measurements  # which imports this file

        for table in (measurements.READOUT, measurements.DECODER):
            print(f"{results / table.file}: {len(table.read(results))} row(s), as they were written")
        print(f"{PUBLISHED}: {check_published(PUBLISHED)} table(s), as they were written")
    for line in refused:
        print(f"refused: {line}", file=sys.stderr)
    return int(bool(refused))


if __name__ == "__main__":
    run_main(main)
