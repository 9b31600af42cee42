"""Train for a short budget, judge the policy before and after, and leave a curve and a video in the run folder."""

import csv
import json
import sys
from pathlib import Path

from DMControl.core.errors import run_main
from DMControl.settings import read_config, run_path

CHOICES = ["task=cartpole_swingup", "method=mlr", "device=cpu", "name=quickstart"]
BUDGET = ["preset=small", "precision=auto", "env_steps=40000", "eval.every=10000"]  # of the preset; another preset has its own


def settings_of(arguments: list[str]) -> list[str]:
    """Our own choices, and the user's after them."""
    typed = {a.split("=")[0] for a in arguments}
    ours = CHOICES if "preset" in typed else CHOICES + BUDGET
    return [b for b in ours if b.split("=")[0] not in typed] + arguments


def curve(run: Path, seed: int) -> tuple[list[int], list[float], list[float]]:
    """Env steps, mean and standard deviation of the return over each of the run's own evaluations."""
    found: dict[int, list[float]] = {}
    with open(run / "eval.csv", newline="") as file:
        for row in csv.DictReader(file):
            if int(row["seed"]) == seed and row["world"] == "clean":
                found.setdefault(int(row["env_step"]), []).append(float(row["episode_return"]))
    steps = sorted(found)
    means = [sum(found[s]) / len(found[s]) for s in steps]
    stds = [(sum((r - m) ** 2 for r in found[s]) / len(found[s])) ** 0.5 for s, m in zip(steps, means, strict=True)]
    return steps, means, stds


def draw(run: Path, seed: int, title: str) -> Path:
    from matplotlib.figure import Figure  # imported once the settings are known to be right, as below

    steps, means, stds = curve(run, seed)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, means, "o-", color="#0072B2")
    low, high = ([m + sign * s for m, s in zip(means, stds, strict=True)] for sign in (-1, 1))
    axes.fill_between(steps, low, high, color="#0072B2", alpha=0.2, linewidth=0)
    axes.set(xlabel="env steps", ylabel="evaluation return (mean and std over episodes)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    path = run / "curve.png"
    figure.savefig(path, dpi=120)
    return path


def main(arguments: list[str]) -> int:
    settings = settings_of(arguments)
    config = read_config(settings)
    print(f"training {config.method} on {config.task}, preset {config.preset}, {config.env_steps:,} env steps")
    print("Ctrl-C stops, the same command goes on")
    from DMControl import train

    code = train.main(settings)
    if code:
        return code
    run = run_path(config)
    steps, means, stds = curve(run, config.seed)
    picture = draw(run, config.seed, f"{config.task}, {config.method}, preset {config.preset}, 1 seed")
    hours = json.loads((run / "result.json").read_text())["hours"]
    print(f"\n{60 * hours:.1f} minutes of training and evaluation ({config.eval.episodes} episodes each time, deterministic policy)")
    print(f"  before training: return {means[0]:6.1f} +- {stds[0]:.1f}")
    print(f"  after {steps[-1]:,} env steps: return {means[-1]:6.1f} +- {stds[-1]:.1f}")
    print(f"  learning curve:  {picture}")
    if config.eval.video:
        print(f"  video of the policy: {run / 'video' / 'final.mp4'}")
    print(f"  numbers: {run / 'train.csv'}, {run / 'eval.csv'}")
    print(f"  TensorBoard: .venv/bin/tensorboard --logdir {config.runs}   (then open http://localhost:6006)")
    print("a full small run takes env_steps=100000; the paper's setting is preset=paper (on a GPU)")
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    run_main(main)
