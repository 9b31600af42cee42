"""How a measurement of bench is shown: at the terminal, and as a row of the table in results/bench/README.md."""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DMControl.core.run.files import write_whole
from scripts.report import sections

OFFICIAL = "official.csv"  # seconds of an update of the official code, measured outside this project
IDENTITY = ("tree", "method", "preset", "task", "hardware", "precision")  # of measurements that agree in these, only the newest counts
COLUMNS = ("run", "hardware", "format", "date", "ms per update", "GFLOP/s", "matrix products", "ratio", "official / ours")
COLUMNS += ("overhead", "RSS GB", "GPU GB", "hours per 100k")

Measurement = dict[str, Any]


def show(result: dict[str, Any]) -> None:
    print(
        f"\n{result['tree']}, {result['task']}, {result['method']}, preset {result['preset']}, {result['precision']}, {result['hardware']}"
    )
    print(f"  update {result['ms_per_update']:12.1f} ms   ({result['updates']} updates, median)")
    if result["ms_per_update_plain"] != result["ms_per_update"]:
        print(f"  not recorded, kernel by kernel {result['ms_per_update_plain']:.1f} ms:")
    for part, ms in result["parts_ms"].items():
        if ms:
            print(f"    {part:18s}{ms:9.1f} ms   {100 * ms / sum(result['parts_ms'].values()):5.1f}%")
    print(f"  FLOPs  {result['gflop_per_update']:12.1f} GFLOP as published -> {result['gflops']:.0f} GFLOP/s")
    print(
        f"  matrix products reach {result['matrix_gflops']:.0f} GFLOP/s here: ratio {result['ratio']:.2f}"
        f"   (their fastest form {result['fastest_form_gflops']:.0f}: {result['gflops'] / result['fastest_form_gflops']:.2f})"
    )
    print(f"  sample + augment + ema + optimiser: {100 * result['overhead_share']:.1f}% of an update")
    print(f"  memory {result['peak_rss_gb']:.2f} GB RSS at the peak, {result['peak_gpu_gb']:.2f} GB on the GPU")
    print("  environment: " + ", ".join(f"{k} {v:.0f} per second" for k, v in result["environment_per_second"].items()))
    print(f"  a run of 100k (env steps or agent steps) takes about {result['hours_per_100k']:.1f} hours, without evaluations")


def keep(folder: Path, result: Measurement) -> Path:
    """Put a measurement into the file of its hardware; it replaces an older one of the same run."""
    file = folder / (re.sub(r"[^a-z0-9]+", "_", result["hardware"].lower()).strip("_") + ".json")
    held = json.loads(file.read_text())["results"] if file.exists() else []
    others = [r for r in held if any(r[k] != result[k] for k in IDENTITY)]
    write_whole(file, json.dumps({"results": [*others, result]}, indent=1) + "\n")
    return file


def read(folder: Path) -> list[Measurement]:
    """All measurements that count, run by run."""
    newest: dict[tuple, Measurement] = {}
    for file in sorted(folder.glob("*.json")):
        context = json.loads(file.read_text())
        for result in context.pop("results"):
            found = {**context, **result}
            key = tuple(found[k] for k in IDENTITY)
            if key not in newest or newest[key]["date"] <= found["date"]:
                newest[key] = found
    return sorted(newest.values(), key=lambda r: (r["tree"] != "DMControl", *(r[k] for k in IDENTITY)))


def kind(hardware: str) -> str:
    """What speed depends on: "AMX, 2 threads" of a processor; a GPU as it is called."""
    found = re.search(r" with (\S+, \d+ threads?)$", hardware)
    return found[1] if found else hardware


def against_official(r: Measurement, official: list[dict[str, str]]) -> str:
    """The seconds of the official code over ours, where both were measured on hardware of the same kind."""
    same = [
        o
        for o in official
        if (o["tree"], o["method"], o["preset"], o["hardware"]) == (r["tree"], r["method"], r["preset"], kind(r["hardware"]))
    ]
    ratios = [f"{1e3 * float(o['seconds']) / r['ms_per_update']:.1f}" for o in same]
    return f"{ratios[0]} ({', '.join(ratios[1:])})" if len(ratios) > 1 else ratios[0] if ratios else "-"


