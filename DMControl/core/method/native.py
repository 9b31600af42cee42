"""gather.c: one pass over the pixels where torch takes several. It is compiled once; without a C compiler torch does the work."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from .. import machine
from .frames import Frames

SOURCE = Path(__file__).with_name("gather.c")
FORMATS = (torch.float32, torch.bfloat16)


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """The compiled file, or None if this machine cannot have it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or "avx2" not in machine.cpu_flags():
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlr"
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
        key = hashlib.sha256(SOURCE.read_bytes() + version + " ".join(sorted(machine.cpu_flags())).encode()).hexdigest()[:16]
        file = cache / f"gather-{key}.so"
        if not file.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as folder:  # renamed when complete: other runs may compile it too
                compile_to(Path(folder) / "gather.so", compiler)
                os.replace(Path(folder) / "gather.so", file)
        return ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError):
        return None


def compile_to(file: Path, compiler: str) -> None:
    """Threads come from the OpenMP that torch has loaded: a second one would compete for the cores."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    openmp = sorted({line.split()[-1] for line in maps if "/libgomp" in line})[:1]
    object_file = file.with_suffix(".o")
    options = ["-O3", "-march=native", "-fPIC", *(["-fopenmp"] if openmp else [])]
    subprocess.run([compiler, *options, "-c", str(SOURCE), "-o", str(object_file)], check=True, capture_output=True)
    subprocess.run([compiler, "-shared", str(object_file), *openmp, "-o", str(file)], check=True, capture_output=True)


def gather(
    frames: Frames,
    rows: Tensor,
    columns: Tensor,
    run: bool,
    dtype: torch.dtype,
    factor: Tensor | None = None,
    hidden: Tensor | None = None,
    fill: Tensor | None = None,
) -> Tensor | None:
    """Pixels (rows[n, y], columns[n, x]) of stack n times factor[n]: (N, C, h, w) in channels_last. None where it cannot be done.

    run: the columns of each n are consecutive. hidden: (N, H, W) bool, pixels that become black, or fill, a value per colour.
    """
    store, channels = frames.store, frames.channels
    device = frames.device
    here = device == store.device and device.type in ("cpu", "meta")  # run.memory counts on meta what the result takes
    if not here or store.dtype != torch.uint8 or dtype not in FORMATS or compiled() is None:
        return None
    out = torch.empty(len(frames), rows.shape[1], columns.shape[1], channels, dtype=dtype, device=device)
    if device.type == "meta":
        return out.permute(0, 3, 1, 2)
    planes = (frames.index[:, :, None] * store.shape[1] + torch.arange(store.shape[1])).flatten(1)  # (N, C)
    if hidden is not None:
        fill = torch.zeros(channels, dtype=torch.uint8) if fill is None else fill.repeat(channels // len(fill))
    given = [None if t is None else t.contiguous() for t in (store, planes, rows, columns, hidden, fill, factor)]
    at = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in (*given, out)]
    shape = (ctypes.c_int64 * 6)(len(frames), channels, *store.shape[2:], rows.shape[1], columns.shape[1])
    compiled().gather(*at[:4], int(run), *at[4:], int(dtype == torch.bfloat16), shape, torch.get_num_threads())
    return out.permute(0, 3, 1, 2)
