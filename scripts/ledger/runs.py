"""From a run's folder to its row of the ledger, and whether the files in the folder belong to one run."""

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

from DMControl.core.errors import UserError
from DMControl.core.run.config import digest as config_digest
from DMControl.core.run.config import flatten, plain
from DMControl.core.run.folder import CHANGEABLE, UNHASHED, read_config
from DMControl.core.run.paths import short_name
from scripts.ledger.rows import Row, digest
from scripts.trees import DMCONTROL, Tree

CURVE_COLUMNS = ("hours", "episodes", "mean", "std")

Evaluations = dict[int, list[Row]]  # step -> the rows of eval.csv


def eval_rows(folder: Path) -> list[Row]:
    file = folder / "eval.csv"
    if not file.exists():
        return []
    with open(file, newline="") as handle:
        return list(csv.DictReader(handle))


def world_of(line: Row) -> str:
    """distracting_cs_0.1[procedural]; empty in an eval.csv from before Atari had distractions. A game without one is the clean world."""
    if line.get("distraction"):
        line = {"world": line["distraction"].replace("none", "clean"), "intensity": line["strength"], "source": line["source"]}
        line["source"] = line["source"].replace("game", "")
    if not line.get("world"):
        return ""
    name = f"{line['world']}_{float(line['intensity']):g}" if line.get("intensity") else line["world"]
    return f"{name}[{line['source']}]" if line.get("source") else name


def elsewhere(world: str, config: dict[str, Any]) -> bool:
    """Whether this is another world than that of the training."""
    own = config.get("world", "")
    if own == "distracting_cs":
        own += f"_{config['intensity']:g}"
    if "game" in config:
        env = config["env"]
        distraction = env.get("distraction", "none")
        own = "clean" if distraction == "none" else f"{distraction}_{env['distraction_strength']:g}"
    return world.partition("[")[0] not in ("", own)


def own_evaluations(rows: list[Row], tree: Tree, config: dict[str, Any]) -> Evaluations:
    """The run's own evaluations in the world of its training; those of `evaluate` have other seeds or no hours."""
    found: Evaluations = {}
    for line in rows:
        if line["seed"] == str(config["seed"]) and line["hours"] and not elsewhere(world_of(line), config):
            found.setdefault(int(line[tree.step]), []).append(line)
    return dict(sorted(found.items()))


def other_worlds(rows: list[Row], tree: Tree, config: dict[str, Any], step: int) -> str:
    """world:episodes=mean ... if the run was judged in other worlds at this step, by itself or by `evaluate`.

    All means are over the same initial states: those of the last judgement in another world. If a world was judged twice from
    these states, the second time counts.
    """
    last: dict[tuple[str, str], list[float]] = {}  # by world and seed of the initial states
    for line in rows:
        if int(line[tree.step]) != step:
            continue
        group = (world_of(line), line["seed"])
        if int(line["episode"]) == 0:
            last.pop(group, None)  # judged again
        last.setdefault(group, []).append(float(line["episode_return"]))
    seeds = [seed for world, seed in last if elsewhere(world, config)]
    found = {world: returns for (world, seed), returns in last.items() if seeds and seed == seeds[-1]}
    return " ".join(f"{w}:{len(returns)}={statistics.fmean(returns):.6g}" for w, returns in sorted(found.items()))


def curve_text(tree: Tree, evaluations: Evaluations) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((tree.step, *CURVE_COLUMNS))
    for step, lines in evaluations.items():
        returns = [float(line["episode_return"]) for line in lines]
        mean, std = statistics.fmean(returns), statistics.pstdev(returns)
        writer.writerow((step, lines[0]["hours"], len(returns), f"{mean:.6g}", f"{std:.6g}"))
    return out.getvalue()


