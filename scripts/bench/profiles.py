"""Where the time of an update goes, operation by operation."""

from typing import Any

import torch
from torch.autograd import DeviceType

from DMControl.core import machine
from scripts.bench.subjects import Subject

UPDATES, ROWS = 3, 40


def profile(subject: Subject) -> str:
    """Two tables of some updates that are not recorded: operations as torch names them and, on a GPU, its kernels."""
    on_gpu, activities = subject.device.type == "cuda", [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(UPDATES):
            subject.update()
        machine.synchronize(subject.device)
    averages = found.key_averages()
    operations = [a for a in averages if a.device_type == DeviceType.CPU]
    kernels = [a for a in averages if a.device_type != DeviceType.CPU]
    text = table("operation", operations, "self_device_time_total" if on_gpu else "self_cpu_time_total")
    return f"{subject.tree.package}, {subject.config.method}, {subject.config.preset}, an update of {UPDATES}\n" + (
        text + (table("kernel", kernels, "self_device_time_total") if on_gpu else "")
    )


def table(title: str, averages: list[Any], time: str) -> str:
    """The slowest, with the milliseconds and calls of an update."""
    total = sum(getattr(a, time) for a in averages)
    slowest = sorted(averages, key=lambda a: getattr(a, time), reverse=True)[:ROWS]
    lines = [f"{'ms':>9} {'share':>6} {'calls':>7}  {title}"]
    for a in slowest:
        spent = getattr(a, time)
        lines.append(f"{spent / 1e3 / UPDATES:9.3f} {spent / max(total, 1e-9):6.1%} {a.count / UPDATES:7.1f}  {a.key[:110]}")
    return "\n".join(lines) + f"\n{total / 1e3 / UPDATES:9.3f} in all\n\n"
