"""Step arithmetic, timers, averages on the device, and the progress bar."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm import tqdm


class Every:
    """True once per `period`; never for period 0."""

    def __init__(self, period: int) -> None:
        self.period = period

    def __call__(self, count: int, step: int = 1) -> bool:
        """Whether a multiple of the period lies in (count - step, count]."""
        return self.period > 0 and count // self.period > (count - step) // self.period


class Until:
    """True while `count` is below the end."""

    def __init__(self, end: int) -> None:
        self.end = end

    def __call__(self, count: int) -> bool:
        return count < self.end


class Elapsed:
    """True once per `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True


class Timers:
    """Seconds per named section since the last reading."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def read(self) -> dict[str, float]:
        out, self.seconds = {f"time/{k}": v for k, v in self.seconds.items()}, {}
        return out


class Averages:
    """Means of metrics. The sums stay on the device, and `read` fetches all of them at once."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            if name in self.sums:
                self.sums[name] += value
                self.counts[name] += 1
            else:
                self.sums[name] = value.detach().clone()
                self.counts[name] = 1

    def read(self) -> dict[str, float]:
        if not self.sums:
            return {}
        names = list(self.sums)
        values = torch.stack([self.sums[n].float() for n in names]).tolist()
        out = {n: v / self.counts[n] for n, v in zip(names, values, strict=True)}
        self.sums, self.counts = {}, {}
        return out

    def state_dict(self) -> dict:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict, device: torch.device) -> None:
        self.sums = {k: v.to(device) for k, v in state["sums"].items()}
        self.counts = dict(state["counts"])


class Bar:
    """The progress bar. If stderr is not a terminal, it prints a line every 30 seconds."""

    def __init__(self, total: int, done: int, unit: str) -> None:
        watched = sys.stderr.isatty()
        self.bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            unit_scale=True,
            dynamic_ncols=watched,
            miniters=0,  # a step with thousands of updates shows that they go on
            mininterval=0.5 if watched else 30.0,
            maxinterval=60.0,
            ascii=not watched,
        )

    def advance(self, steps: int, **shown: str) -> None:
        if shown:
            self.bar.set_postfix(shown, refresh=False)
        self.bar.update(steps)

    def say(self, text: str) -> None:
        self.bar.write(text, file=sys.stdout)

    def close(self) -> None:
        self.bar.close()
