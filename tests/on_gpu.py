"""What tests that need a GPU share."""

from collections.abc import Callable
from typing import Any

import torch

from DMControl.core.machine import choose_device, choose_precision

FORBIDDEN = ("Memcpy HtoD", "Memcpy DtoH", "StreamSynchronize", "EventSynchronize")


def device() -> torch.device:
    """With fp32 as fp32: no shortened formats."""
    return choose_precision("fp32", choose_device("cuda")).device


def events(update: Callable[[], Any], times: int = 4) -> list[str]:
    """The names of what the host asked for and of what the GPU did. A call that waits for the GPU is an error."""
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(times):
                update()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    return [event.name for event in profile.events()]


def assert_recorded_without_copy_or_wait(agent: Any, replay: Any, step: int) -> None:
    """After some updates of each phase: graphs are launched, and nothing moves between host and device."""
    for _ in range(5 * agent.period):
        agent.update(replay, step)
    assert len(agent.recorder.recorded) == agent.period
    names = events(lambda: agent.update(replay, step), 2 * agent.period)
    assert sum("cudaGraphLaunch" in name for name in names) >= 2 * agent.period
    assert not [name for name in names if any(word in name for word in FORBIDDEN)]
