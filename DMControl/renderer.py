"""Choose a headless renderer that works, before dm_control is imported."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .core.errors import UserError

BACKENDS = ("egl", "osmesa")
PACKAGES = {"egl": "libegl1 (and a driver: libegl-mesa0 for software)", "osmesa": "libosmesa6", "glfw": "libglfw3 and a display"}
PROBED = "MLR_RENDERER_PROBED"  # names a backend that has rendered a frame in this process or its parent
PROBE = """
import sys
from dm_control import suite
physics = suite.load("cartpole", "swingup").physics
for _ in range(int(sys.argv[1])):
    assert physics.render(32, 32, camera_id=0).std() > 0
physics.free()
"""
PATIENCE = 60.0  # seconds; a driver may hang instead of failing
NVIDIA_VENDOR = Path("/usr/local/nvidia/share/glvnd/egl_vendor.d/10_nvidia.json")  # where containers have it, and libEGL does not look
NVIDIA_DEVICE = Path("/dev/nvidia0")


def probe(backend: str, remedy: dict[str, str] | None = None, together: int = 1) -> str:
    """Render a frame in a subprocess, or 30 in each of several at once. Returns "" on success, else the last line of its errors."""
    environment = {**os.environ, **(remedy or {}), "MUJOCO_GL": backend}
    command = [sys.executable, "-c", PROBE, "1" if together == 1 else "30"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command, env=environment, **quiet) for _ in range(together)]
    deadline = time.monotonic() + PATIENCE
    reasons = [_reason(run, deadline) for run in runs]
    return next(filter(None, reasons), "")


def _reason(run: subprocess.Popen, deadline: float) -> str:
    try:
        _, errors = run.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        run.kill()
        return f"rendered no frame within {PATIENCE:.0f} seconds"
    said = [line for line in errors.splitlines() if line.strip()]
    return "" if run.returncode == 0 else said[-1].strip() if said else f"ended with code {run.returncode}"


def remedies(backend: str) -> Iterator[dict[str, str]]:
    """Variables to try, none first. Those of the user stay as they are."""
    yield {}
    if backend == "egl" and NVIDIA_VENDOR.exists():
        yield {"__EGL_VENDOR_LIBRARY_FILENAMES": str(NVIDIA_VENDOR)}
    if backend == "egl" and NVIDIA_DEVICE.exists():
        yield {"MUJOCO_EGL_DEVICE_ID": "0"}


def find(backend: str) -> tuple[dict[str, str], str]:
    """The variables with which this backend renders a frame; or {} and why it does not."""
    first = ""
    for remedy in remedies(backend):
        if not any(name in os.environ for name in remedy):
            reason = probe(backend, remedy)
            if not reason:
                return remedy | {"MUJOCO_GL": backend, PROBED: backend}, ""
            first = first or reason
    return {}, first


def choose_renderer() -> str:
    """Set MUJOCO_GL if the user has not: to EGL if it works here, else to OSMesa. Child processes inherit the choice."""
    chosen = os.environ.get("MUJOCO_GL")
    if chosen and os.environ.get(PROBED) == chosen:
        return chosen
    reasons = []
    for backend in (chosen,) if chosen else BACKENDS:
        variables, reason = find(backend)
        if not reason:
            os.environ.update(variables)
            return backend
        reasons.append(f"{backend}: {reason}")
    if chosen:
        package = PACKAGES.get(chosen, "one of egl, osmesa, glfw")
        raise UserError(f"MUJOCO_GL={chosen} does not render ({reason}): it needs {package}; or unset MUJOCO_GL")
    raise UserError(
        "no renderer works here: install libosmesa6 or libegl1 with libegl-mesa0 (Debian: apt-get install libosmesa6); "
        + "; ".join(reasons)
    )
