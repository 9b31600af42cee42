"""Images pass through the convolutions a chunk at a time, to save memory."""

from collections.abc import Iterator

import torch


def rows_of(n: int, chunk: int) -> Iterator[slice]:
    """Split n images into parts of `chunk`. Summed over the parts, the gradient is the same and needs less memory."""
    for start in range(0, n, chunk):
        yield slice(start, min(n, start + chunk))


def images_at_once(images: int, device: torch.device) -> int:
    """The setting `chunk`; 0 stands for the default of the device."""
    if images:
        return images
    return 128 if device.type == "cpu" else 1 << 30
