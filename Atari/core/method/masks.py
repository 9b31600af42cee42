"""Which pixels are hidden: cubes of patch x patch pixels x block frames, or only patches (spatial), or only frames (temporal).

A mask is 1 where a pixel is hidden.
"""

import torch
from torch import Tensor

from .geometry import Cells


class Masks(Cells):
    """Draws masks over windows of `window` square frames of `size` pixels."""

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