def changed(tree: Tree, config: dict[str, Any]) -> str:
    """The settings in which a run departs from its preset as the YAML has it now: key=value ..."""
    try:
        preset = plain(tree.read_config([f"{k}={config[k]}" for k in (tree.task, "method", "preset")]))
    except UserError as error:
        raise UserError(f"it cannot be compared with its preset, which is gone or has changed: {error}") from error
    old, new = dict(flatten(preset)), dict(flatten(config))
    hidden = ("seed", "name", "gym.import", "ur5e.model", *CHANGEABLE)  # gym.import and ur5e.model only say where the task comes from
    keys = [k for k in sorted(new) if k not in hidden and not k.startswith(tuple(f"{h}." for h in hidden)) and old.get(k) != new[k]]
    told = new | ({"transfer.run": short_name(new["transfer.run"])} if "transfer.run" in new else {})
    return " ".join(f"{k}={str(told[k]).replace(' ', '')}" for k in keys)


def config_hash(config: dict[str, Any]) -> str:
    return config_digest(config, UNHASHED)


def planned(tree: Tree, config: dict[str, Any]) -> int:
    return config["env_steps"] if tree is DMCONTROL else config["steps"] * config["env"]["frame_skip"]


def require_one_run(
    folder: Path, tree: Tree, config: dict[str, Any], sources: list[dict], result: dict | None, evaluations: Evaluations
) -> None:
    """Refuse a folder whose config.yaml, origin.json, result.json or eval.csv was edited or comes from another run."""
    expected = tree.run_path(config, folder.parents[3])
    if folder != expected:
        raise UserError(f"its config.yaml is that of {'/'.join(expected.parts[-3:])}")
    own = config_hash(config)
    others = [s["config_hash"] for s in sources if s["config_hash"] != own]
    if others:
        raise UserError(f"it ran with other settings than those in its config.yaml (hash {others[0]}, now {own})")
    if result is None:
        return
    wrong = [f"{k}={result[k]}" for k in (tree.task, "method", "preset", "name", "seed") if result[k] != config[k]]
    if wrong:
        raise UserError(f"its result.json says {' '.join(wrong)}, its config.yaml does not")
    step, end = result[f"{tree.step}s"], planned(tree, config)
    if step < end:
        raise UserError(f"its result.json says {step:,} of {end:,} {tree.step}s, which is not finished")
    last = [float(line["episode_return"]) for line in evaluations.get(step, [])]
    if step != max(evaluations, default=0) or last != [round(r, 6) for r in result["eval_returns"]]:  # eval.csv has six decimals
        raise UserError("eval_returns in its result.json are not those of the last evaluation in its eval.csv")


def row_of(folder: Path, tree: Tree) -> tuple[Row, str] | None:
    """The run's row, without its checksum, and its curve; None before its first evaluation after step 0."""
    config, rows = plain(read_config(folder)), eval_rows(folder)
    evaluations = own_evaluations(rows, tree, config)
    result, origin = ((json.loads(f.read_text()) if f.exists() else None) for f in (folder / "result.json", folder / "origin.json"))
    sources = [*(origin or []), *([] if result is None else [result])]
    require_one_run(folder, tree, config, sources, result, evaluations)
    if result is not None:
        step, returns, hours = result[f"{tree.step}s"], result["eval_returns"], result["hours"]
    elif evaluations and max(evaluations) > 0:
        step, lines = list(evaluations.items())[-1]
        returns, hours = [float(line["episode_return"]) for line in lines], float(lines[0]["hours"])
    else:
        return None
    curve = curve_text(tree, evaluations)
    last = sources[-1] if sources else {}
    versions = {"python": last.get("python", "unknown"), **last.get("versions", {})}
    row = {
        **{k: str(config[k]) for k in (tree.task, "method", "preset", "name", "seed")},
        tree.step: str(step),
        "planned": str(planned(tree, config)),
        "finished": "no" if result is None else "yes",
        "episodes": str(len(returns)),
        "score": f"{statistics.fmean(returns):.6g}",
        "std": f"{statistics.pstdev(returns):.6g}",
        "worlds": other_worlds(rows, tree, config, step),
        "hours": f"{hours:.4f}",
        "changed": changed(tree, config),
        "config_hash": config_hash(config),
        "commit": " ".join(dict.fromkeys(s["commit"] for s in sources)) or "unknown",
        "hardware": " + ".join(dict.fromkeys(s["hardware"] for s in sources)) or "unknown",
        "versions": " ".join(f"{k}={v}" for k, v in versions.items()),
        "eval_returns": " ".join(f"{r:.6g}" for r in returns),
        "curve": digest(curve.encode()),
    }
    return row, curve
