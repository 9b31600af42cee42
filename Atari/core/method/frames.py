"""Stacked observations by reference: each frame is stored once, and a stack reads its pixels when they are needed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..machine import refuse_in_recording


@dataclass(frozen=True)
class Frames:
    """N stacks of S frames. `index` says which frames of `store` make up each stack, oldest first."""

    store: Tensor  # (F, C, H, W), uint8 in the replay
    index: Tensor  # (N, S) int64

    def __len__(self) -> int:
        return self.index.shape[0]

    def __getitem__(self, part: slice) -> "Frames":
        return Frames(self.store, self.index[part])

    @property
    def channels(self) -> int:
        return self.index.shape[1] * self.store.shape[1]

    @property
    def device(self) -> torch.device:
        return self.index.device

    def repeat(self, times: int) -> "Frames":
        """Each stack `times` times in a row; only their indices are copied."""
        return Frames(self.store, self.index.repeat_interleave(times, 0))

    def gather(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Pixels (rows[n, y], columns[n, x]) of stack n: (N, S*C, h, w). rows: (N, h), columns: (N, w)."""
        whole = self.crop(rows, torch.zeros_like(rows[:, :1]), self.store.shape[3])  # (N, S*C, h, W)
        return whole.gather(3, columns[:, None, None].expand(*whole.shape[:3], -1))

    def crop(self, rows: Tensor, left: Tensor, width: int) -> Tensor:
        """Like gather, with `width` consecutive columns from `left`, (N, 1), so that each row is one run of bytes.

        rows (1, h) and left (1, 1) apply to all stacks.
        """
        _, channels, height, full = self.store.shape
        where = self.store.device
        if where != self.device:
            refuse_in_recording(self.device, "the replay is in RAM")
        plane = self.index.to(where)[:, :, None] * channels + torch.arange(channels, device=where)  # (N, S, C)
        start = plane.flatten(1)[:, :, None] * (height * full) + (rows * full + left).to(where)[:, None]  # (N, S*C, h)
        runs = self.store.view(-1).as_strided((self.store.numel() - width + 1, width), (1, 1))  # row i: the run that starts at byte i
        image = runs.index_select(0, start.view(-1)).view(*start.shape, width)
        return image.to(self.device, non_blocking=True)

    def whole(self) -> Tensor:
        """All pixels of the stacks, (N, S*C, H, W)."""
        _, _, height, width = self.store.shape
        return self.crop_at(0, 0, height, width)

    def centre_crop(self, size: int) -> Tensor:
        """The middle of the stacks, which the agent acts on: (N, S*C, size, size)."""
        _, _, height, width = self.store.shape
        return self.crop_at((height - size) // 2, (width - size) // 2, size, size)

    def crop_at(self, top: int, left: int, height: int, width: int) -> Tensor:
        rows = torch.arange(top, top + height, device=self.device)[None]
        return self.crop(rows, rows.new_full((1, 1), left), width)

    @staticmethod
    def of_images(images: Tensor) -> "Frames":
        """Images (N, C, H, W) as N stacks of one frame."""
        return Frames(images.contiguous(), torch.arange(len(images), device=images.device)[:, None])


def stack_index(frame: Tensor, age: Tensor, stack: int, ring: int) -> Tensor:
    """Slots of the `stack` frames that end at `frame`: (N, S), oldest first.

    `age` counts the steps since the episode's reset. Near the start of an episode the first frame is repeated.
    """
    back = torch.arange(stack - 1, -1, -1, device=frame.device)  # S-1, ..., 1, 0
    return (frame[:, None] - torch.minimum(back[None], age[:, None])) % ring
