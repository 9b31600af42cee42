"""How fast an update is, part by part, against what the machine's matrix products reach in the same process.

scripts/bench.sh                                both trees, presets paper and small, precision auto
scripts/bench.sh tree=dmcontrol preset=small precision=fp32 updates=10
scripts/bench.sh tree=dmcontrol preset=madi method=svea,madi task=walker_walk     what the Masker adds
scripts/bench.sh tree=dmcontrol preset=small method=baseline,curl,drq     each method's cost beside the Baseline's
scripts/bench.sh --json mine.json                   writes the measurements into a file
scripts/bench.sh --keep                             keeps them in results/bench/, in the file of this kind of hardware
scripts/bench.sh tree=atari preset=paper --profile FILE     writes the slowest operations of an update into a file
scripts/bench.sh tree=dmcontrol preset=small threads=1 --against HEAD~5    this version and that commit in turn
scripts/bench.sh --table                            writes the table in results/bench/README.md from all that is kept there

Further key=value arguments go to the configuration of the tree (task=..., game=..., mlr.window=...).
"""

import itertools
import json
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from DMControl.core import machine
from DMControl.core.errors import UserError, run_main
from DMControl.core.run.folder import commit
from scripts.bench import against
from scripts.bench.candidates import compare
from scripts.bench.profiles import profile
from scripts.bench.subjects import Clock, Subject
from scripts.bench.tables import beside_baseline, keep, says, show, write_table
from scripts.runs.options import take
from scripts.trees import TREES, Tree, tree_named

ROOT = Path(__file__).resolve().parents[2]

PARTS = ("sample", "augment", "rl loss", "objective forward", "objective backward", "masker forward", "world model", "behaviour", "actor")
PARTS += ("optimiser", "ema", "rest")


