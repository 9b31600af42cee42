"""The tests that need a GPU, each in a process of its own: a recording that fails leaves its process unusable."""

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.runs import processes
from scripts.runs.processes import Program, end

ROOT = Path(__file__).resolve().parents[2]
MARKED = re.compile(r'mark\.cuda\b|usefixtures\("device"\)')  # a test file that holds one of these has such tests
FIRST = ("recorded", "no_copy", "on_a_gpu", "stop")  # what matters most comes first, if time should run out
PYTEST = ["env", "OMP_NUM_THREADS=1", sys.executable, "-m", "pytest"]


@dataclass(frozen=True)
class Outcome:
    name: str
    word: str  # passed, failed, skipped, crashed, timed out, no time
    seconds: float
    said: list[str]  # its output, unless it passed

    def __str__(self) -> str:
        why = next((line for line in self.said if line.startswith("E  ")), "").removeprefix("E").strip()
        return f"{self.word:9s} {self.seconds:5.1f} s  {self.name}" + (f": {why[:160]}" if why else "")


def rank(name: str) -> int:
    return next((number for number, word in enumerate(FIRST) if word in name), len(FIRST))


def collect(folder: Path, seconds: float) -> tuple[list[str], str]:
    """The names of the tests, those that matter most first; and the last thing that pytest said."""
    files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "tests").rglob("test_*.py")) if MARKED.search(file.read_text())]
    program = processes.run([*PYTEST, "--collect-only", "-m", "cuda", *files], folder / "collected.txt", seconds)
    lines = program.lines()
    program.log.unlink()
    return sorted((line for line in lines if re.match(r"tests/\S+\.py::", line)), key=rank), lines[-1] if lines else ""


def one_of_each(names: list[str]) -> list[str]:
    """The first test of each file."""
    return list({name.partition("::")[0]: name for name in reversed(names)}.values())[::-1]


def outcome(name: str, program: Program) -> Outcome:
    lines, code = program.lines(), program.code
    found = [line.split()[0] for line in lines if re.match(r"(PASSED|FAILED|ERROR|SKIPPED)\b", line)]
    if code < 0:
        word = f"crashed (signal {-code})"
    else:
        word = {"PASSED": "passed", "SKIPPED": "skipped"}.get(found[-1] if found else "", "failed") if code == 0 else "failed"
    return Outcome(name, word, program.seconds, [] if word in ("passed", "skipped") else lines)


def run(names: list[str], folder: Path, seconds: float, side_by_side: int, told: Callable[[Outcome], None]) -> list[Outcome]:
    """Run the tests, several at a time, for at most this long; `told` hears of each as it ends."""
    deadline, waiting, running, found = time.monotonic() + seconds, list(names), {}, []

    def tell(one: Outcome) -> None:
        found.append(one)
        told(one)

    try:
        while (waiting or running) and time.monotonic() < deadline:
            while waiting and len(running) < side_by_side:
                name = waiting.pop(0)
                log = folder / f"test-{len(names) - len(waiting)}.log"
                running[name] = Program([*PYTEST, "-rA", "--tb=short", "-p", "no:xdist", name], log)
            for name in [name for name, program in running.items() if program.code is not None]:
                program = running.pop(name)
                tell(outcome(name, program))
                program.log.unlink()
            time.sleep(0.05)
    finally:
        end(list(running.values()), patience=1.0)
    for name, program in running.items():
        tell(Outcome(name, "timed out", time.monotonic() - program.begun, program.lines()))
        program.log.unlink()
    for name in waiting:
        tell(Outcome(name, "no time", 0.0, []))
    return found