@dataclass(frozen=True)
class Beside:
    """The cost of a method's update, as a multiple of the Baseline's in the same run of bench."""

    run: dict[str, Any]
    measured: float
    counted: float  # by image passes


def beside_baseline(results: list[dict[str, Any]]) -> list[Beside]:
    """All methods of the control suite that were measured with a Baseline of the same task, preset and hardware."""

    def kind(r: dict[str, Any]) -> tuple:
        return tuple(r[key] for key in ("tree", "task", "preset", "precision", "hardware"))

    counted = [r for r in results if r.get("gflop_of_image_passes")]
    bases = {kind(r): r for r in counted if r["method"] == "baseline"}
    pairs = [(r, bases[kind(r)]) for r in counted if kind(r) in bases and r["method"] != "baseline"]
    return [Beside(r, *(r[key] / base[key] for key in ("ms_per_update", "gflop_of_image_passes"))) for r, base in pairs]


def says(b: Beside) -> str:
    return (
        f"{b.run['method']}, preset {b.run['preset']}: an update costs {b.measured:.2f} times the Baseline's, {b.counted:.2f} by its image "
        f"passes: ratio {b.measured / b.counted:.2f}"
    )


def row(r: Measurement, official: list[dict[str, str]]) -> str:
    fastest = r.get("fastest_form_gflops")
    rate, ratio = f"{r['matrix_gflops']:,.0f}", f"{r['ratio']:.2f}"
    if fastest:
        rate, ratio = f"{rate} ({fastest:,.0f})", f"{ratio} ({r['gflops'] / fastest:.2f})"
    cells = (
        f"{r['task']} {r['method']} {r['preset']}", r["hardware"], r["precision"], r["date"], f"{r['ms_per_update']:,.1f}",
        f"{r['gflops']:,.0f}", rate, ratio, against_official(r, official), f"{100 * r['overhead_share']:.0f}%",
        f"{r['peak_rss_gb']:.1f}", f"{r['peak_gpu_gb']:.1f}" if r["peak_gpu_gb"] else "-", f"{r['hours_per_100k']:.1f}",
    )  # fmt: skip
    return line(cells)


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_table(folder: Path) -> Path:
    """Write the tables of all measurements in the folder and of the official code into its README.md, between the marks."""
    page, results = folder / "README.md", read(folder)
    with open(folder / OFFICIAL, newline="") as file:
        official = list(csv.DictReader(file))
    worlds = [text for r in results if (text := worlds_line(r))]
    rows = [line(COLUMNS), line(["---"] * len(COLUMNS)), *(row(r, official) for r in results)]
    sections.fill(page, "bench", [*rows, *(f"\n{text}" for text in worlds), *beside_table(results)])
    told = [line((f"{o['tree']} {o['method']} {o['preset']}", o["hardware"], o["format"], o["seconds"], o["remark"])) for o in official]
    sections.fill(page, "official", [line(("run", "hardware", "format", "seconds an update", "remark")), line(["---"] * 5), *told])
    return page


def beside_table(results: list[Measurement]) -> list[str]:
    """Methods beside the Baseline that was measured on the same day."""
    days = sorted({r["date"] for r in results})
    rows = [b for day in days for b in beside_baseline([r for r in results if r["date"] == day])]
    if not rows:
        return []
    columns = ("run", "hardware", "format", "update beside the Baseline's", "by image passes", "ratio")
    lines = ["", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for b in rows:
        numbers = " | ".join(f"{x:.2f}" for x in (b.measured, b.counted, b.measured / b.counted))
        lines.append(f"| {b.run['method']} {b.run['preset']} | {b.run['hardware']} | {b.run['precision']} | {numbers} |")
    return lines


def worlds_line(r: dict[str, Any]) -> str:
    """What a step costs in each world, if several were measured."""
    steps = {k.removeprefix("step in "): v for k, v in r["environment_per_second"].items() if k.startswith("step in ")}
    if len(steps) < 2:
        return ""
    says = ", ".join(f"{world} {1000 / rate:.0f} ms" for world, rate in steps.items())
    return f"A step of {r['task']} in each world (preset {r['preset']}, {r['hardware']}, rendering included): {says}."
