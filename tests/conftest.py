"""Where the golden arrays are; one thread: scripts/test.sh runs a process per core."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(os.environ.get("MLR_GOLDEN") or Path(__file__).parent / "golden")
ROOT = Path(__file__).resolve().parents[1]

# on a GPU numbers compare only if fp32 stays fp32, and if no sum depends on which thread is first
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.deterministic = True


@pytest.fixture(scope="session")
def golden():
    """golden("dmc_mlr") gives the arrays of that file by name."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return {k: arrays[k] for k in arrays.files}

    return read


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config, items):
    if "slurm" not in config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(pytest.mark.skip(reason="sets up Slurm and takes minutes: ask for it with -m slurm"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    """Tensors that a test makes without naming a device are on this one."""
    torch.set_default_device(request.param)
    yield torch.device(request.param)
    torch.set_default_device(None)
