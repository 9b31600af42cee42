"""A document of lines, tables and figures, and how numbers are written in it."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from DMControl.core.run.files import write_whole
from scripts.report.data import Published, counted, spread

NO_RUN = "no run yet"


class Page:
    """The lines of a document, and where its figures go."""

    def __init__(self, results: Path, figs: Path, draws: bool = True, everything: bool = False) -> None:
        self.results, self.figs, self.draws = results, figs, draws
        self.everything = everything  # also rows and sections without a run
        self.lines: list[str] = []
        self.drawn: list[str] = []
        self.notes: list[str] = []

    def say(self, *lines: str) -> None:
        self.lines += [*lines, ""]

    def table(self, head: list[str], rows: list[list[str]]) -> None:
        self.lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]
        for number, text in enumerate(self.notes, 1):
            self.say(f"<sup>{number}</sup> {text}")
        self.notes.clear()

    def note(self, texts: list[str]) -> str:
        """Footnote numbers for a cell of the next table, which has the notes below it."""
        self.notes += [text for text in texts if text not in self.notes]
        return "".join(f" <sup>{self.notes.index(text) + 1}</sup>" for text in texts)

    def figure(self, name: str, caption: str, draw: Callable[..., None], *what: Any) -> None:
        if self.draws:
            draw(self.figs, name, *what)
        self.drawn.append(name)
        path = os.path.relpath(self.figs / f"{name}.png", self.results)
        self.say(f"![{caption}]({Path(path).as_posix()})")

    def write(self) -> None:
        """Write the text; delete figures of an earlier ledger that it no longer has."""
        ours = re.compile(r"((dmcontrol|atari)_.+_(aggregates_\d+|profile_\d+|improvement_\d+|curves_(steps|hours))|ablations)\.(png|svg)")
        for old in self.figs.glob("*.*"):
            if ours.fullmatch(old.name) and old.stem not in self.drawn:
                old.unlink()
        write_whole(self.results / "REPORT.md", "\n".join(self.lines).rstrip() + "\n")


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def ours_text(scores: list[float] | None, digits: int) -> str:
    """mean ± std (seeds)"""
    if not scores:
        return NO_RUN
    mean, std = spread(scores)
    return f"{mean:,.{digits}f}{'' if std is None else f' ± {number(std, digits)}'} ({counted(len(scores), 'seed')})"


def with_interval(value: float, bounds: tuple[float, float] | None, digits: int, sign: str = "") -> str:
    ends = "" if bounds is None else f" [{', '.join(f'{end:{sign},.{digits}f}' for end in bounds)}]"
    return f"{value:{sign},.{digits}f}{ends}"


def published_text(published: Published, budget: int, task: str, method: str, digits: int) -> str:
    score, std = (table.get((budget, task, method)) for table in (published.scores, published.stds))
    return "" if score is None else number(score, digits) + ("" if std is None else f" ± {number(std, digits)}")


def span(texts: list[str]) -> str:
    """From the first to the last."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"
