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

import torch

from .errors import UserError

GIB = 2**30


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
    """Whether bf16 is computed by the hardware: torch emulates it elsewhere, a hundred times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


def cpu_info(key: str) -> str:
    """What Linux says of the first processor under this word: "flags" of an x86, "model name"; nothing elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def cpu_flags() -> set[str]:
    return set(cpu_info("flags").split())


def planar_gradients(precision: Precision, filters: int) -> bool:
    """Whether convolutions that are trained run faster plane by plane than channels_last.

    So it is for wide ones on x86 without AVX-512: oneDNN's weight gradient reaches half the rate there.
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
    """Threads of torch and of the libraries beside it; 0 takes the cores this process may use, 16 at most."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = threads or min(available, 16)
    torch.set_num_threads(threads)
    os.environ.setdefault("LP_NUM_THREADS", str(threads))  # of Mesa's software renderer, which would take every core
    return threads


def prepare(device: str, precision: str, threads: int) -> Precision:
    """Set the process up for training; the arguments are the settings of these names."""
    chosen = choose_precision(precision, choose_device(device))
    keep_memory()
    set_threads(threads)
    return chosen


def keep_memory() -> None:
    """Let glibc keep what tensors give back: handing large blocks to the kernel and back costs half of a CPU update's time."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)


class MetaGenerator(torch.Generator):
    """One of the CPU that says it is on `meta`: torch makes none for that device, but takes this one there."""

    @property
    def device(self) -> torch.device:
        return torch.device("meta")


def make_generator(device: torch.device, seed: int) -> torch.Generator:
    """A random stream for the device."""
    generator = MetaGenerator() if device.type == "meta" else torch.Generator(device)
    return generator.manual_seed(seed)


def restore(generator: torch.Generator, state: torch.Tensor) -> None:
    """Put a saved random stream back. A stream of another kind of device cannot be continued: a new one is seeded from it."""
    if len(state) == len(generator.get_state()):
        generator.set_state(state.cpu())
    else:
        generator.manual_seed(int.from_bytes(hashlib.sha256(bytes(state.cpu().tolist())).digest()[:7], "little"))
        print("random stream: saved on another kind of device, so it goes on from a new seed", flush=True)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class HostNeeded(RuntimeError):
    """Part of an update goes through the host, so that no recording can hold it."""


def through_host(device: torch.device, what: str) -> None:
    """Say so before it happens: CUDA would break the recording off as well, but leave streams, random numbers and memory in disorder."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise HostNeeded(what)


def free_memory(device: torch.device) -> int:
    """Bytes that an allocation may still take: of the GPU, or of RAM (and of this process's control group)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def require(device: torch.device, need: dict[str, int]) -> None:
    """Refuse a run that cannot fit, before anything large is built. A replay that a GPU has no room for goes to RAM."""
    parts = {k: v for k, v in need.items() if not (k == "replay" and device.type == "cuda")}
    total, free = sum(parts.values()), free_memory(device)
    if total > free:
        where = f"memory of {device}" if device.type == "cuda" else "RAM"
        listed = ", ".join(f"{gigabytes(v)} {k}" for k, v in parts.items())
        raise UserError(
            f"this run needs about {gigabytes(total)} of {where} ({listed}), but {gigabytes(free)} are free: "
            "lower replay.capacity, chunk, a batch size or a width, or take another machine"
        )


def free_disk(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def gigabytes(count: int) -> str:
    return f"{count / GIB:.2f} GB" if count >= GIB // 10 else f"{count / 2**20:.1f} MB"


def describe(device: torch.device) -> str:
    """The hardware in a few words, for the ledger and the tables."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = cpu_info("model name") or platform.processor() or platform.machine()
    known = (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512-BF16"), ("avx512f", "AVX-512"), ("avx2", "AVX2"))
    flags, threads = cpu_flags(), torch.get_num_threads()
    vectors = next((f" with {label}" for flag, label in known if flag in flags), "")  # clouds hide the model's name
    return f"{name}{vectors}, {threads} thread{'s' * (threads > 1)}"
