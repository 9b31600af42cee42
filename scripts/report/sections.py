"""Parts of a document that a script writes: between `<!-- NAME: ... -->` and `<!-- end of NAME -->`."""

import re
from pathlib import Path

from DMControl.core.errors import UserError
from DMControl.core.run.files import write_whole


def fill(file: Path, name: str, lines: list[str]) -> None:
    """Replace what stands between the two comments."""
    text = file.read_text()
    found = re.search(rf"(<!-- {name}:[^\n]*-->\n).*?(<!-- end of {name} -->)", text, re.DOTALL)
    if found is None:
        raise UserError(f"{file} has no comments <!-- {name}: ... --> and <!-- end of {name} -->: put them where the lines shall stand")
    write_whole(file, "".join([text[: found.start()], found[1], *(f"{line}\n" for line in lines), found[2], text[found.end() :]]))
