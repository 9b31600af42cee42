"""Stacked observations by reference: each frame is stored once, pixels are read when a view is drawn."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """N stacks of S frames. `index` says which frames of `store` make up each stack, oldest first."""

    store: Tensor  # (F, H, W, C), uint8 in the replay
    index: Tensor  # (N, S) int64

    def __len__(self) -> int:
        return self.index.shape[0]

    def __getitem__(self, part: slice) -> "Frames":
        return Frames(self.store, self.index[part])

    @property
    def channels(self) -> int:
        return self.index.shape[1] * self.store.shape[3]

    @property
    def device(self) -> torch.device:
        return self.index.device

    def gather(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Pixels (rows[n, y], columns[n, x]) of stack n, in one index gather.

        rows: (N, h), columns: (N, w), or (1, h), (1, w) for one choice for all. Returns (N, S*C, h, w) in channels_last order.
        """
        _, height, width, channels = self.store.shape
        n, stack = self.index.shape
        frame = self.index.to(self.store.device)[:, None, None, :] * (height * width)
        pixel = (rows * width)[:, :, None, None] + columns[:, None, :, None]
        pixel = frame + pixel.to(self.store.device)  # (N, h, w, S)
        taken = self.store.view(-1, channels).index_select(0, pixel.view(-1))
        image = taken.view(n, rows.shape[1], columns.shape[1], stack * channels)
        return image.to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    def whole(self) -> Tensor:
        """The stacks as they were observed, (N, S*C, H, W)."""
        _, height, width, _ = self.store.shape
        return self.crop_at(0, 0, height, width)

    def centre_crop(self, size: int) -> Tensor:
        """What the agent acts on, (N, S*C, size, size)."""
        _, height, width, _ = self.store.shape
        return self.crop_at((height - size) // 2, (width - size) // 2, size, size)

    def crop_at(self, top: int, left: int, height: int, width: int) -> Tensor:
        rows = torch.arange(top, top + height, device=self.device)[None]
        columns = torch.arange(left, left + width, device=self.device)[None]
        return self.gather(rows, columns)

    @staticmethod
    def of_images(images: Tensor) -> "Frames":
        """Dense images (N, C, H, W) seen as N stacks of one frame."""
        store = images.permute(0, 2, 3, 1).contiguous()
        return Frames(store, torch.arange(len(images), device=images.device)[:, None])


def stack_index(frame: Tensor, age: Tensor, stack: int, ring: int) -> Tensor:
    """Slots of the `stack` frames that end at `frame`: (N, S), oldest first.

    `age` counts the steps since the episode's reset: at its start the first frame is repeated, as the environment does.
    """
    back = torch.arange(stack - 1, -1, -1, device=frame.device)  # S-1, ..., 1, 0
    return (frame[:, None] - torch.minimum(back[None], age[:, None])) % ring
