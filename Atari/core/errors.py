"""Mistakes of the user and ends of a run: one clear line, exit code 2 or 1, no traceback."""

import difflib
import errno
import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

ENDS = {"UserError": 2, "Failure": 1, "Crash": 1}  # exit codes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of the machine's making; any other error of a file is a mistake


class UserError(Exception):
    """Something the user can put right; its text says what and how."""


class Failure(Exception):
    """A run that cannot go on, by nobody's mistake; its text says why, what is kept, and where to look."""


class Crash(Exception):
    """The simulator or the renderer gave up."""


def crashing(method: Callable) -> Callable:
    """Whatever the simulator or the renderer raises inside this method becomes a Crash, which a run outlives."""

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
    """What went wrong with which file, in one phrase."""
    return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")


def nearest(word: str, known: Iterable[str], limit: int = 3) -> str:
    """A phrase that names the closest of the known words, for the end of an error message."""
    known = sorted(set(known))
    close = difflib.get_close_matches(str(word).lower(), known, n=limit, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(known)}" if len(known) <= 40 else f"{len(known)} are known, none of them close"


def run_main(main: Callable[[list[str]], int]) -> None:
    """Run an entry point: a UserError becomes one line on stderr and exit code 2; --help prints the module's text."""
    if {"--help", "-h", "help"} & set(sys.argv[1:]):
        print((sys.modules["__main__"].__doc__ or "").strip())
        sys.exit(0)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a folder's name need not be text
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted before anything was begun", file=sys.stderr)
        code = 130
    except MemoryError:
        print("error: out of memory: lower replay.capacity, chunk or a batch size, or take another machine", file=sys.stderr)
        code = 1
    except BrokenPipeError:
        code = 141
    except OSError as error:
        print(f"error: {' '.join(file_trouble(error).split())}", file=sys.stderr)
        code = 1 if error.errno in FULL else 2
    except Exception as error:
        code = ENDS.get(type(error).__name__)  # by name: a script that works on both trees meets the errors of both
        if code is None:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)
