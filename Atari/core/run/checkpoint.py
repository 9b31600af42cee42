"""Checkpoints: written under a temporary name, synced, then renamed. A resume takes the newest intact one.

checkpoint/
  step_000012500/agent.pt, state.pt, manifest.json     only tensors and plain values
  frames/000000000-000003999.bin                       each frame once, shared by all checkpoints that need it

A second checkpoint of the same step is called step_000012500-1. Older checkpoints are removed once a new one is complete.
"""

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from .files import write_whole

KEEP = 2  # number of checkpoints
FORMAT = 2  # version of the content; other versions are not read


class Checkpoints:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frames = folder / "frames"
        self.broken: set[str] = set()  # damaged checkpoints; they are removed once a new one is complete
        self.newest: int | None = None  # step of the checkpoint that this process wrote or read last

    def save(self, step: int, parts: dict[str, dict[str, Any]], segments: list[dict[str, Any]]) -> Path:
        """Write the named parts; `segments` (from `write_frames`) lists the frame files that this checkpoint needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = [_order(p)[1] for p in self.folder.glob("step_*") if _order(p)[0] == step]
        final = self.folder / (f"step_{step:09d}" + (f"-{max(numbers) + 1}" if numbers else ""))
        temporary = self.folder / f"tmp_{final.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            sums = {f"{name}.pt": _save(part, temporary / f"{name}.pt") for name, part in parts.items()}
            manifest = {"format": FORMAT, "step": step, "files": sums, "segments": segments}
            write_whole(temporary / "manifest.json", json.dumps({"sha256": _manifest_checksum(manifest), **manifest}, indent=1))
            _sync(temporary)
            os.replace(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # after a failure: frees the disk
        _sync(self.folder)
        self.newest = step
        self._remove_old()
        return final

    def write_frames(self, first: int, data: memoryview | bytes, count: int) -> dict[str, Any]:
        """Write `count` frames, numbered from `first`, into a file."""
        self.frames.mkdir(parents=True, exist_ok=True)
        path = self.frames / f"{first:09d}-{first + count - 1:09d}.bin"
        write_whole(path, data)
        _sync(self.frames)
        return {"file": path.name, "first": first, "count": count, "sha256": hashlib.sha256(data).hexdigest()}

    def read_frames(self, segment: dict[str, Any]) -> bytes:
        path = self.frames / Path(segment["file"]).name
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != segment["sha256"]:
            raise ValueError(f"{path} does not match its checksum")
        return data

    def frame_bytes(self) -> int:
        """Bytes of frames already on disk."""
        return sum(path.stat().st_size for path in self.frames.glob("*.bin"))

    def complete(self) -> list[Path]:
        """The complete checkpoints, newest first."""
        return sorted((p for p in self.folder.glob("step_*") if (p / "manifest.json").exists()), key=_order, reverse=True)

    def load(self, names: tuple[str, ...] | None, device: torch.device) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
        """Manifest and the named parts, or all, of the newest intact checkpoint; None if there is none at all."""
        broken = []
        for folder in self.complete():
            try:
                manifest = read_manifest(folder)
                wanted = names or tuple(Path(file).stem for file in manifest["files"])
                parts = {name: load_file(folder / f"{name}.pt", manifest["files"][f"{name}.pt"], device) for name in wanted}
                if "state" in wanted:
                    for segment in manifest["segments"]:
                        if checksum(self.frames / Path(segment["file"]).name) != segment["sha256"]:
                            raise ValueError(f"frames {segment['file']} do not match their checksum")
            except torch.OutOfMemoryError:
                raise  # the checkpoint is intact
            except (ValueError, KeyError, TypeError, OSError, RuntimeError, EOFError) as error:
                broken.append(f"{folder.name}: {' '.join(str(error).split())[:200]}")
                continue
            if broken:
                print(f"checkpoint: passed over {'; '.join(broken)}; using {folder.name}", flush=True)
            self.broken, self.newest = {text.split(":")[0] for text in broken}, manifest["step"]
            return manifest, parts
        if broken:
            raise UserError(f"no sound checkpoint in {self.folder} ({'; '.join(broken)}): move the run folder away to start anew")
        if any(self.folder.glob("step_*")):
            raise UserError(f"no sound checkpoint in {self.folder} (no manifest.json): move the run folder away to start anew")
        return None

    def drop_replay(self) -> None:
        """Remove the replay's frames, once the run has finished."""
        shutil.rmtree(self.frames, ignore_errors=True)

    def _remove_old(self) -> None:
        keep, needed = set(), set()  # names of checkpoints and of frame files
        for folder in self.complete():
            try:
                files = {segment["file"] for segment in read_manifest(folder)["segments"]}
            except (ValueError, KeyError, TypeError, OSError):
                continue  # damaged
            if len(keep) < KEEP and folder.name not in self.broken:
                keep.add(folder.name)
                needed |= files
        for folder in [*self.folder.glob("step_*"), *self.folder.glob("tmp_*")]:
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)
        for path in self.frames.glob("*"):
            if path.name not in needed:
                path.unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "manifest.json").read_text())
    if not isinstance(manifest, dict):
        raise ValueError("manifest.json holds no manifest")
    if manifest.get("format") != FORMAT:
        raise ValueError("written by another version of this code")
    if manifest.pop("sha256", None) != _manifest_checksum(manifest):
        raise ValueError("manifest.json does not match its checksum")
    return manifest


def load_file(path: Path, expected: str, device: torch.device) -> dict[str, Any]:
    if checksum(path) != expected:
        raise ValueError(f"{path.name} does not match its checksum")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path.name} holds more than tensors and plain values, and was not read") from error
    except (torch.OutOfMemoryError, MemoryError, OSError):
        raise
    except Exception as error:  # a file that is no pickle can raise anything
        raise ValueError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from error


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _HashedFile:
    """A file that is hashed while it is written."""

    def __init__(self, file: Any) -> None:
        self.file, self.sha256 = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(part: dict[str, Any], path: Path) -> str:
    with open(path, "wb") as file:
        hashed = _HashedFile(file)
        try:
            torch.save(part, hashed)
        except RuntimeError as error:  # torch replaces the OSError of a failed write
            raise hashed.error or error from None
        file.flush()
        os.fsync(file.fileno())
    return hashed.sha256.hexdigest()


def _manifest_checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _order(folder: Path) -> tuple[int, int]:
    """Step and number of a save: step_000012500-1 follows step_000012500."""
    step, _, number = folder.name.removeprefix("step_").partition("-")
    return (int(step), int(number or 0)) if step.isdigit() and (number or "0").isdigit() else (-1, 0)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
