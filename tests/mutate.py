"""Make the mistakes of tests/mutations in a copy of the code, one at a time: the test that stands beside each must fail.

python -m tests.mutate dmcontrol_curl atari_spr   # or: all

A file lists ten things that hold for a method, and mistakes in each: the text `old`, which `file` holds once, becomes `new`.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from DMControl.renderer import choose_renderer

ROOT, FOLDER = Path(__file__).resolve().parents[1], Path(__file__).parent / "mutations"
SLOW_IMPORTS = "torch._dynamo", "torch.utils.tensorboard", "cv2", "hydra", "hypothesis", "scipy.stats", "dm_control.suite", "ale_py"


@functools.cache
def read(name: str) -> list[dict]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def mutated(text: str, entry: dict) -> str:
    """The text of a file with the mistake in it."""
    if (count := text.count(entry["old"])) != 1:
        raise ValueError(f"{entry['file']} holds this {count} times, not once:\n{entry['old']}")
    return text.replace(entry["old"], entry["new"])


def copy_tracked(to: Path) -> None:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)


def failed(copy: Path, tests: list[str]) -> tuple[bool, str]:
    """Run tests of the copy in a process of their own. The second result is the first error, or all that pytest said if nothing ran."""
    log = copy / "said.txt"
    child = os.fork()
    if child == 0:
        import pytest

        os.chdir(copy)
        sys.path[0] = str(copy)
        for name in [name for name in sys.modules if name.split(".")[0] in ("DMControl", "tests")]:
            del sys.modules[name]  # the copy has its own
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            code = int(pytest.main(["-x", "-p", "no:xdist", *tests]))
            sys.stdout.flush()
            os._exit(code)
    code, said = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), log.read_text()
    if code not in (0, 1):  # neither passed nor failed
        raise RuntimeError(f"{' '.join(tests)} did not run:\n{said}")
    return code == 1, next((line[1:].strip() for line in said.splitlines() if line.startswith("E  ")), said)


def main(names: list[str]) -> int:
    sys.dont_write_bytecode = True  # a file may change twice within a second
    choose_renderer()  # once for all tests
    for name in SLOW_IMPORTS:
        __import__(name)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_tracked(copy)
        for name in names:
            entries = read(name)
            broken, said = failed(copy, sorted({entry["test"] for entry in entries}))
            if broken:
                raise SystemExit(f"{name}: its tests must pass before a mistake is made: {said}")
            found = [made(copy, name, entry) for entry in entries]
            print(f"{name}: {sum(found)} of {len(found)} mistakes caught", flush=True)
            missed += len(found) - sum(found)
    return int(missed > 0)


def made(copy: Path, name: str, entry: dict) -> bool:
    """Make one mistake, run its test, and undo it. Whether the test failed."""
    file, begin = copy / entry["file"], time.monotonic()
    text = file.read_text()
    file.write_text(mutated(text, entry))
    caught, said = failed(copy, [entry["test"]])
    file.write_text(text)
    how = f"{time.monotonic() - begin:.0f} s" + (f": {said[:80]}" if caught else "")
    print(f"{'caught' if caught else 'NOT CAUGHT':<12}{name} {entry['item']}: {entry['mistake']}  ({how})", flush=True)
    return caught


if __name__ == "__main__":
    every = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    wanted = every if sys.argv[1:] == ["all"] else sys.argv[1:]
    if not wanted or not set(wanted) <= set(every):
        raise SystemExit(f"usage: python -m tests.mutate all | {' | '.join(every)}")
    sys.exit(main(wanted))
