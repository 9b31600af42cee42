"""Weights of the golden files: a rule fills each tensor from its seed."""

import ast

import numpy as np
import torch
from torch import Tensor

CHUNK = 1 << 22


class Given:
    """The arrays of a golden file, and the tensors that its rule fills, on the device of the test."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.row = {str(name): i for i, name in enumerate(arrays["tensor_names"])}

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[key]).copy()).to(torch.get_default_device())

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def number(self, key: str) -> float:
        return float(self.arrays[key])

    def shape(self, name: str) -> tuple[int, ...]:
        return ast.literal_eval(f"({self.arrays['tensor_shapes'][self.row[name]]},)")

    def weight(self, name: str) -> Tensor:
        """Filled by the rule, and checked by its first numbers."""
        i = self.row[name]
        seed, offset, scale = (self.arrays[f"tensor_{what}"][i] for what in ("seeds", "offset", "scale"))
        filled = fill(self.shape(name), int(seed), float(offset), float(scale))
        first = self.arrays["tensor_first4"][i]
        assert np.array_equal(np.resize(filled.flatten()[:4].cpu().numpy(), 4), first), name
        return filled


def fill(shape: tuple[int, ...], seed: int, offset: float, scale: float) -> Tensor:
    """The file's rule: an integer hash of index and seed, in pieces that fit into the cache."""
    out = np.empty(int(np.prod(shape)), np.float32)
    for start in range(0, out.size, CHUNK):
        stop = min(out.size, start + CHUNK)
        h = np.arange(start, stop, dtype=np.uint32) * np.uint32(0x9E3779B1)
        h += np.uint32(seed * 0x85EBCA77 & 0xFFFFFFFF)
        h ^= h >> 15
        h *= np.uint32(0x2C1B3C6D)
        h ^= h >> 12
        h *= np.uint32(0x297A2D39)
        h ^= h >> 15
        out[start:stop] = offset + scale * (h / 2.0**32 * 2 - 1)
    return torch.from_numpy(out.reshape(shape)).to(torch.get_default_device())


def assert_close(ours: Tensor, theirs: Tensor | np.ndarray | float, tolerance: float = 1e-4) -> None:
    """Relative to the largest number of the array."""
    theirs = torch.as_tensor(np.asarray(theirs.cpu() if isinstance(theirs, Tensor) else theirs)).double()
    ours = ours.detach().double().cpu()
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    difference = (ours - theirs).abs().max()
    assert difference <= tolerance * theirs.abs().max(), f"off by {difference:.3e}, largest {theirs.abs().max():.3e}"
