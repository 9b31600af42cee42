"""figs/tensorboard.png: what TensorBoard shows of these runs, as headless Chromium draws it. Without --runs: of short runs of its own."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from DMControl.core.errors import UserError, run_main

ROOT = Path(__file__).resolve().parents[2]

BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
TABS = (("custom_scalars", 1500, 1000), ("hparams", 1500, 430), ("images", 1500, 560))  # tab, width, height


@contextmanager
def tensorboard(runs: Path) -> Iterator[str]:
    """A TensorBoard on a free port; gives its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", runs.name, "--port", "0", "--host", "127.0.0.1"]
    server = subprocess.Popen(command, cwd=runs.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for line in server.stderr:
            if found := re.search(r"at (http://\S+)", line):
                yield found[1].rstrip("/")
                return
        raise UserError(f"TensorBoard ended at once: {' '.join(command)} says why")
    finally:
        server.terminate()
        server.wait()


def short_runs(folder: Path) -> None:
    """Two methods, two seeds, both trees."""
    for module, key in (("DMControl.train", "task=cartpole_swingup"), ("Atari.train", "game=pong")):
        longer = ["env_steps=4000", "eval.every=500"] if module.startswith("DMC") else ["steps=600", "eval.every=50"]
        for method in ("mlr", "baseline"):
            for seed in (1, 2):
                choice = [key, f"method={method}", f"seed={seed}", "preset=debug", f"runs={folder}", "eval.video=false"]
                subprocess.run([sys.executable, "-m", module, *choice, *longer], cwd=ROOT, check=True)


def photograph(browser: str, address: str, tab: str, width: int, height: int, file: Path) -> None:
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb",
        f"--window-size={width},{height}", "--virtual-time-budget=30000", f"--screenshot={file}", f"{address}/?darkMode=false#{tab}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=180)


def main(arguments: list[str]) -> int:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise UserError("no Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as place:
        if arguments[:1] == ["--runs"] and len(arguments) == 2:
            runs = Path(arguments[1])
        elif not arguments:
            runs = Path(place) / "runs"
            short_runs(runs)
        else:
            raise UserError("write --runs DIR, or nothing")
        pictures = []
        with tensorboard(runs) as address:
            for tab, width, height in TABS:
                file = Path(place) / f"{tab}.png"
                photograph(browser, address, tab, width, height, file)
                pictures.append(Image.open(file).convert("RGB"))
        whole = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
        top = 0
        for picture in pictures:
            whole.paste(picture, (0, top))
            top += picture.height
        whole.quantize(128).save(ROOT / "figs" / "tensorboard.png", optimize=True)
    print(ROOT / "figs" / "tensorboard.png")
    return 0


if __name__ == "__main__":
    run_main(main)
