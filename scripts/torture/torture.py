"""Disturb and damage runs on purpose, and compare what they leave with what an undisturbed run leaves.

scripts/torture.sh [COUNT] [tree=dmcontrol|atari] [faults=kill,nan,...] [method=mlr] [seed=0]
faults: kill, stop, disk, read_only, damage, two, nan, crash, crafted, surroundings;
crowd: eight runs at once; stall: seconds of a save at paper size

COUNT (50) is the number of SIGKILLs, shared between the trees. The other faults are tried COUNT / 25 times each, at least once.
scripts/torture/README.md explains what is compared, and what a run does not survive.
"""

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from DMControl.core.errors import UserError, run_main
from DMControl.core.run.options import Options
from DMControl.renderer import probe
from scripts.torture.faults import EXTRA, FAULTS, save_duration, side_by_side
from scripts.torture.process import Result, Setup, TrainingProcess
from scripts.trees import TREES, Tree, tree_named

RUN = ["preset=debug", "eval.video=false", "eval.episodes=1", "replay.capacity=100", "checkpoint.keep_replay=true"]
SHORT = {
    "dmcontrol": ["env_steps=1200", "eval.every=400", "checkpoint.every=160"],
    "atari": ["game=breakout", "steps=150", "env.max_steps=45", "eval.every=50", "eval.final_episodes=2", "checkpoint.every=20"],
}
PAPER = ["preset=paper", "eval.video=false", "device=cpu"]
LONG = {"dmcontrol": "env_steps=1000000", "atari": "steps=100000"}  # enough for a full replay


def make_setup(tree: Tree, method: str) -> Setup:
    """Import the tree once, for all trainings, with a renderer that gives the same pixels every time."""
    if tree.name == "dmcontrol" and "MUJOCO_GL" not in os.environ and not probe("osmesa"):
        os.environ["MUJOCO_GL"] = "osmesa"
    tree.load("train")
    return Setup(tree, [*RUN, *SHORT[tree.name], f"method={method}"])


def print_table(results: dict[str, list[Result]]) -> None:
    faults = list(dict.fromkeys(r.fault for found in results.values() for r in found))
    width = max(map(len, faults))
    print(f"\n{'fault':{width}} | {'tree':9} | tried | survived | lost")
    print(f"{'-' * width}-|-----------|-------|----------|-----")
    for fault in faults:
        for name, found in results.items():
            for r in found:
                if r.fault == fault and r.tried:
                    lost = "; ".join(dict.fromkeys(r.lost)) or "nothing"
                    print(f"{fault:{width}} | {name:9} | {r.tried:5} | {r.survived:8} | {lost}")


def try_faults(
    setups: list[Setup], chosen: list[str], count: int, dice: random.Random, base: Path
) -> tuple[dict[str, list[Result]], list[str]]:
    """The results of each tree, and notes for the end of the report."""
    results: dict[str, list[Result]] = {setup.tree.package: [] for setup in setups}
    notes = []
    for setup in setups:
        training = TrainingProcess(setup, base / setup.tree.name / "undisturbed")
        if training.wait() != 0:
            raise UserError(f"{setup.tree.package}: a run fails without any fault: {training.output[-300:]}")
        setup.reference = training.run
    for setup in setups:
        name = setup.tree.package
        for fault in (f for f in chosen if f in FAULTS):
            runs = base / setup.tree.name / fault
            runs.mkdir(parents=True)
            found = FAULTS[fault](setup, runs, -(-count // len(setups)) if fault == "kill" else max(1, count // 25), dice)
            results[name] += found
            shutil.rmtree(runs)
            print(f"{name}: {fault}: {sum(r.survived for r in found)} of {sum(r.tried for r in found)}", flush=True)
    if "crowd" in chosen:
        result, note = side_by_side(setups, base / "crowd")
        results.setdefault("both" if len(setups) > 1 else setups[0].tree.package, []).append(result)
        notes.append(note)
    if "stall" in chosen:
        notes += [save_duration(setup, base / "stall", [*PAPER, LONG[setup.tree.name]]) for setup in setups]
    return results, notes


def main(arguments: list[str]) -> int:
    known = [*FAULTS, *EXTRA]
    options = Options(
        arguments, {"tree": ",".join(t.name for t in TREES), "faults": ",".join(known), "method": "mlr", "seed": "0"}, words=True
    )
    trees, chosen, seed = [tree_named(n) for n in options["tree"].split(",")], options["faults"].split(","), options.whole("seed")
    if len(options.words) > 1 or not all(word.isdecimal() and int(word) > 0 for word in options.words):
        raise UserError(f"{' '.join(options.words)}: give one count, and tree=, faults=, method= or seed=")
    if not set(chosen) <= set(known):
        raise UserError(f"faults={options['faults']} must be any of {', '.join(known)}")
    count, start = int(options.words[0]) if options.words else 50, time.monotonic()
    torch.set_num_threads(1)
    setups = [make_setup(tree, options["method"]) for tree in trees]
    base = Path(tempfile.mkdtemp(prefix="torture"))
    base.chmod(0o755)
    try:
        results, notes = try_faults(setups, chosen, count, random.Random(seed), base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if any(results.values()):
        print_table(results)
    failed = sum(r.tried - r.survived for found in results.values() for r in found)
    print("\n" + "\n".join([*notes, f"{time.monotonic() - start:.0f} s, seed {seed}; {failed or 'none'} not survived"]))
    return int(failed > 0)


if __name__ == "__main__":
    run_main(main)
