"""Errors that end a program with one clear line, exit code 1 or 2 and no traceback."""

import contextlib
import difflib
import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

EXIT_CODES = {"UserError": 2, "Failure": 1, "Crash": 1}
INTERRUPTED = "interrupted before the run started"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # exit code 1; other OSErrors: 2


class UserError(Exception):
    """A mistake that the user can correct. The message says what is wrong and what to do."""


class Failure(Exception):
    """A run cannot continue, and the user made no mistake. The message says why, what was saved, and where to look."""


class Crash(Exception):
    """The simulator or the renderer failed. A run recovers from it with a new environment."""


def crashing(method: Callable) -> Callable:
    """Decorator: an exception of the simulator or the renderer inside this method is raised as a Crash."""

    @functools.wraps(method)
    def guarded(*arguments: Any, **named: Any) -> Any:
        try:
            return method(*arguments, **named)
        except (Crash, UserError):
            raise
        except Exception as error:
            raise Crash(f"{type(error).__name__}: {error}") from error

    return guarded


def file_trouble(error: OSError) -> str:
    """The error and the file it concerns, in one phrase."""
    return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """A phrase that names the closest of the known words, for the end of an error message."""
    known = sorted(set(known))
    close = difflib.get_close_matches(str(word).lower(), known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(known)}" if len(known) <= 40 else f"{len(known)} are known, none of them close"


def run_main(main: Callable[[list[str]], int]) -> None:
    """Run an entry point and end the process with its exit code, even if its output cannot be written."""
    code = answer(main)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # at its end the interpreter would flush again, fail, and exit with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _complain(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def check_first(check: Callable[[list[str]], Any]) -> None:
    """Check the arguments before an entry point's slow imports: a mistake ends the process at once, and so does Ctrl-C from here on."""

    def checked(arguments: list[str]) -> int:
        check(arguments)
        return 0

    code = answer(checked)
    if code:
        sys.exit(code)
    leave_on_interrupt()


def leave_on_interrupt() -> None:
    """While libraries load, Ctrl-C ends the process in one line; later core.run.folder.Stop handles it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(*_: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)


def answer(main: Callable[[list[str]], int]) -> int:
    """Call an entry point. Known errors become one line on stderr and an exit code; --help prints the module's docstring."""
    if {"--help", "-h", "help"} & set(sys.argv[1:]):
        print((sys.modules["__main__"].__doc__ or "").strip())
        sys.exit(0)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # the name of a folder may contain bytes that are not text
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        _complain(INTERRUPTED)
        code = 130
    except MemoryError:
        _complain("error: out of memory: lower replay.capacity, chunk or a batch size, or use a larger machine")
        code = 1
    except BrokenPipeError:
        code = 141
    except OSError as error:
        _complain(f"error: {' '.join(file_trouble(error).split())}")
        code = 1 if error.errno in DISK_ERRORS else 2
    except Exception as error:
        code = EXIT_CODES.get(type(error).__name__)  # by name: a script may use both trees, and each has its own classes
        if code is None:
            raise
        _complain(f"error: {' '.join(str(error).split())}")
    return code
