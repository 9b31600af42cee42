"""An environment that may hang: its calls have a time limit, and a thread of their own that can be given up."""

import atexit
import contextlib
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import Crash

ALIVE: "weakref.WeakSet[TimedEnv]" = weakref.WeakSet()


@atexit.register
def close_all() -> None:
    for env in list(ALIVE):
        env.close()


class TimedEnv:
    """The environment that `make` returns. A method that takes longer than `limit` seconds raises a Crash.

    All methods run in one thread, since some renderers only draw in the thread that made them. After a Crash of this kind that
    thread is left alone, and further methods run in the caller's: they only read what the environment did before.
    """

    def __init__(self, make: Callable[[], Any], limit: float) -> None:
        self._limit, self._hangs = limit, False
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=serve, args=(self._calls, self._answers), name="environment", daemon=True).start()
        self._env = self._ask("start", make)
        ALIVE.add(self)

    def close(self) -> None:
        """Free what the environment draws with, in its thread. Renderers left to the garbage collector may wait for ever."""
        if not self._hangs:
            with contextlib.suppress(Crash):
                self._ask("close", self._env.close)

    def __del__(self) -> None:
        env = self.__dict__.pop("_env", None)
        if env is not None and not self._hangs:
            self._calls.put(env.close)
        self._calls.put(None)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._env, name)
        if not callable(value) or self._hangs:
            return value
        return lambda *arguments, **named: self._ask(name, lambda: value(*arguments, **named))

    def _ask(self, name: str, call: Callable[[], Any]) -> Any:
        self._calls.put(call)
        try:
            answer, error = self._answers.get(timeout=self._limit)
        except Empty:
            self._hangs = True
            raise Crash(f"no answer from the environment's {name} for {self._limit:g} seconds (env_timeout)") from None
        if error is not None:
            raise error
        return answer


def serve(calls: SimpleQueue, answers: SimpleQueue) -> None:
    while (call := calls.get()) is not None:
        try:
            answer = call(), None
        except BaseException as error:  # raised again in the thread that asked
            answer = None, error
        answers.put(answer)
        del call, answer
