"""A run's saved state: written under a temporary name, synced, renamed; the newest sound one wins.

checkpoint/
  step_000012500/agent.pt, state.pt, manifest.json     tensors and plain values only
  frames/000000000-000003999.bin                       each frame once, shared by all saves that need it
"""

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from .errors import UserError

KEPT = 2  # saves; an older one is removed when a newer one is complete


class Checkpoints:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frames = folder / "frames"

    def save(self, step: int, parts: dict[str, dict[str, Any]], segments: list[dict[str, Any]]) -> Path:
        """Write the named parts; `segments` (from `write_frames`) says which frame files this save needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"step_{step:09d}"
        temporary = self.folder / f"tmp_{final.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        sums = {}
        for name, part in parts.items():
            path = temporary / f"{name}.pt"
            with open(path, "wb") as file:
                torch.save(part, file)
                file.flush()
                os.fsync(file.fileno())
            sums[path.name] = checksum(path)
        _write(temporary / "manifest.json", json.dumps({"step": step, "files": sums, "segments": segments}, indent=1))
        _sync(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        _sync(self.folder)
        self._forget()
        return final

    def write_frames(self, first: int, data: memoryview | bytes, count: int) -> dict[str, Any]:
        """Put `count` frames, the first of which has the number `first`, into a file of their own."""
        self.frames.mkdir(parents=True, exist_ok=True)
        path = self.frames / f"{first:09d}-{first + count - 1:09d}.bin"
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(self.frames)
        return {"file": path.name, "first": first, "count": count, "sha256": hashlib.sha256(data).hexdigest()}

    def read_frames(self, segment: dict[str, Any]) -> bytes:
        path = self.frames / Path(segment["file"]).name
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != segment["sha256"]:
            raise ValueError(f"{path} does not match its checksum")
        return data

    def frame_bytes(self) -> int:
        """What the frames take on disk already."""
        return sum(path.stat().st_size for path in self.frames.glob("*.bin"))

    def complete(self) -> list[Path]:
        """The saves, newest first."""
        return sorted((p for p in self.folder.glob("step_*") if (p / "manifest.json").exists()), reverse=True)

    def load(self, names: tuple[str, ...], device: torch.device) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
        """Manifest and parts of the newest save that is sound; None where there is no save at all."""
        broken = []
        for folder in self.complete():
            try:
                manifest = json.loads((folder / "manifest.json").read_text())
                parts = {name: load_file(folder / f"{name}.pt", manifest["files"][f"{name}.pt"], device) for name in names}
                if "state" in names:
                    for segment in manifest["segments"]:
                        if checksum(self.frames / Path(segment["file"]).name) != segment["sha256"]:
                            raise ValueError(f"frames {segment['file']} do not match their checksum")
            except (ValueError, KeyError, TypeError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                broken.append(f"{folder.name}: {str(error).splitlines()[0]}")
                continue
            if broken:
                print(f"checkpoint: passed over {'; '.join(broken)}; using {folder.name}", flush=True)
            return manifest, parts
        if broken:
            raise UserError(f"no sound checkpoint in {self.folder} ({'; '.join(broken)}): move the run folder away to start anew")
        return None

    def drop_replay(self) -> None:
        """After the end: keep the agent, let the replay's frames go."""
        shutil.rmtree(self.frames, ignore_errors=True)

    def _forget(self) -> None:
        kept, needed = 0, set()
        for folder in self.complete():
            try:
                files = {segment["file"] for segment in json.loads((folder / "manifest.json").read_text())["segments"]}
            except (ValueError, KeyError, TypeError):
                files = None  # damaged: of no use to anybody
            if files is None or kept == KEPT:
                shutil.rmtree(folder)
            else:
                kept, needed = kept + 1, needed | files
        for path in self.frames.glob("*"):
            if path.name not in needed:
                path.unlink()


def load_file(path: Path, expected: str, device: torch.device) -> dict[str, Any]:
    if checksum(path) != expected:
        raise ValueError(f"{path.name} does not match its checksum")
    return torch.load(path, map_location=device, weights_only=True)


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
