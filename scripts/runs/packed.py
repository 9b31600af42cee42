"""Runs packed into a few files of limited size, to be taken from one machine to another.

A packed run can be entered into the ledger and its policy judged, but its training cannot go on: at preset paper networks and moments
take 210 MB (DMControl) or 2 GB (Atari), and the replay several hundred MB more. The networks that act take 18 or 7 MB at half precision.
"""

import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from DMControl.core.errors import UserError
from DMControl.core.run.checkpoint import Checkpoints
from DMControl.core.run.evaluation import PACKED
from DMControl.core.run.files import write_whole
from DMControl.core.run.paths import parse_path
from scripts.trees import TREES, tree_named

FILES, FILE_BYTES, ALL_BYTES = 7, 15_900_000, 62_000_000
RECORDS = ("config.yaml", "origin.json", "result.json", "train.csv", "eval.csv", "crash.log")
BLOCK = 512  # bytes of a header; contents are filled up to a multiple of it, and two end a file
NAME = re.compile(rf"({'|'.join(tree.name for tree in TREES)})(/[A-Za-z0-9][\w.,+-]*){{3}}")
POLICY = re.compile(rf"{PACKED}/step_\d+/\w+\.(pt|json)")

Parts = dict[str, bytes]  # files of a run by name


@dataclass
class Pack:
    """packed-1.tar, packed-2.tar, ... Each member goes into the first that has room."""

    folder: Path
    sizes: list[int] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, members: Parts) -> None:
        """Add all of these files or, if they do not fit, none."""
        sizes, places = list(self.sizes), []
        for data in members.values():
            size = BLOCK + -(-len(data) // BLOCK) * BLOCK
            place = next((i for i, used in enumerate(sizes) if used + size <= FILE_BYTES), len(sizes))
            sizes += [2 * BLOCK] * (place == len(sizes))
            sizes[place] += size
            places.append(place)
        if len(sizes) > FILES or max(sizes) > FILE_BYTES or sum(sizes) > ALL_BYTES:
            self.left_out += members
            return
        self.sizes = sizes
        for place, (name, data) in zip(places, members.items(), strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            with tarfile.open(self.folder / f"packed-{place + 1}.tar", "a", format=tarfile.USTAR_FORMAT) as archive:
                archive.addfile(member, io.BytesIO(data))


def pack(runs: list[Path], folder: Path, more: Parts | None = None) -> Pack:
    """These runs, and other small files. Records come first, then the policies of the runs that went furthest."""
    for old in folder.glob("packed-*.tar"):
        old.unlink()
    made = Pack(folder)
    for name, data in (more or {}).items():
        made.add({name: data})
    for run in runs:
        made.add({f"{short(run)}/{name}": (run / name).read_bytes() for name in RECORDS if (run / name).exists()})
    for run in sorted(runs, key=progress, reverse=True):
        if policy := policy_of(run):
            made.add({f"{short(run)}/{name}": data for name, data in policy.items()})
    return made


def short(run: Path) -> str:
    """The path of a run below the folder of all runs."""
    return "/".join(run.parts[-4:])


def progress(run: Path) -> tuple[bool, int]:
    """Finished runs are ahead of others, and those with more evaluations of those with fewer."""
    rows = (run / "eval.csv").read_text().count("\n") if (run / "eval.csv").exists() else 0
    return (run / "result.json").exists(), rows


def policy_of(run: Path) -> Parts:
    """The networks that act, from the newest save."""
    saved = Checkpoints(run / "checkpoint").load(("agent",), torch.device("cpu"))
    if saved is None:
        return {}
    networks = tree_named(parse_path(run).benchmark).acting(saved[1]["agent"])
    halved = {name: {k: v.half() if v.is_floating_point() else v for k, v in part.items()} for name, part in networks.items()}
    with tempfile.TemporaryDirectory() as place:
        made = Checkpoints(Path(place) / PACKED).save(saved[0]["step"], halved, [])
        return {str(file.relative_to(place)): file.read_bytes() for file in sorted(made.iterdir())}


def unpack(files: list[Path], runs: Path) -> list[str]:
    """Take the runs of packed files into the folder `runs`. Returns a line for each that was refused."""
    found: dict[str, Parts] = {}
    for file in files:
        for run, name, data in members(file):
            found.setdefault(run, {})[name] = data
    refused = []
    for run, parts in sorted(found.items()):
        try:
            new = wanted(runs / run, parts)
        except UserError as error:
            refused.append(str(error))
            continue
        for name, data in parts.items() if new else ():
            (runs / run / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(runs / run / name, data)
        print(f"{'taken in' if new else 'left as it is'}: {runs / run}")
    return refused


def members(file: Path) -> Iterator[tuple[str, str, bytes]]:
    """Run, name and content of each file that belongs to a run. What else a packed file may hold is not read."""
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                run, name = "/".join(member.name.split("/")[:4]), "/".join(member.name.split("/")[4:])
                if member.isfile() and NAME.fullmatch(run) and (name in RECORDS or POLICY.fullmatch(name)):
                    yield run, name, archive.extractfile(member).read()
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{file} cannot be read ({error}): copy it again") from error


def wanted(folder: Path, parts: Parts) -> bool:
    """Whether a packed run is to be written into this folder: not if the run there is already as far, or can resume."""
    if "config.yaml" not in parts:
        raise UserError(f"{folder} comes without its config.yaml, which is in another file of the pack: name them all")
    if not (folder / "config.yaml").exists():
        return True
    here = {name: (folder / name).read_bytes() for name in parts if (folder / name).exists()}
    old, new = here.get("eval.csv", b""), parts.get("eval.csv", b"")
    same = here["config.yaml"] == parts["config.yaml"] and begin(here) == begin(parts)
    if not same or not (old.startswith(new) or new.startswith(old)):
        raise UserError(f"{folder} holds another run: move it away")
    return (len(new) > len(old) or len(parts) > len(here)) and not (folder / "checkpoint").exists()


def begin(parts: Parts) -> list:
    """When and where the run began."""
    try:
        return json.loads(parts.get("origin.json", b"[]"))[:1]
    except ValueError:
        return []
