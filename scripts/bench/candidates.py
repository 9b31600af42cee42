"""Other ways to do what may be slow on a GPU, each timed beside the way in use, which stands first.

They wait for a first measurement. Then the fastest replaces the way in use, or the candidate is deleted.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from DMControl.core import machine
from DMControl.core.method.encoder import Trunk
from DMControl.core.method.frames import Frames
from scripts.bench.subjects import Subject

REPEATS = 10

Group = dict[str, Callable[[], Any]]


def crops(frames: Frames, rows: Tensor, left: Tensor, width: int) -> Group:
    """The crops of a batch. index_select takes 64-bit numbers for a view that spans the whole replay."""
    store, channels, full = frames.store, frames.store.shape[1], frames.store.shape[3]
    word = torch.int32 if full % 4 == 0 else torch.uint8
    within = torch.arange(width, device=store.device)

    def lines() -> Tensor:  # the numbers of the lines to read, (N, S*C, h)
        plane = frames.index[:, :, None] * channels + torch.arange(channels, device=store.device)
        return plane.flatten(1)[:, :, None] * store.shape[2] + rows[:, None]

    def whole_lines() -> Tensor:
        number = lines()
        read = store.view(-1, full).view(word).index_select(0, number.view(-1)).view(torch.uint8).view(*number.shape, full)
        return read.gather(3, (left + within)[:, None, None].expand(*number.shape, -1))

    def pixel_by_pixel() -> Tensor:
        return store.view(-1)[(lines() * full + left[:, None])[..., None] + within]

    return {
        "crop: runs of bytes": lambda: frames.crop(rows, left, width),
        "crop: whole lines as words, then columns": whole_lines,
        "crop: pixel by pixel": pixel_by_pixel,
    }


def convolutions(image: Tensor, weight: Tensor, stride: Any) -> Group:
    """The first convolution, forward and backward, with its channels filled up to a multiple of 16."""
    more = -weight.shape[1] % 16

    def run(x: Tensor, w: Tensor) -> Tensor:
        w = w.detach().requires_grad_()
        F.conv2d(x, w, stride=stride).sum().backward()
        return w.grad

    def filled() -> Tensor:
        x, w = (F.pad(t, (0, 0, 0, 0, 0, more)).contiguous(memory_format=torch.channels_last) for t in (image, weight))
        return run(x, w)[:, : weight.shape[1]]

    return {"convolution: as it is": lambda: run(image, weight), "convolution: 16 channels": filled}


def choices(trunk: Trunk, image: Tensor) -> Group:
    """All convolutions, forward and backward, with the algorithms that cuDNN guesses or tries out."""

    def run(tried: bool) -> Tensor:
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, tried
        trunk.zero_grad()
        trunk(image).float().sum().backward()
        torch.backends.cudnn.benchmark = before
        return trunk.convs[0].weight.grad

    return {"trunk: cuDNN guesses": lambda: run(False), "trunk: cuDNN tries out": lambda: run(True)}


def groups(subject: Subject) -> list[Group]:
    config, agent = subject.config, subject.agent
    device, dtype, trunk = subject.device, subject.precision.dtype, agent.critic.encoder.trunk
    batch, width, n = subject.replay.sample(config.sac.batch_size).obs, config.image.crop, config.sac.batch_size
    top, left = torch.randint(0, config.image.size - width + 1, (2, n, 1), generator=agent.generator, device=device)
    image = batch.crop(top + torch.arange(width, device=device), left, width)
    cast = image.to(dtype, memory_format=torch.channels_last)
    weight = trunk.convs[0].weight.detach().to(dtype, memory_format=torch.channels_last)
    rows = top + torch.arange(width, device=device)
    convolved = convolutions(cast, weight, trunk.convs[0].stride)
    return [crops(batch, rows, left, width), convolved, choices(trunk, image)]


def milliseconds(call: Callable[[], Any], device: torch.device) -> float:
    for _ in range(3):
        call()
    machine.synchronize(device)
    start = time.perf_counter()
    for _ in range(REPEATS):
        call()
    machine.synchronize(device)
    return (time.perf_counter() - start) / REPEATS * 1e3


def compare(subject: Subject) -> str:
    """A line for each way, with a remark where its result is another."""
    lines = []
    for group in groups(subject):
        expected = next(iter(group.values()))().float()
        for name, call in group.items():
            apart = (call().float() - expected).abs().max() / expected.abs().max()
            remark = f"   off by {apart:.1e}" if apart > 0 else ""
            lines.append(f"{milliseconds(call, subject.device):9.3f} ms  {name}{remark}")
    return "\n".join(lines) + "\n"
