"""Atomic writing of files."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes | memoryview | str) -> None:
    """Replace a file atomically: an interruption leaves the old one. Two processes may write at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # after a failure: frees the disk
