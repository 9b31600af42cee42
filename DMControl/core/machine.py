"""Device, number format, threads and memory of the machine at hand."""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from .errors import UserError

GIB = 2**30
VECTOR_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}  # of x86, best first


@dataclass(frozen=True)
class Precision:
    """The number format of convolutions and large matrix products; parameters, losses and statistics stay fp32."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name} is unknown: use auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is not supported: use auto, cpu, cuda or cuda:1")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={name}, but torch {torch.__version__} sees no GPU here: use device=cpu or install a CUDA build")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}, but this machine has {torch.cuda.device_count()} GPU(s)")
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes bf16. Elsewhere torch emulates it, about a hundred times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


def cpu_info(key: str) -> str:
    """An entry of /proc/cpuinfo for the first processor, such as "flags" or "model name"; "" where there is none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def cpu_flags() -> set[str]:
    return set(cpu_info("flags").split())


def vector_units() -> list[str]:
    """What the processor computes many numbers at once with, best first."""
    flags = cpu_flags()
    return [name for flag, name in VECTOR_UNITS.items() if flag in flags]


def planar_gradients(precision: Precision, filters: int) -> bool:
    """Whether training convolutions is faster with contiguous planes than with channels_last.

    This is the case for wide convolutions on x86 without AVX-512, where oneDNN's channels_last weight gradient is half as fast.
    """
    if precision.device.type != "cpu" or precision.dtype != torch.float32 or filters < 64:
        return False
    flags = cpu_flags()
    return "avx2" in flags and "avx512f" not in flags


def choose_precision(name: str, device: torch.device) -> Precision:
    if name not in ("auto", "fp32", "bf16"):
        raise UserError(f"precision={name} is unknown: use auto, fp32 or bf16")
    bf16 = name == "bf16" or (name == "auto" and has_bf16(device))
    if device.type == "cuda" and not bf16:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return Precision(device, torch.bfloat16 if bf16 else torch.float32)


def set_threads(threads: int) -> int:
    """Set the threads of torch and of the renderer. 0: one per core that this process may use, at most 16."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = threads or min(available, 16)
    torch.set_num_threads(threads)
    # Mesa's software renderer takes every core otherwise; 0: it draws in the calling thread, which saves waking another
    os.environ.setdefault("LP_NUM_THREADS", str(threads if threads > 1 else 0))
    return threads


def prepare(device: str, precision: str, threads: int) -> Precision:
    """Configure this process for training. The arguments are the settings of the same names."""
    chosen = choose_precision(precision, choose_device(device))
    keep_freed_memory()
    set_threads(threads)
    return chosen


def keep_freed_memory() -> None:
    """Let glibc keep freed memory. Returning large blocks to the kernel and getting them back takes half of a CPU update's time."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # a C library other than glibc
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)


class MetaGenerator(torch.Generator):
    """A CPU generator that reports `meta` as its device. Torch cannot make one for `meta`, but accepts this one there."""

    @property
    def device(self) -> torch.device:
        return torch.device("meta")


def make_generator(device: torch.device, seed: int) -> torch.Generator:
    """A random stream for the device."""
    generator = MetaGenerator() if device.type == "meta" else torch.Generator(device)
    return generator.manual_seed(seed)


def restore(generator: torch.Generator, state: torch.Tensor) -> None:
    """Restore a saved random stream. A stream of another kind of device cannot be continued, so it seeds a new one."""
    if len(state) == len(generator.get_state()):
        generator.set_state(state.cpu())
    else:
        generator.manual_seed(int.from_bytes(hashlib.sha256(bytes(state.cpu().tolist())).digest()[:7], "little"))
        print("random stream: saved on another kind of device, so it continues from a new seed", flush=True)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work. A CPU never has work outstanding."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class HostNeeded(RuntimeError):
    """Part of an update uses the host, so a CUDA graph cannot record it."""


def refuse_in_recording(device: torch.device, what: str) -> None:
    """Raise HostNeeded while a CUDA graph is recorded. CUDA would abort too, but leave streams, random numbers and memory unusable."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise HostNeeded(what)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on the GPU, or in RAM within the limit of this process's control group."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def require(device: torch.device, need: dict[str, int]) -> None:
    """Raise a UserError if the run does not fit into memory. On a GPU the replay does not count: it can be in RAM."""
    parts = {k: v for k, v in need.items() if not (k == "replay" and device.type == "cuda")}
    total, free = sum(parts.values()), free_memory(device)
    if total > free:
        where = f"memory of {device}" if device.type == "cuda" else "RAM"
        listed = ", ".join(f"{gigabytes(v)} {k}" for k, v in parts.items())
        raise UserError(
            f"this run needs about {gigabytes(total)} of {where} ({listed}), but {gigabytes(free)} are free: "
            "lower replay.capacity, chunk, a batch size or a width, or use a larger machine"
        )


def free_disk(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def gigabytes(count: int) -> str:
    return f"{count / GIB:.2f} GB" if count >= GIB // 10 else f"{count / 2**20:.1f} MB"


def describe(device: torch.device) -> str:
    """The hardware in a few words, as the ledger and the tables show it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = cpu_info("model name") or platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    vectors = "".join(f" with {unit}" for unit in vector_units()[:1])  # virtual machines may hide the model name
    return f"{name}{vectors}, {threads} thread{'s' * (threads > 1)}"
