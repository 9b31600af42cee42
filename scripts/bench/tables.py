"""How a measurement of bench is shown: at the terminal, and as a row of the table in results/bench/README.md."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.report import sections


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


def row(context: dict[str, Any], r: dict[str, Any]) -> str:
    gpu = f"{r['peak_gpu_gb']:.1f}" if r["peak_gpu_gb"] else "-"
    overhead = f"{100 * r['overhead_share']:.0f}%"
    fastest = r.get("fastest_form_gflops")
    rate, ratio = f"{r['matrix_gflops']:,.0f}", f"{r['ratio']:.2f}"
    if fastest:
        rate, ratio = f"{rate} ({fastest:,.0f})", f"{ratio} ({r['gflops'] / fastest:.2f})"
    return (
        f"| {r['tree']} {r['method']} {r['preset']} | {r['hardware']}, {context['date']} | {r['precision']} | {r['ms_per_update']:,.1f} "
        f"| {r['gflops']:,.0f} | {rate} | {ratio} | {overhead} | {r['peak_rss_gb']:.1f} | {gpu} "
        f"| {r['hours_per_100k']:.1f} |"
    )


def write_table(folder: Path) -> Path:
    """Write the table of all measurements in the folder into its README.md, between the marks."""
    page = folder / "README.md"
    columns = (
        "run | hardware, date | format | ms per update | GFLOP/s | matrix products | ratio | overhead | RSS GB | GPU GB | hours per 100k"
    )
    head = [f"| {columns} |", "|" + "---|" * len(columns.split("|"))]
    results = [(c, r) for c in (json.loads(f.read_text()) for f in sorted(folder.glob("*.json"))) for r in c["results"]]
    worlds = [f"\n{line}" for _, r in results if (line := worlds_line(r))]
    sections.fill(page, "bench", [*head, *(row(c, r) for c, r in results), *worlds, *beside_table(results)])
    return page


def beside_table(results: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """Methods beside the Baseline; runs that were kept in one file compare."""
    rows = []
    for context in {id(c): c for c, _ in results}.values():
        rows += beside_baseline([r for c, r in results if c is context])
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
