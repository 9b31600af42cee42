"""Mistakes of the user: one clear line, exit code 2, no traceback."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user can put right; its text says what and how."""


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
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted before anything was begun", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 141
    sys.exit(code)
