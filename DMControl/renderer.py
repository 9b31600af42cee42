"""Choose a headless renderer that works, before dm_control is imported."""

import os
import subprocess
import sys

from .core.errors import UserError

BACKENDS = ("egl", "osmesa")
PACKAGES = {"egl": "libegl1 (and a driver: libegl-mesa0 for software)", "osmesa": "libosmesa6", "glfw": "libglfw3 and a display"}
PROBED = "MLR_RENDERER_PROBED"  # names a backend that has rendered a frame in this process or its parent
PROBE = """
from dm_control import suite
physics = suite.load("cartpole", "swingup").physics
assert physics.render(32, 32, camera_id=0).std() > 0
"""


def probe(backend: str) -> str:
    """Render a frame in a subprocess. Returns an empty string on success, else the last line of its error output."""
    environment = {**os.environ, "MUJOCO_GL": backend}
    try:
        run = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "rendered no frame within 300 seconds"
    if run.returncode == 0:
        return ""
    said = [line for line in run.stderr.splitlines() if line.strip()]
    return said[-1].strip() if said else f"ended with code {run.returncode}"


def choose_renderer() -> str:
    """Set MUJOCO_GL if the user has not: to EGL if it works here, else to OSMesa. Child processes inherit the choice."""
    chosen = os.environ.get("MUJOCO_GL")
    if chosen and os.environ.get(PROBED) == chosen:
        return chosen
    if chosen:
        reason = probe(chosen)
        if reason:
            package = PACKAGES.get(chosen, "one of egl, osmesa, glfw")
            raise UserError(f"MUJOCO_GL={chosen} does not render ({reason}): it needs {package}; or unset MUJOCO_GL")
        os.environ[PROBED] = chosen
        return chosen
    reasons = []
    for backend in BACKENDS:
        reason = probe(backend)
        if not reason:
            os.environ["MUJOCO_GL"] = os.environ[PROBED] = backend
            return backend
        reasons.append(f"{backend}: {reason}")
    raise UserError(
        "no renderer works here: install libosmesa6 or libegl1 with libegl-mesa0 (Debian: apt-get install libosmesa6); "
        + "; ".join(reasons)
    )
