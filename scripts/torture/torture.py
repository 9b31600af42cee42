"""Injure runs on purpose and look at what is lost.

scripts/torture.sh [COUNT] [tree=dmcontrol|atari] [faults=kill,nan,...] [seed=0]
faults: kill, stop, disk, read_only, damage, two, nan, crash, crafted; crowd: eight runs at once; stall: seconds of a save at paper size

COUNT (50) is the number of SIGKILLs, shared between the trees; the other faults are tried COUNT / 25 times each, at least once.
Each victim is a whole training process, forked from this one so that torch is imported once. After a fault the same command is
given again until the run has finished; what it leaves is compared with what an undisturbed run left: weights, moments, replay,
counters, random streams, CSV rows and TensorBoard points, bit for bit (but for hours and seconds).
"""

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from DMControl.core.errors import UserError, run_main
from DMControl.core.run.options import Options
from DMControl.renderer import probe
from scripts.torture.faults import EXTRA, FAULTS, crowd, stall
from scripts.torture.process import Row, Tree, Victim

ROOT = Path(__file__).resolve().parents[2]


def plant(names: list[str]) -> list[Tree]:
    """Import the trees once, with a renderer that gives the same pixels every time."""
    import torch

    torch.set_num_threads(1)
    shared = ["preset=debug", "eval.video=false", "eval.episodes=1", "replay.capacity=100", "checkpoint.keep_replay=true"]
    out = []
    if "dmcontrol" in names:
        if "MUJOCO_GL" not in os.environ and not probe("osmesa"):
            os.environ["MUJOCO_GL"] = "osmesa"
        from DMControl import train

        settings = [*shared, "env_steps=1200", "eval.every=400", "checkpoint.every=160"]
        out.append(Tree("DMControl", train, settings, "dmcontrol/cartpole_swingup/mlr-debug/seed1", 8))
    if "atari" in names:
        from Atari import train

        settings = [*shared, "game=breakout", "steps=150", "env.max_steps=45", "eval.every=50", "eval.final_episodes=2"]
        settings += ["checkpoint.every=20"]
        out.append(Tree("Atari", train, settings, "atari/breakout/mlr-debug/seed1", 4))
    return out


def print_table(table: dict[str, list[Row]]) -> None:
    names = list(table)
    faults = list(dict.fromkeys(row.fault for rows in table.values() for row in rows))
    width = max(map(len, faults))
    print(f"\n{'fault':{width}} | {'tree':9} | tried | survived | lost")
    print(f"{'-' * width}-|-----------|-------|----------|-----")
    for fault in faults:
        for name in names:
            for row in table[name]:
                if row.fault == fault and row.tried:
                    lost = "nothing" if not row.lost else "; ".join(dict.fromkeys(row.lost))
                    print(f"{fault:{width}} | {name:9} | {row.tried:5} | {row.survived:8} | {lost}")


def main(arguments: list[str]) -> int:
    options = Options(arguments, {"tree": "dmcontrol,atari", "faults": ",".join([*FAULTS, *EXTRA]), "seed": "0"}, words=True)
    names, chosen, seed = options["tree"].split(","), options["faults"].split(","), options.whole("seed")
    if len(options.words) > 1 or not all(word.isdecimal() and int(word) > 0 for word in options.words):
        raise UserError(f"{' '.join(options.words)}: give one count, and tree=, faults= or seed=")
    if not set(names) <= {"dmcontrol", "atari"} or not set(chosen) <= {*FAULTS, *EXTRA}:
        raise UserError(f"tree= is dmcontrol or atari, faults= any of {', '.join([*FAULTS, *EXTRA])}")
    count = int(options.words[0]) if options.words else 50
    dice, start = random.Random(seed), time.monotonic()
    trees, notes = plant(names), []
    table: dict[str, list[Row]] = {tree.name: [] for tree in trees}
    base = Path(tempfile.mkdtemp(prefix="torture"))
    base.chmod(0o755)
    try:
        for tree in trees:
            victim = Victim(tree, base / tree.name / "undisturbed")
            if victim.wait() != 0:
                raise UserError(f"{tree.name}: a run fails without any fault: {victim.said[-300:]}")
            tree.reference = victim.run
        for tree in trees:
            for fault in (f for f in chosen if f in FAULTS):
                tries = -(-count // len(trees)) if fault == "kill" else max(1, count // 25)
                runs = base / tree.name / fault
                runs.mkdir(parents=True)
                found = FAULTS[fault](tree, runs, tries, dice)
                table[tree.name] += found
                shutil.rmtree(runs)
                print(f"{tree.name}: {fault}: {sum(r.survived for r in found)} of {sum(r.tried for r in found)}", flush=True)
        if "crowd" in chosen:
            row, note = crowd(trees, base / "crowd")
            table.setdefault("both" if len(trees) > 1 else trees[0].name, []).append(row)
            notes.append(note)
        if "stall" in chosen:
            notes += [stall(tree, base / "stall" / tree.name) for tree in trees]
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if any(table.values()):
        print_table(table)
    failed = sum(row.tried - row.survived for rows in table.values() for row in rows)
    notes.append(f"{time.monotonic() - start:.0f} s, seed {seed}; {failed or 'none'} not survived")
    print("\n" + "\n".join(notes))
    return int(failed > 0)


if __name__ == "__main__":
    run_main(main)
