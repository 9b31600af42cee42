"""An environment that may hang: its calls have a time limit, and a thread of their own that can be given up."""

import atexit
import contextlib
import faulthandler
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import Crash

ALIVE: "weakref.WeakSet[TimedEnv]" = weakref.WeakSet()
SLICES = 10


def close_all() -> None:
    for env in list(ALIVE):
        env.close()


def close_all_first() -> None:
    """Run close_all before all exit handlers that are registered by now: a renderer's would free it in the wrong thread."""
    atexit.unregister(close_all)
    atexit.register(close_all)


class TimedEnv:
    """The environment that `make` returns. A method that takes longer than `limit` seconds raises a Crash.

    All methods run in one thread, since some renderers only draw in the thread that made them. After a Crash of this kind that
    thread is left alone, and further methods run in the caller's: they only read what the environment did before.

    A method that computes for ever in C and keeps the interpreter's lock leaves no thread to raise anything. Then the operating
    system ends the process, once it has computed for `limit` seconds on each core, with a traceback of all threads.
    """

    def __init__(self, make: Callable[[], Any], limit: float) -> None:
        self._limit, self._hangs, self._closed = limit, False, False
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        faulthandler.register(signal.SIGPROF, file=2, chain=True)  # for cpu_limit; sys.stderr may have no descriptor, as in a notebook
        self._thread = threading.Thread(target=serve, args=(self._calls, self._answers), name="environment", daemon=True)
        self._thread.start()
        self._called: set[str] = set()
        self._env = self._ask("start", make)
        ALIVE.add(self)

    def close(self) -> None:
        """Free what the environment draws with, in its thread. Renderers left to the garbage collector may wait for ever."""
        if not self._hangs and not self._closed:
            self._closed = True
            with contextlib.suppress(Exception):
                self._ask("close", self._env.close)

    def __del__(self) -> None:
        if "_env" in self.__dict__ and threading.current_thread() is not self._thread:
            self.close()
        self._calls.put(None)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._env, name)
        if not callable(value) or self._hangs:
            return value
        return lambda *arguments, **named: self._ask(name, lambda: value(*arguments, **named))

    def _ask(self, name: str, call: Callable[[], Any]) -> Any:
        self._calls.put(call)
        with cpu_limit(self._limit * (os.cpu_count() or 1)):
            answer, error = self._answer(name)
        if name not in self._called:  # it may have made a renderer
            self._called.add(name)
            close_all_first()
        if error is not None:
            raise error
        return answer

    def _answer(self, name: str) -> tuple[Any, BaseException | None]:
        for _ in range(SLICES):  # an hour for which the process was stopped counts as one slice
            with contextlib.suppress(Empty):
                return self._answers.get(timeout=self._limit / SLICES)
        self._hangs = True
        raise Crash(f"no answer from the environment's {name} for {self._limit:g} seconds (env_timeout)")


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """The operating system ends the process if it computes for longer than this in here, on all cores together."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def serve(calls: SimpleQueue, answers: SimpleQueue) -> None:
    while (call := calls.get()) is not None:
        try:
            answer = call(), None
        except BaseException as error:  # raised again in the thread that asked
            answer = None, error
        answers.put(answer)
        del call, answer
