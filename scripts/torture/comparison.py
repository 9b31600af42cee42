"""What a run left in its folder, compared with what an undisturbed run left."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from DMControl.core.run.checkpoint import Checkpoints

RING = 100  # frames of the replay (replay.capacity) that can still be drawn
TIMED = ("state.timers", "state.seconds", "state.records", "state.counters.restarts")  # differ between equal runs


def saves(run: Path) -> list[Path]:
    """The complete saves, newest first."""
    return Checkpoints(run / "checkpoint").complete()


def manifest(save: Path) -> dict[str, Any]:
    return json.loads((save / "manifest.json").read_text())


def newest_step(run: Path) -> int | None:
    found = saves(run)
    return manifest(found[0])["step"] if found else None


def csv_rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as opened:
        found = list(csv.DictReader(opened))
    return [{k: v for k, v in r.items() if k not in ("hours", "env/restarts") and not k.startswith(("time/", "perf/"))} for r in found]


def points(run: Path) -> dict[str, list]:
    """TensorBoard's points, as its own reader finds them."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    out: dict[str, list] = {}
    for tag in tags["scalars"]:
        if not tag.startswith(("time/", "perf/", "env/")) and tag != "final/hours":
            out[tag] = sorted((e.step, e.value) for e in events.Scalars(tag))
    for tag in tags["images"]:
        out[tag] = sorted((e.step, hashlib.sha256(e.encoded_image_string).hexdigest()) for e in events.Images(tag))
    return out


def saved_state(run: Path) -> dict[str, Any]:
    """Everything in the newest save, as flat tensors and values; of the frames a checksum."""
    folder = saves(run)[0]
    out: dict[str, Any] = {"frames": frames_checksum(run)}
    for name in ("agent", "state"):
        flatten(torch.load(folder / f"{name}.pt", weights_only=True), name, out)
    return {k: v for k, v in out.items() if not k.startswith(TIMED)}


def flatten(value: Any, name: str, out: dict[str, Any]) -> None:
    if isinstance(value, dict | list):
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            flatten(v, f"{name}.{k}", out)
    else:
        out[name] = value


def frames_checksum(run: Path) -> str:
    """Of the pixels that the newest save can still draw. Two equal runs may spread them over different files."""
    folder, segments = run / "checkpoint" / "frames", manifest(saves(run)[0])["segments"]
    parts = [(s["first"], s["count"], (folder / s["file"]).read_bytes()) for s in segments]
    last = max(first + count for first, count, _ in parts)
    pixels = {first + i: data[i * len(data) // count : (i + 1) * len(data) // count] for first, count, data in parts for i in range(count)}
    return hashlib.sha256(b"".join(pixels[n] for n in range(max(0, last - RING), last))).hexdigest()


def differences(run: Path, reference: Path) -> list[str]:
    """What differs from the undisturbed run: CSV rows, TensorBoard points, the newest save and the result."""
    found = [f"{name} differs" for name in ("train.csv", "eval.csv") if csv_rows(run / name) != csv_rows(reference / name)]
    ours, theirs = points(run), points(reference)
    found += [f"TensorBoard {tag} differs" for tag in sorted(ours.keys() | theirs.keys()) if ours.get(tag) != theirs.get(tag)]
    ours, theirs = saved_state(run), saved_state(reference)
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name), theirs.get(name)
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        found += [] if same else [f"{name} differs"]
    a, b = (json.loads((r / "result.json").read_text()) for r in (run, reference))
    found += [f"result.json: {k} differs" for k in ("eval_returns", "seed", "env_steps", "frames") if a.get(k) != b.get(k)]
    return found if len(found) < 6 else [*found[:5], f"and {len(found) - 5} more"]
