"""Which sizes fit together. Without torch, so that settings that do not fit are refused before it is imported."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError, nearest

STRATEGIES = ("cube", "spatial", "temporal")  # of masks
INDEXED = ("crop", "shift", "intensity")  # augmentations of our own
KORNIA = ("affine", "resized_crop", "blur")


@dataclass(frozen=True)
class Cells:
    """How a window of square frames is cut into cells, and how many of them a mask hides."""

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


def check_order(names: Sequence[str], size: int, out: int, resample: bool) -> None:
    """Check that these augmentations make what the encoder reads, of `out` pixels, from frames of `size` pixels."""
    for name in names:
        if name not in INDEXED + KORNIA:
            raise UserError(f"augmentation {name} is unknown: {nearest(name, INDEXED + KORNIA)}")
    side = size
    for name in names:
        if name == "crop" and side < out:
            raise UserError(f"crop of {out} pixels does not fit into frames of {side}")
        if name == "crop" and resample and names[0] != "crop":
            raise UserError(f"a resampled crop must come first, not as in {list(names)}: set quirks.resampled_crop=false")
        side = out if name in ("crop", "resized_crop") else side
    if side != out:
        raise UserError(
            f"augmentations {list(names)} leave {side} pixels where the encoder reads {out}: "
            "add crop or resized_crop, or set image.size equal to image.crop"
        )


def convolved(size: int, filters: Sequence[int], kernels: Sequence[int], strides: Sequence[int], same: bool) -> list[tuple[int, int]]:
    """For each convolution: the zeros around its input (as TensorFlow's SAME puts them if `same`), and the side of its output."""
    if not len(filters) == len(kernels) == len(strides) > 0:
        raise UserError(f"encoder: {list(filters)} filters, {list(kernels)} kernels, {list(strides)} strides must be equally many")
    out, side = [], size
    for kernel, stride in zip(kernels, strides, strict=True):
        zeros = max(0, (-(-side // stride) - 1) * stride + kernel - side) if same else 0
        side = (side + zeros - kernel) // stride + 1
        if side < 1:
            raise UserError(f"images of {size} pixels are too small for {len(filters)} convolutions of strides {list(strides)}")
        out.append((zeros, side))
    return out


def check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise UserError(f"mlr.decoder.width={width} is not a multiple of mlr.decoder.heads={heads}")


def varies(names: Sequence[str], size: int, out: int, pad: int, strength: float) -> bool:
    """Whether two views of an image can differ."""
    fixed = {"crop": size == out, "shift": pad == 0, "intensity": strength == 0}
    return any(not fixed.get(name, False) for name in names)
