"""Files that are there as a whole, or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes | memoryview | str) -> None:
    """Replace the file, whatever interrupts it; two processes may do so at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # a full disk gets its room back
