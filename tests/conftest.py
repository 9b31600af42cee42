"""Where the golden arrays are; one thread: scripts/test.sh runs a process per core."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(os.environ.get("MLR_GOLDEN") or Path(__file__).parent / "golden")
ROOT = Path(__file__).resolve().parents[1]


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
