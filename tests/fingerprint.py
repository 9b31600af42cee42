"""Whether a change of the code changes a result: hashes of what training computes, for every method of both trees.

python tests/fingerprint.py --write FILE        before the change
python tests/fingerprint.py --against FILE      after it, on the same machine; exit code 1 and a line for each difference
python tests/fingerprint.py --against FILE dmcontrol/mlr atari    these cases alone

Each case is the entry point itself, preset debug, fp32, one CPU thread, rendered by OSMesa, which gives the same pixels every time:
once for 8 updates, of which all tensors of the save are hashed (weights, optimiser moments, random streams, replay), and once to the
end, of which the rows of train.csv and eval.csv are hashed column by column. A tensor counts by its content alone, so it may be saved
under another name. Hashes hold on one machine: processors round differently.
"""

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"dmcontrol": "DMControl.train", "atari": "Atari.train"}
EIGHT = {"dmcontrol": "env_steps=464", "atari": "steps=68"}  # debug's random steps and 8 updates
FEW = {"planet": "env_steps=1024"}  # of which an episode is random
METHODS = (  # of DMControl
    *("baseline", "curl", "drq", "madi", "mlr", "mlr_madi", "playvirtual", "rad", "sac", "sac_ae", "sgqn", "soda", "spr", "svea"),
    *("dreamer", "planet", "slac"),
)
CASES = {
    "dmcontrol": {
        **{method: [] for method in METHODS},
        **{f"{method} in parts": ["chunk=3"] for method in ("baseline", "madi", "sgqn")},
        "drq of one view": ["drq.views=1", "drq.target_views=1"],
        "sac_ae after updates at once": ["train.catch_up=4"],
        "mlr in parts": ["chunk=8", "quirks.one_mask_per_batch=false"],
        "mlr of pixels": ["mlr.target=pixels", "mlr.action_tokens=false"],
        "playvirtual in parts": ["chunk=3", "quirks.double_clip=false"],
        "spr as in variant B": ["spr.variant=B"],
        "svea in a video": ["world=video_hard", "strong_augmentation.kind=conv"],
        "mlr among colours": ["world=color_hard", "augment.order=[crop,intensity,affine]"],
    },
    "atari": {
        "baseline": [],
        "mlr": [],
        "madi": ["env.distraction=video"],
        "mlr_madi": [],
        "mlr in parts": ["mlr.chunk=2", "quirks.unclipped_heads=false", "quirks.targets_lag=false"],
        "mlr of pixels": ["mlr.target=pixels"],
        "spr": [],
        "spr without quirks": [
            f"quirks.{name}=false" for name in ("mask_includes_end", "actions_run_on", "unclipped_heads", "targets_lag")
        ],
        "playvirtual": [],
    },
}
CLOCKED = ("hours", "perf/", "time/")
RENAMED = {"grad/front": ("grad/pixels",), "loss/auxiliary": ("loss/soda", "loss/sgqn"), "grad/auxiliary": ("grad/objective",)}  # columns


def tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for key in value:
            yield from tensors(value[key])
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors(one)


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def saved_tensors(run: Path) -> list[str]:
    """A digest of each tensor in the newest save, and of each file of frames, every content once."""
    folder = max((run / "checkpoint").glob("step_*"))
    found = set()
    for name in ("agent.pt", "state.pt"):
        for t in tensors(torch.load(folder / name, weights_only=True)):
            if t.numel() > 1:  # single numbers are counters and rates, which a save may hold in other forms
                found.add(digest(str(tuple(t.shape)).encode(), t.contiguous().cpu().numpy().tobytes()))
    return sorted(found | {digest(file.read_bytes()) for file in (run / "checkpoint" / "frames").glob("*.bin")})


def columns(file: Path) -> dict[str, str]:
    with open(file, newline="") as handle:
        rows = list(csv.DictReader(handle))
    names = [n for n in rows[0] if not n.startswith(CLOCKED) and any(r[n] for r in rows)]
    return {name: digest(*(row[name].encode() for row in rows)) for name in names}


def train(benchmark: str, method: str, settings: list[str], folder: Path) -> Path:
    environment = {**os.environ, "MUJOCO_GL": "osmesa"}
    command = [sys.executable, "-m", MODULES[benchmark], f"method={method}", "preset=debug", "precision=fp32", "device=cpu", "threads=1"]
    command += ["eval.video=false", "checkpoint.keep_replay=true", f"runs={folder}", *settings]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{benchmark}, {method}: {done.stderr.strip()}")
    return next(folder.rglob("config.yaml")).parent


def fingerprint(benchmark: str, case: str, settings: list[str]) -> dict[str, Any]:
    method = case.split()[0]
    with tempfile.TemporaryDirectory() as folder:
        begun = train(benchmark, method, [*settings, FEW.get(method, EIGHT[benchmark])], Path(folder) / "eight")
        whole = train(benchmark, method, settings, Path(folder) / "whole")
        return {"tensors": saved_tensors(begun), "train.csv": columns(whole / "train.csv"), "eval.csv": columns(whole / "eval.csv")}


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    lost, new = (len(set(a) - set(b)) for a, b in ((before["tensors"], now["tensors"]), (now["tensors"], before["tensors"])))
    out = [f"{lost} of {len(before['tensors'])} saved tensors are gone, {new} are new"] if lost or new else []
    for file in ("train.csv", "eval.csv"):
        changed = [n for n, told in before[file].items() if all(now[file].get(m) != told for m in (n, *RENAMED.get(n, ())))]
        out += [f"{file}: {', '.join(changed)}"] if changed else []
    return out


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0] not in ("--write", "--against"):
        raise SystemExit(__doc__)
    mode, file, *chosen = arguments
    names = [f"{b}/{case}" for b, own in CASES.items() for case in own]
    names = [n for n in names if not chosen or any(n == c or n.startswith(f"{c}/") for c in chosen)]
    before, found, wrong = ({} if mode == "--write" else json.loads(Path(file).read_text())), {}, 0
    for name in names:
        benchmark, _, case = name.partition("/")
        found[name] = fingerprint(benchmark, case, CASES[benchmark][case])
        apart = [] if mode == "--write" else differences(before[name], found[name])
        wrong += bool(apart)
        print(f"{name}: {'; '.join(apart) or digest(json.dumps(found[name], sort_keys=True).encode())}", flush=True)
    if mode == "--write":
        Path(file).write_text(json.dumps(found, indent=1))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
