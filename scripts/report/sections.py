"""The parts of README that scripts write: between `<!-- NAME: ... -->` and `<!-- end of NAME -->`."""

import re
from pathlib import Path

from DMControl.core.errors import UserError
from DMControl.core.run.files import write_whole


def fill(readme: Path, name: str, lines: list[str]) -> None:
    """Replace what stands between the marks; the marks stay."""
    text = readme.read_text()
    found = re.search(rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- end of {name} -->)", text, re.DOTALL)
    if found is None:
        raise UserError(f"{readme} has no marks <!-- {name}: ... --> and <!-- end of {name} -->")
    write_whole(readme, "".join([text[: found.start()], found[1], *(f"{line}\n" for line in lines), found[2], text[found.end() :]]))
