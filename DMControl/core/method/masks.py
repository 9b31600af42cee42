"""Which pixels are hidden: cubes of patch x patch pixels x block frames, or only patches (spatial), or only frames (temporal).

A mask is 1 where a pixel is hidden.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError, nearest

STRATEGIES = ("cube", "spatial", "temporal")


@dataclass(frozen=True)
class Masks:
    """Draws masks over windows of `window` square frames of `size` pixels."""

    window: int  # K
    size: int  # H = W, before any crop
    patch: int  # h = w of a cube
    block: int  # k, frames of a cube
    ratio: float  # share of the cells that is hidden
    strategy: str = "cube"
    count_kept: bool = False  # round down the number of kept cells, not that of hidden ones
    ratio_per_block: bool = True  # the ratio is exact in each temporal block; false: in the whole window

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UserError(f"mlr.mask.strategy={self.strategy} is unknown: {nearest(self.strategy, STRATEGIES)}")
        if not 0 < self.ratio < 1:
            raise UserError(f"mlr.mask.ratio={self.ratio} must lie between 0 and 1, both excluded")
        if self.size % self.patch:
            raise UserError(f"mlr.mask.patch={self.patch} does not divide the frame of {self.size} pixels")
        if self.window % self.block:
            raise UserError(f"mlr.window={self.window} (K) is not a multiple of mlr.mask.block={self.block}")
        total = self.cells**2 if self.ratio_per_block else self.blocks * self.cells**2
        if self.strategy == "temporal":
            total = self.blocks
        elif self.strategy == "spatial":
            total = self.cells**2
        if not 0 < self.hidden_of(total) < total:
            raise UserError(
                f"mlr.mask.ratio={self.ratio} of {total} {self.strategy} cells hides {self.hidden_of(total)}: "
                "choose a ratio, patch or block that hides some and keeps some"
            )

    @property
    def cells(self) -> int:
        return self.size // self.patch

    @property
    def blocks(self) -> int:
        return self.window // self.block

    def hidden_of(self, total: int) -> int:
        noise = 1e-9  # 0.29 * 100 is a little less than 29
        return total - int((1 - self.ratio) * total + noise) if self.count_kept else int(self.ratio * total + noise)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n masks at cell resolution: (n, K, cells, cells), bool."""
        device, cells, blocks = generator.device, self.cells**2, self.blocks

        def hide(rows: int, total: int) -> Tensor:  # exactly hidden_of(total) of each row, uniformly
            order = torch.rand(rows, total, generator=generator, device=device).argsort(1).argsort(1)
            return order < self.hidden_of(total)

        if self.strategy == "cube" and self.ratio_per_block:
            hidden = hide(n * blocks, cells)
        elif self.strategy == "cube":
            hidden = hide(n, blocks * cells)
        elif self.strategy == "spatial":  # one map for every frame of the window
            hidden = hide(n, cells).view(n, 1, cells).expand(n, blocks, cells)
        else:  # temporal: whole frames, in blocks
            hidden = hide(n, blocks).view(n, blocks, 1).expand(n, blocks, cells)
        hidden = hidden.reshape(n, blocks, self.cells, self.cells)
        return hidden.repeat_interleave(self.block, 1)

    def pixels(self, cells: Tensor) -> Tensor:
        """(n, K, cells, cells) -> (n, K, size, size)."""
        return cells.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
