"""What bench keeps, what its tables say, and the profile of an update."""

import csv
import json
import re

import pytest
import torch

from DMControl.core import machine
from scripts.bench import bench
from scripts.bench.candidates import compare, groups
from scripts.bench.profiles import profile
from scripts.bench.subjects import Subject
from scripts.bench.tables import against_official, keep, kind, read, row, write_table
from scripts.trees import ATARI, DMCONTROL

MEASURED = {
    "tree": "Atari", "method": "mlr", "preset": "paper", "task": "alien", "hardware": "AMD EPYC with AVX2, 2 threads",
    "precision": "float32", "date": "2026-01-02", "ms_per_update": 2000.0, "gflops": 500.0, "matrix_gflops": 250.0, "ratio": 2.0,
    "overhead_share": 0.1, "peak_rss_gb": 1.0, "peak_gpu_gb": 0.0, "hours_per_100k": 3.0, "environment_per_second": {"step": 100.0},
}  # fmt: skip


def test_one_file_for_each_kind_of_hardware_and_the_newest_counts(tmp_path):
    amx, gpu = {"hardware": "Intel(R) Xeon(R) with AMX, 2 threads"}, {"hardware": "NVIDIA H200"}
    for more in ({}, {"date": "2026-02-01", "ms_per_update": 1.0}, {"precision": "bfloat16"}, amx, gpu):
        file = keep(tmp_path, MEASURED | more)
    assert file.name == "nvidia_h200.json"
    counts = {f.name: len(json.loads(f.read_text())["results"]) for f in tmp_path.glob("*.json")}
    assert counts == {"amd_epyc_with_avx2_2_threads.json": 2, "intel_r_xeon_r_with_amx_2_threads.json": 1, "nvidia_h200.json": 1}
    older = {"date": "2025-12-31", "torch": "2.11.0", "results": [{k: v for k, v in MEASURED.items() if k != "date"}]}
    (tmp_path / "a.json").write_text(json.dumps(older))  # a file of --json, with one date for all
    found = {(r["hardware"], r["precision"]): (r["date"], r["ms_per_update"]) for r in read(tmp_path)}
    assert len(found) == 4 and found[MEASURED["hardware"], "float32"] == ("2026-02-01", 1.0)
    (tmp_path / "a.json").write_text(json.dumps(older | {"date": "2026-03-01"}))
    assert [r["date"] for r in read(tmp_path) if r["hardware"] == MEASURED["hardware"] and r["precision"] == "float32"] == ["2026-03-01"]


def test_the_official_code_is_compared_only_on_hardware_of_the_same_kind(root, tmp_path):
    with open(root / "results/bench/official.csv", newline="") as file:
        official = list(csv.DictReader(file))
    assert kind("AMD EPYC with AVX-512-BF16, 2 threads") == "AVX-512-BF16, 2 threads" and kind("NVIDIA H200") == "NVIDIA H200"
    assert against_official(MEASURED, official) == "-"
    same = MEASURED | {"hardware": "any with AVX-512-BF16, 2 threads"}
    assert against_official(same, official) == "3.6" and "| 2026-01-02 | 2,000.0 | 500 | 250 | 2.00 | 3.6 | 10% |" in row(same, official)
    for other in (
        {"hardware": "any with AVX-512-BF16, 1 thread"},
        {"preset": "small"},
        {"method": "baseline"},
        {"tree": "DMControl", "preset": "madi"},
    ):
        assert against_official(same | other, official) == "-", other
    assert against_official(same | {"tree": "DMControl", "ms_per_update": 1000.0}, official) == "49.3 (31.7)"  # with huge pages
    page = tmp_path / "README.md"
    page.write_text("<!-- bench: x -->\n<!-- end of bench -->\n<!-- official: x -->\n<!-- end of official -->\n")
    (tmp_path / "official.csv").write_text((root / "results/bench/official.csv").read_text())
    keep(tmp_path, same)
    tables = re.findall(r"(?:^\|.*\n)+", write_table(tmp_path).read_text(), re.MULTILINE)
    assert [len(table.splitlines()) for table in tables] == [3, 2 + len(official)]
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)


@pytest.mark.parametrize(("flags", "units"), [({"avx2", "avx512f", "amx_bf16", "avx512_bf16"}, 4), ({"avx2", "sse"}, 1), (set(), 0)])
def test_bench_names_what_the_processor_can(monkeypatch, flags, units):
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)
    says = bench.hardware_here()
    for unit in machine.VECTOR_UNITS.values():
        can, cannot = says.partition(", without ")[::2]
        assert (unit in re.split(r"with |, ", can)) != (unit in cannot.split(", "))
    best = {4: " with AMX,", 1: " with AVX2,", 0: ","}[units]
    assert len(machine.vector_units()) == units and best in machine.describe(torch.device("cpu"))


def test_a_profile_lists_the_slowest_operations():
    subject = Subject(ATARI, ["preset=debug", "device=cpu"])
    title, head, *lines, total = filter(None, profile(subject).splitlines())
    assert title.startswith("Atari, mlr, debug") and head.split() == ["ms", "share", "calls", "operation"]
    spent = [float(line.split()[0]) for line in lines]
    assert len(lines) == 40 and spent == sorted(spent, reverse=True) and sum(spent) <= float(total.split()[0]) * 1.01
    assert any("convolution" in line for line in lines)


@pytest.mark.parametrize("size", [40, 42])
def test_candidates_give_the_same_as_what_is_in_use(size):
    """Frames whose lines are whole words, and others."""
    subject = Subject(DMCONTROL, ["preset=debug", "device=cpu", f"image.size={size}", "mlr.mask.patch=2"])
    frames = subject.replay.store.frames
    frames.copy_(torch.randint(0, 256, frames.shape, dtype=torch.uint8))
    for group in groups(subject):
        expected, *others = (call().float() for call in group.values())
        assert others and expected.std() > 0
        for other in others:
            torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert "off by" not in compare(subject).partition("convolution")[0] and compare(subject).count(" ms  ") == 7


def test_a_profile_is_of_one_subject(root, run):
    done = run(root, "scripts/bench.sh", "preset=debug", "--profile", "x")
    assert done.returncode == 2 and "--profile is for one tree" in done.stderr