def matrix_rates(precision: machine.Precision) -> tuple[float, float]:
    """GFLOP/s of a large matrix product A B in this process and dtype, and of its fastest form: A B, A B^T or a 1 x 1 convolution."""
    device = precision.device
    side, rows = (8192, 128) if device.type == "cuda" else (2048, 64)
    a, b = (torch.randn(side, side, device=device).to(precision.dtype) for _ in range(2))
    out = torch.empty_like(a)
    image = a.view(1, rows, side // rows, side).permute(0, 3, 1, 2)  # channels_last
    kernel = b[:, :, None, None].contiguous(memory_format=torch.channels_last)
    forms = (lambda: torch.mm(a, b, out=out), lambda: torch.mm(a, b.t(), out=out), lambda: torch.nn.functional.conv2d(image, kernel))
    rates = [rate(form, side, device) for form in forms]
    return rates[0], max(rates)


def rate(product: Callable[[], Any], side: int, device: torch.device) -> float:
    """GFLOP/s of a product of square matrices, the best of several."""
    best = float("inf")
    for _ in range(6):
        machine.synchronize(device)
        start = time.perf_counter()
        product()
        machine.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def peak_rss() -> float:
    """GB (10^9 bytes) that this process held at most."""
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9 if status.exists() else 0.0


def median_of_pairs(times: list[float]) -> float:
    """Every second update has an actor step: pairs of neighbours are averaged, then the median is taken."""
    return statistics.median([(a + b) / 2 for a, b in itertools.pairwise(times)])


def timed_update(subject: Subject, clock: Clock) -> dict[str, float]:
    """Milliseconds of each part of one update."""
    clock.enter("rest")
    subject.update()
    clock.leave()
    return clock.read()


def measure(subject: Subject, updates: int) -> dict[str, Any]:
    """Medians over `updates` updates after a warm-up; the matrix-product rate before, between and after."""
    clock, recorder = Clock(subject.device), subject.agent.recorder
    rates, recorded, parts = [matrix_rates(subject.precision)], [], []
    for number in range(updates + 10 if recorder.active else 0):
        recorded.append(sum(timed_update(subject, clock).values()))
        if number == 9:  # warm, and recorded
            recorded.clear()
            torch.cuda.reset_peak_memory_stats()
    gpu_peak = torch.cuda.max_memory_reserved() / 1e9 if subject.device.type == "cuda" else 0.0
    recorder.active = False  # only kernels that are launched one by one show the parts
    for _ in range(2):
        subject.update()
    rates.append(matrix_rates(subject.precision))
    subject.time_parts(clock)
    for number in range(updates):
        parts.append(timed_update(subject, clock))
        if number in (updates // 3, 2 * updates // 3):
            rates.append(matrix_rates(subject.precision))
    rates.append(matrix_rates(subject.precision))
    plain = median_of_pairs([sum(p.values()) for p in parts])
    timings = {
        "ms_per_update": median_of_pairs(recorded) if recorded else plain,
        "ms_per_update_plain": plain,
        "parts_ms": {name: median_of_pairs([p.get(name, 0.0) for p in parts]) for name in PARTS},
        "peak_rss_gb": peak_rss(),
        "peak_gpu_gb": gpu_peak,
        "updates": updates,
    }
    product, fastest = (statistics.median(each) for each in zip(*rates, strict=True))
    return result(subject, timings, product, fastest)


def result(subject: Subject, timings: dict[str, Any], product: float, fastest: float) -> dict[str, Any]:
    """A measurement as it is kept: what was measured, on which hardware, its times, and the numbers that follow from them."""
    config, parts, environment = subject.config, timings["parts_ms"], subject.environment()
    achieved = subject.flops / timings["ms_per_update"] * 1e3
    seconds = subject.run_updates * timings["ms_per_update"] / 1e3 + subject.run_steps / environment["step"]
    return {
        "tree": subject.tree.package,
        "preset": config.preset,
        "task": config[subject.tree.task],
        "method": config.method,
        "precision": str(subject.precision.dtype)[6:],
        "hardware": machine.describe(subject.device),
        **timings,
        "gflop_per_update": subject.flops,
        "gflop_of_image_passes": subject.passes,
        "gflops": achieved,
        "matrix_gflops": product,
        "fastest_form_gflops": fastest,
        "ratio": achieved / product,
        "overhead_share": sum(parts[p] for p in ("sample", "augment", "ema", "optimiser")) / sum(parts.values()),
        "environment_per_second": environment,
        "hours_per_100k": seconds / 3600,
    }


def make_subject(tree: Tree, preset: str, method: str, rest: list[str]) -> Subject:
    own = [a for a in rest if not any(a.startswith(f"{other.task}=") for other in TREES if other is not tree)]
    return Subject(tree, [*own, f"preset={preset}", f"method={method}"])


def measure_apart(tree: Tree, preset: str, method: str, updates: int, rest: list[str]) -> dict[str, Any]:
    """In a process of its own, so that its memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "one.json"
        chosen = [f"tree={tree.name}", f"preset={preset}", f"method={method}", f"updates={updates}"]
        command = [sys.executable, "-m", "scripts.bench.bench", *chosen, "--one", str(file), *rest]
        code = subprocess.run(command, check=False).returncode
        if code in (130, -signal.SIGINT):
            raise KeyboardInterrupt
        if code:
            raise UserError(f"tree={tree.name} preset={preset} method={method} could not be measured")
        return json.loads(file.read_text())


def writable(name: str, word: str) -> Path | None:
    """The file that this option names, if it does."""
    if not word:
        return None
    file = Path(word)
    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"{name} {file}: " + ("that is a folder" if file.is_dir() else f"there is no folder {file.parent}"))
    return file


def hardware_here() -> str:
    """The vector units that the processor has and lacks."""
    units = machine.vector_units()
    missing = [unit for unit in machine.VECTOR_UNITS.values() if unit not in units]
    name = machine.cpu_info("model name") or platform.processor() or platform.machine()
    return f"processor: {name} with {', '.join(units) or 'none of these'}" + (f", without {', '.join(missing)}" if missing else "")


def main(arguments: list[str]) -> int:
    machine.keep_freed_memory()
    chosen, updates, rest = {"tree": ",".join(tree.name for tree in TREES), "preset": "paper,small", "method": "mlr"}, 6, []
    options, flags = dict.fromkeys(("--json", "--one", "--profile", "--against"), ""), {"--keep": False, "--table": False}
    words = take(arguments, options, flags)
    if flags["--table"]:
        if len(arguments) > 1:
            raise UserError("--table stands alone: it writes the table in results/bench/README.md from what --keep has kept there")
        print(f"written: {write_table(ROOT / 'results' / 'bench')}")
        return 0
    target, one, profiled = (writable(name, options[name]) for name in ("--json", "--one", "--profile"))
    for argument in words:
        key, _, value = argument.partition("=")
        if key in chosen:
            chosen[key] = value
        elif key == "updates":
            if not value.isdecimal() or int(value) < 2:
                raise UserError(f"updates={value} must be a whole number of at least 2")
            updates = int(value)
        else:
            rest.append(argument)
    trees, presets, methods = (chosen[key].split(",") for key in ("tree", "preset", "method"))
    cases = [(tree_named(tree), preset, method) for tree in trees for preset in presets for method in methods]
    context = {"date": date.today().isoformat(), "commit": commit(), "torch": torch.__version__, "python": platform.python_version()}
    results: list[dict[str, Any]] = []
    for name in ("--profile", "--against"):
        if options[name] and len(cases) > 1:
            raise UserError(f"{name} is for one tree, one preset and one method: tree=atari preset=paper")
    if one is None:
        print(hardware_here())
    if options["--against"]:
        against.compare(options["--against"], words)
        return 0
    try:
        for tree, preset, method in cases:
            alone = make_subject(tree, preset, method, rest) if len(cases) == 1 else None
            result = measure(alone, updates) if alone else measure_apart(tree, preset, method, updates, rest)
            if one is not None:
                one.write_text(json.dumps(result))
            results.append(result)
            if alone:
                show(result)
            if flags["--keep"]:
                print(f"kept: {keep(ROOT / 'results' / 'bench', {**context, **result})}")
            if target is not None:
                target.write_text(json.dumps({**context, "results": results}, indent=1) + "\n")
            if profiled is not None:
                profiled.write_text(profile(alone) + (compare(alone) if "sac" in alone.config else ""))
    except KeyboardInterrupt:
        if one is None:
            where = f", kept in {target}" if target is not None and results else ""
            print(f"interrupted: {len(results)} of {len(cases)} measured{where}", file=sys.stderr)
        return 130
    for compared in beside_baseline(results):
        print(says(compared))
    if target is not None:
        print(f"\nwritten: {target}")
    return 0


if __name__ == "__main__":
    run_main(main)
