"""Programs under a time limit, even ones that hang in a driver and do not react to SIGTERM."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

SAVING = 25.0  # seconds that a program has to save and end after SIGTERM
GONE = 5.0  # seconds after SIGKILL; what is then still there waits in the kernel, and nothing ends it


class Program:
    """A program in a session of its own, so that its whole group can be ended. Its output goes to a file."""

    def __init__(self, command: list[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.begun, self.seconds = log, time.monotonic(), 0.0
        with open(log, "a") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )

    @property
    def code(self) -> int | None:
        """None while it runs."""
        code = self.process.poll()
        if code is not None and not self.seconds:
            self.seconds = time.monotonic() - self.begun
        return code

    def signal(self, number: int) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def lines(self) -> list[str]:
        """What it has said; of a progress bar the last state counts too."""
        text = self.log.read_text(errors="replace").replace("\r", "\n")
        return [line.rstrip() for line in text.splitlines() if line.strip()]


def wait(programs: Iterable[Program], seconds: float) -> bool:
    """Whether all have ended within this time."""
    deadline = time.monotonic() + seconds
    while any(program.code is None for program in programs):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def end(programs: list[Program], patience: float = SAVING) -> None:
    """Ask them to save and end; kill those that do not."""
    for program in programs:
        program.signal(signal.SIGTERM)
    if not wait(programs, patience):
        for program in programs:
            program.signal(signal.SIGKILL)
        wait(programs, GONE)


def run(command: list[str], log: Path, seconds: float) -> Program:
    """Run a program to its end, or for this long. Its log begins anew."""
    log.unlink(missing_ok=True)
    program = Program(command, log)
    try:
        wait([program], seconds)
    finally:
        end([program], patience=2.0)
    return program
