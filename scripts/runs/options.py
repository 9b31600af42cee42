"""The options of a command, `--name VALUE` and `--flag`."""

from collections.abc import Iterable

from DMControl.core.errors import UserError, nearest


def take(arguments: list[str], options: dict[str, str], flags: dict[str, bool], others: Iterable[str] = ()) -> list[str]:
    """Put the values into `options` and `flags`, and return the other words. others: names that only a shell script reads."""
    words, rest = [], iter(arguments)
    for argument in rest:
        if argument in options:
            options[argument] = next(rest, "")
            if not options[argument] or options[argument].startswith("-"):
                raise UserError(f"{argument} needs a value")
        elif argument in flags:
            flags[argument] = True
        elif argument.startswith("-"):
            raise unknown(argument, [*options, *flags, *others])
        else:
            words.append(argument)
    return words


def unknown(argument: str, known: Iterable[str]) -> UserError:
    return UserError(f"option {argument} is unknown: {nearest(argument, known)}")
