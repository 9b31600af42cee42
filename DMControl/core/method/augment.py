"""Augmentations, in the order in which the user lists them.

crop, shift and intensity are implemented here: any number of them in a row is one gather and one factor per image.
affine, resized_crop and blur come from kornia. `draw` makes the random choices and `view` applies them, so that an
update can draw once and then read its images in parts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ..machine import refuse_in_recording
from . import native
from .frames import Frames
from .geometry import INDEXED, KORNIA, check_order


@dataclass(frozen=True)
class Gather:
    """Consecutive crops, shifts and intensities: the pixels to read from each image, and its factor."""

    rows: Tensor  # (N, h)
    columns: Tensor  # (N, w)
    factor: Tensor | None  # (N,)
    between: tuple[Tensor, Tensor] | None = None  # for bilinear reading: weights of the next row, (N, h), and column, (N, w)
    run: bool = False  # whether the columns are consecutive, so that each row is one run of bytes

    def __getitem__(self, part: slice) -> "Gather":
        factor = None if self.factor is None else self.factor[part]
        between = None if self.between is None else (self.between[0][part], self.between[1][part])
        return Gather(self.rows[part], self.columns[part], factor, between, self.run)


@dataclass(frozen=True)
class Library:
    """An augmentation of kornia with its drawn parameters."""

    layer: Callable[..., Tensor]
    parameters: dict[str, Tensor]

    def __getitem__(self, part: slice) -> "Library":
        batch = self.parameters["batch_prob"].shape[0]
        cut = {k: v[part] if v.ndim and v.shape[0] == batch else v for k, v in self.parameters.items()}
        if "forward_input_shape" in cut:
            shape = self.parameters["forward_input_shape"].clone()
            shape[0] = cut["batch_prob"].shape[0]
            cut["forward_input_shape"] = shape
        return Library(self.layer, cut)


@dataclass(frozen=True)
class MetaLayer:
    """Stands for an augmentation of kornia on `meta`, where kornia cannot run: it allocates as much memory."""

    side: int
    copies: int  # of the images, in addition to grid and result

    def __call__(self, image: Tensor, params: dict[str, Tensor]) -> Tensor:
        out = (*image.shape[:2], self.side, self.side)
        held = [torch.empty_like(image) for _ in range(self.copies)]  # noqa: F841  released on return
        grid = F.affine_grid(image.new_empty(len(image), 2, 3), out, align_corners=False)
        return F.grid_sample(image, grid, align_corners=False)


@dataclass(frozen=True)
class View:
    """The random choices for one augmented view of N images."""

    stages: tuple

    def __getitem__(self, part: slice) -> "View":
        return View(tuple(stage[part] for stage in self.stages))


@dataclass
class Augmentation:
    names: tuple[str, ...]
    size: int  # side of the frames in the replay
    out: int  # side of what the encoder reads
    pad: int = 4  # of shift
    strength: float = 0.05  # of intensity
    last_offset: bool = True  # whether the crop may lie at the far edge
    last_shift: bool = True  # whether the shift may be that far down or to the right
    together: bool = False  # whether all images of a batch have the same offsets
    resample: bool = False  # crop as kornia 0.4.1 did: bilinear, up to 0.16 pixels off
    dtype: torch.dtype = torch.float32  # of the views; the encoder's format saves it a conversion
    layers: dict[str, torch.nn.Module] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.names = tuple(self.names)
        check_order(self.names, self.size, self.out, self.resample)
        with torch.device("cpu"):  # kornia draws on the host even when the agent is built on `meta`
            self.layers = {name: _kornia_layer(name, self.out) for name in self.names if name in KORNIA}

    def draw(self, n: int, channels: int, generator: torch.Generator) -> View:
        """The random choices for n images."""
        device = generator.device

        def offsets(choices: int) -> Tensor:
            return torch.randint(0, choices, (1 if self.together else n, 1), generator=generator, device=device).expand(n, 1)

        stages, side = [], self.size
        rows = columns = torch.arange(side, device=device).expand(n, side)
        factor = between = None
        run = True
        for name in self.names:
            if name == "crop" and self.resample:
                choices = side - self.out + 1
                exact = [resampled(offsets(choices), side, self.out) for _ in range(2)]  # (N, out) each
                rows, columns = (position.floor().long() for position in exact)
                between = (exact[0] - rows, exact[1] - columns)
                side, run = self.out, False
            elif name == "crop":
                choices = max(1, side - self.out + self.last_offset)
                inner = torch.arange(self.out, device=device)
                rows, columns = rows.gather(1, inner + offsets(choices)), columns.gather(1, inner + offsets(choices))
                side = self.out
            elif name == "shift":  # replicate-pad, then crop to the same size
                inner = torch.arange(side, device=device) - self.pad
                choices = max(1, 2 * self.pad + self.last_shift)
                down, right = ((inner + offsets(choices)).clamp(0, side - 1) for _ in range(2))
                rows, columns = rows.gather(1, down), columns.gather(1, right)
                between = between and (between[0].gather(1, down), between[1].gather(1, right))
                run = False
            elif name == "intensity":  # x * (1 + strength * clip(N(0, 1), -2, 2)), one factor per image
                noise = torch.randn(n, generator=generator, device=device).clamp_(-2, 2)
                drawn = 1 + self.strength * noise
                factor = drawn if factor is None else factor * drawn
            else:
                stages += [Gather(rows, columns, factor, between, run), self._draw_kornia(name, (n, channels, side, side), generator)]
                side = self.out if name == "resized_crop" else side
                rows = columns = torch.arange(side, device=device).expand(n, side)
                factor = between = None
                run = True
        if not stages or factor is not None or self.names[-1] in INDEXED:
            stages.append(Gather(rows, columns, factor, between, run))
        return View(tuple(stages))

    def view(self, frames: Frames, view: View, hidden: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
        """The augmented frames, (N, C, out, out), values 0..255.

        hidden: (N, size, size) bool; before the augmentation these pixels become black, or fill, a uint8 value per colour of a frame.
        """
        first, *rest = view.stages
        image = _read(frames, first, torch.float32 if rest else self.dtype, hidden, fill)
        for stage in rest:
            if isinstance(stage, Library):
                image = stage.layer(image / 255, params=stage.parameters) * 255
            else:
                image = _read(Frames.of_images(image), stage, torch.float32)
        return image

    def _draw_kornia(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Library:
        if generator.device.type == "meta":
            side = self.out if name == "resized_crop" else shape[-1]
            return Library(MetaLayer(side, 2 if name == "blur" else 0), {"batch_prob": torch.empty(shape[0], device="meta")})
        # kornia draws from torch's global stream: seed it from our stream, and restore it afterwards
        refuse_in_recording(generator.device, f"augmentation {name} draws on the host")
        seed = int(torch.randint(0, 2**31, (1,), generator=generator, device=generator.device))
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            parameters = self.layers[name].forward_parameters(torch.Size(shape))
        return Library(self.layers[name], {k: v.to(generator.device) for k, v in parameters.items()})


def resampled(offset: Tensor, size: int, out: int) -> Tensor:
    """The coordinate at which kornia 0.4.1 reads pixel i of a crop at `offset`; it mixes two conventions for the corners."""
    inner = (torch.arange(out, device=offset.device) + 0.5) * (out - 1) / out
    return ((inner + offset) * size / (size - 1) - 0.5).clamp(0, size - 1)


def _read(frames: Frames, stage: Gather, dtype: torch.dtype, hidden: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
    """The pixels of a stage times its factors, (N, C, h, w) in channels_last."""
    if stage.between is None:
        image = native.gather(frames, stage.rows, stage.columns, stage.run, dtype, stage.factor, hidden, fill)
        if image is not None:
            return image
        image = _take(frames, stage, stage.rows, stage.columns, hidden, fill)
    else:  # bilinear between four pixels
        down, right = stage.between[0][:, None, :, None], stage.between[1][:, None, None, :]
        below = (stage.rows + 1).clamp(max=frames.store.shape[2] - 1)
        beside = (stage.columns + 1).clamp(max=frames.store.shape[3] - 1)
        corners = [_take(frames, stage, r, c, hidden, fill) for r in (stage.rows, below) for c in (stage.columns, beside)]
        upper = corners[0] * (1 - right) + corners[1] * right
        lower = corners[2] * (1 - right) + corners[3] * right
        image = upper * (1 - down) + lower * down
    if stage.factor is not None:
        image = image * stage.factor[:, None, None, None]
    return image.to(dtype, memory_format=torch.channels_last)


def _take(frames: Frames, stage: Gather, rows: Tensor, columns: Tensor, hidden: Tensor | None, fill: Tensor | None) -> Tensor:
    def read(source: Frames) -> Tensor:
        return source.crop(rows, columns[:, :1], columns.shape[1]) if stage.run else source.gather(rows, columns)

    image = read(frames)  # (N, C, h, w)
    if hidden is None:
        return image
    covered = read(Frames.of_images(hidden[:, None]))
    if fill is None:
        return image.masked_fill_(covered, 0)
    return torch.where(covered, fill.repeat(image.shape[1] // len(fill))[:, None, None], image)


def _kornia_layer(name: str, out: int) -> torch.nn.Module:
    import kornia.augmentation as K  # takes seconds, and few runs use it

    if name == "affine":
        return K.RandomAffine(5.0, (0.14, 0.14), (0.9, 1.1), (-5.0, 5.0), p=1.0)
    if name == "resized_crop":
        return K.RandomResizedCrop((out, out), (0.8, 1.0), p=1.0, cropping_mode="resample")
    return K.RandomGaussianBlur((5, 5), (1.5, 1.5), p=1.0)
