"""Small animations of finished runs for README: figs/policies/<task>_<method>_<preset>.gif, under 1 MB each, with their caption inside.

scripts/policies.sh RUN_DIR ... [figs=figs]

The frames are those of the run's own video/final.mp4, the first seconds of it where it is long. `scripts/report.sh --readme README.md`
shows them all.
"""

import io
import json
from pathlib import Path

import imageio.v2 as imageio
from PIL import Image

from DMControl.core.errors import UserError, run_main
from scripts.report.data import method_name

ROOT = Path(__file__).resolve().parents[2]

LIMIT = 1_000_000  # bytes
SECONDS = 30  # of the episode at most
SIZES = ((176, 15), (144, 12), (128, 10), (96, 8), (72, 6))  # height in pixels, pictures per second; the first that fits is taken


def caption(run: Path, cut: bool) -> tuple[str, str]:
    """The file's name and what stands below it, from result.json. `cut`: the episode is longer than what is shown."""
    file = run / "result.json"
    if not file.exists():
        raise UserError(f"{run} has no result.json: is it a finished run's folder?")
    r = json.loads(file.read_text())
    task, step = (r["task"], f"{r['env_steps']:,} env steps") if "task" in r else (r["game"], f"{r['frames']:,} frames")
    mean = sum(r["eval_returns"]) / len(r["eval_returns"])
    name = "_".join([task, r["method"], r["preset"], *([r["name"]] if r["name"] else [])])
    part = f"{SECONDS} seconds of the first" if cut else "the first"
    shown = f"{mean:.0f} after {step}, mean of {len(r['eval_returns'])}; shown: {part}, {r['eval_returns'][0]:.0f}"
    return name, f"{task}, {method_name(r['method'])}, {r['preset']}, seed {r['seed']}: {shown}"


def shrink(pictures: list[Image.Image], fps: float, comment: str) -> bytes:
    for height, rate in SIZES:
        every = max(1, round(fps / rate))
        small = [p.resize((round(p.width * height / p.height), height), Image.Resampling.LANCZOS) for p in pictures[::every]]
        small = [p.quantize(64, dither=Image.Dither.NONE) for p in small]
        out = io.BytesIO()
        duration = max(20, round(1000 * every / fps))
        small[0].save(out, "GIF", save_all=True, append_images=small[1:], duration=duration, loop=0, comment=comment.encode())
        if out.tell() < LIMIT:
            return out.getvalue()
    raise UserError(f"{comment}: no size below {LIMIT:,} bytes")


def main(arguments: list[str]) -> int:
    figs, runs = ROOT / "figs", []
    for argument in arguments:
        if argument.startswith("figs="):
            figs = Path(argument.removeprefix("figs="))
        else:
            runs.append(Path(argument))
    if not runs:
        raise UserError("say which runs: scripts/policies.sh RUN_DIR ...")
    for run in runs:
        caption(run, cut=False)  # what is missing is said first
        film = run / "video" / "final.mp4"
        if not film.exists():
            raise UserError(f"{film} is not there: the run had eval.video=false")
        with imageio.get_reader(film) as reader:
            fps = reader.get_meta_data()["fps"]
            pictures = [Image.fromarray(f) for f, _ in zip(reader, range(round(SECONDS * fps)), strict=False)]
            name, text = caption(run, cut=reader.count_frames() > len(pictures))
        target = figs / "policies" / f"{name}.gif"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(shrink(pictures, fps, text))
        print(f"{target}: {target.stat().st_size / 1000:.0f} kB, {text}")
    return 0


if __name__ == "__main__":
    run_main(main)
