"""The commands of an installation by pip. Each is a module as `python -m` runs it."""

import runpy
import sys


def run(module: str) -> None:
    sys.path.insert(0, "")  # as `python -m` does, so that a package in this folder can register an environment
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def dmcontrol() -> None:
    run("DMControl.train")


def atari() -> None:
    run("Atari.train")


def ledger() -> None:
    run("scripts.ledger.collect")


def report() -> None:
    run("scripts.report.report")
