"""Arguments of the commands that do not train: key=value with defaults, and words without an equals sign."""

from collections.abc import Iterable

from ..errors import UserError, nearest


class Options:
    """The defaults, updated by the arguments. Arguments without an equals sign go to `words`, or are an error if words=False."""

    def __init__(self, arguments: Iterable[str], defaults: dict[str, str], words: bool = False) -> None:
        self.values, self.words = dict(defaults), []
        for argument in arguments:
            key, equals, value = argument.partition("=")
            if words and not equals:
                self.words.append(argument)
            elif key in defaults and value:
                self.values[key] = value
            else:
                names = ", ".join(defaults)
                raise UserError(f"argument {argument} is unknown: write key=value with one of {names}; {nearest(key, defaults)}")

    def __getitem__(self, key: str) -> str:
        return self.values[key]

    def whole(self, key: str, low: int = 0, high: int = 2**31 - 1) -> int:
        text = self.values[key]
        if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
            raise UserError(f"{key}={text} must be a whole number between {low} and {high}")
        return int(text)

    def flag(self, key: str) -> bool:
        text = self.values[key].lower()
        if text not in ("true", "false"):
            raise UserError(f"{key}={self.values[key]} must be true or false")
        return text == "true"

    def numbers(self, key: str) -> list[float]:
        try:
            return [float(part) for part in self.values[key].split(",")]
        except ValueError as error:
            raise UserError(f"{key}={self.values[key]} must be numbers such as 0.1,0.5") from error
