"""Our one-gather augmentations against kornia and against plain slicing."""

import kornia
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from DMControl.core.errors import UserError
from DMControl.core.method import native
from DMControl.core.method.augment import Augmentation, Gather, View, resampled
from DMControl.core.method.frames import Frames, stack_index


def frames(n: int, size: int, stack: int = 3, channels: int = 3, seed: int = 0) -> Frames:
    g = torch.Generator().manual_seed(seed)
    store = torch.randint(0, 256, (n + 5, channels, size, size), generator=g, dtype=torch.uint8)
    return Frames(store, torch.randint(0, n + 5, (n, stack), generator=g))


def test_gather_is_plain_slicing():
    f = frames(6, 11)
    image = f.crop_at(2, 3, 7, 5)
    for n in range(6):
        stacked = torch.cat([f.store[i, :, 2:9, 3:8] for i in f.index[n]])
        assert torch.equal(image[n], stacked)
    assert torch.equal(f.centre_crop(7), f.whole()[:, :, 2:9, 2:9])


def test_stack_index_repeats_the_first_frame():
    index = stack_index(torch.tensor([10, 11, 12, 13]), torch.tensor([0, 1, 2, 3]), 3, 100)
    assert index.tolist() == [[10, 10, 10], [10, 10, 11], [10, 11, 12], [11, 12, 13]]
    assert stack_index(torch.tensor([101]), torch.tensor([5]), 3, 100).tolist() == [[99, 0, 1]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 5))
def test_crop_is_kornias(seed, n, margin):
    """The crop at our offsets, cut out by kornia from the dense images."""
    size = 12
    f, a = frames(n, size + margin, seed=seed), Augmentation(("crop",), size + margin, size)
    view = a.draw(n, f.channels, torch.Generator().manual_seed(seed))
    ours = a.view(f, view)
    stage = view.stages[0]
    top, left = stage.rows[:, 0], stage.columns[:, 0]
    box = torch.stack([torch.stack([left, top], 1), torch.stack([left + size - 1, top], 1),
                       torch.stack([left + size - 1, top + size - 1], 1), torch.stack([left, top + size - 1], 1)], 1)  # fmt: skip
    theirs = kornia.geometry.transform.crop_by_indices(f.whole().float(), box.float(), (size, size))
    assert torch.equal(ours, theirs)


def test_crop_offsets_cover_the_range_and_the_quirk_drops_the_last():
    g = torch.Generator().manual_seed(0)
    for last, top in ((True, 16), (False, 15)):
        view = Augmentation(("crop",), 100, 84, last_offset=last).draw(4000, 9, g)
        rows, columns = view.stages[0].rows[:, 0], view.stages[0].columns[:, 0]
        assert rows.min() == columns.min() == 0 and rows.max() == columns.max() == top
        counts = torch.bincount(rows, minlength=top + 1).float()
        assert (counts - 4000 / (top + 1)).abs().max() < 5 * (4000 / (top + 1)) ** 0.5
        assert abs(torch.corrcoef(torch.stack([rows, columns]).float())[0, 1]) < 0.08  # rows and columns apart


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 4))
def test_shift_is_pad_and_crop(seed, n, pad):
    f, a = frames(n, 10, seed=seed), Augmentation(("shift",), 10, 10, pad=pad)
    view = a.draw(n, f.channels, torch.Generator().manual_seed(seed))
    padded = F.pad(f.whole().float(), (pad,) * 4, mode="replicate")
    ours = a.view(f, view)
    stage = view.stages[0]
    for i in range(n):
        found = [
            (y, x)
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
            if torch.equal(padded[i, :, y : y + 10, x : x + 10], ours[i].float())
        ]
        wanted = [
            (y, x)
            for y, x in found
            if (stage.rows[i] == (torch.arange(10) + y - pad).clamp(0, 9)).all()
            and (stage.columns[i] == (torch.arange(10) + x - pad).clamp(0, 9)).all()
        ]
        assert len(wanted) == 1


def test_shift_reaches_every_offset():
    view = Augmentation(("shift",), 10, 10, pad=4).draw(2000, 9, torch.Generator().manual_seed(0))
    middle = view.stages[0].rows[:, 5] - 5
    assert set(middle.tolist()) == set(range(-4, 5))


def test_intensity_is_kornias_multiplication():
    f, a = frames(50, 8), Augmentation(("intensity",), 8, 8, strength=0.05)
    view = a.draw(50, f.channels, torch.Generator().manual_seed(1))
    factor = view.stages[0].factor
    assert factor.min() >= 0.9 and factor.max() <= 1.1 and factor.std() == pytest.approx(0.05, rel=0.35)
    theirs = kornia.enhance.adjust_contrast(f.whole().float(), factor, clip_output=False)
    torch.testing.assert_close(a.view(f, view), theirs)


@pytest.mark.parametrize("fill", [None, torch.tensor([52, 78, 103], dtype=torch.uint8)])
def test_masked_pixels_are_filled_before_the_crop(fill):
    f = frames(4, 10)
    hidden = torch.rand(4, 10, 10, generator=torch.Generator().manual_seed(2)) < 0.5
    inner = torch.arange(6)
    view = View((Gather(inner + torch.tensor([[0], [1], [2], [4]]), inner + torch.tensor([[4], [0], [3], [1]]), None),))
    ours = Augmentation(("crop",), 10, 6).view(f, view, hidden, fill)
    colours = torch.zeros(9) if fill is None else fill.repeat(3)
    dense = torch.where(hidden[:, None], colours[:, None, None], f.whole())
    for i, (y, x) in enumerate([(0, 4), (1, 0), (2, 3), (4, 1)]):
        assert torch.equal(ours[i], dense[i, :, y : y + 6, x : x + 6].float())


NAMES = st.lists(st.sampled_from(["crop", "shift", "intensity", "affine", "resized_crop", "blur"]), min_size=0, max_size=4)


@settings(max_examples=30, deadline=None)
@given(NAMES, st.integers(0, 2**31))
def test_any_order_and_any_part(names, seed):
    """Whatever the order: the right shape, and a part of the view is the view of that part."""
    names = [*names, "crop"] if not {"crop", "resized_crop"} & set(names) else names
    if names.count("crop") + names.count("resized_crop") > 1 and names.index("crop" if "crop" in names else "resized_crop"):
        names = ["crop", *[n for n in names if n not in ("crop", "resized_crop")]]
    f, a = frames(5, 24, seed=seed), Augmentation(tuple(names), 24, 20)
    hidden = torch.rand(5, 24, 24, generator=torch.Generator().manual_seed(seed)) < 0.5
    view = a.draw(5, f.channels, torch.Generator().manual_seed(seed))
    whole = a.view(f, view, hidden)
    assert whole.shape == (5, 9, 20, 20)
    part = a.view(f[1:4], view[1:4], hidden[1:4])
    torch.testing.assert_close(part.float(), whole[1:4].float(), rtol=1e-5, atol=1e-3)
    again = a.view(f, a.draw(5, f.channels, torch.Generator().manual_seed(seed)), hidden)
    assert torch.equal(again, whole)  # the generator alone decides


def test_kornias_own_are_kornias():
    f, a = frames(3, 20), Augmentation(("affine",), 20, 20)
    view = a.draw(3, f.channels, torch.Generator().manual_seed(4))
    layer = view.stages[1]
    theirs = layer.layer(f.whole().float() / 255, params=layer.parameters) * 255
    torch.testing.assert_close(a.view(f, view), theirs)
    assert (a.view(f, view) - f.whole().float()).abs().max() > 10


@pytest.mark.parametrize(
    ("names", "size", "out", "says"),
    [(["krop"], 100, 84, "did you mean crop"), (["shift"], 100, 84, "leave 100 pixels"), (["crop"], 60, 84, "does not fit")],
)
def test_bad_values_say_what_is_wrong(names, size, out, says):
    with pytest.raises(UserError, match=says):
        Augmentation(names, size, out)


@pytest.mark.parametrize("hide", [False, True])
def test_resampled_crop_is_grid_sample_with_mixed_corners(hide):
    """kornia 0.4.1: the transform in the convention of aligned corners, the sampling in the other one."""
    size, out, n = 100, 84, 5
    f, a = frames(n, size), Augmentation(("crop",), size, out, resample=True)
    view = a.draw(n, f.channels, torch.Generator().manual_seed(3))
    hidden = torch.rand(n, size, size, generator=torch.Generator().manual_seed(2)) < 0.5 if hide else None
    offsets = torch.Generator().manual_seed(3)
    top, left = (torch.randint(0, 17, (n, 1), generator=offsets) for _ in range(2))
    unit = (2 * torch.arange(out) + 1) / out - 1  # pixel centres of the crop, corners not aligned

    def source(offset):  # (n, out) in -1..1
        pixel = (unit + 1) * (out - 1) / 2 + offset  # as if corners were aligned
        return 2 * pixel / (size - 1) - 1

    y, x = source(top), source(left)
    grid = torch.stack([x[:, None, :].expand(n, out, out), y[:, :, None].expand(n, out, out)], -1)
    dense = f.whole() if hidden is None else f.whole() * ~hidden[:, None]
    theirs = F.grid_sample(dense.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    ours = a.view(f, view, hidden)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-2)
    shift = resampled(torch.tensor([[16]]), size, out) - torch.arange(16, 100)
    assert shift.abs().max() == pytest.approx(0.16, abs=0.01)  # the size of the quirk
    torch.testing.assert_close(a.view(f[1:3], view[1:3], None if hidden is None else hidden[1:3]), ours[1:3])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 4), st.sampled_from([1, 3, 8]), st.integers(3, 40), st.data(), st.booleans(), st.booleans(),
    st.booleans(), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 2**31),
)  # fmt: skip
def test_the_compiled_gather_is_torchs(n, stack, channels, size, data, hide, filled, factors, dtype, seed):
    """Bit for bit, for any size and number of channels, columns in a run or not, hidden pixels and factors or not."""
    if native.compiled() is None:
        pytest.skip("no C compiler, or no AVX2")
    f, g = frames(n, size, stack, channels, seed), torch.Generator().manual_seed(seed)
    out = data.draw(st.integers(1, size))
    a = Augmentation(("crop", "shift") if data.draw(st.booleans()) else ("crop",), size, out, pad=2, dtype=dtype)
    view = a.draw(n, f.channels, g)
    stage = view.stages[0]
    factor = torch.rand(n, generator=g) * 3 if factors else None
    hidden = torch.rand(n, size, size, generator=g) < 0.5 if hide else None
    fill = torch.randint(0, 256, (channels,), generator=g, dtype=torch.uint8) if filled else None
    view = View((Gather(stage.rows, stage.columns, factor, None, stage.run),))
    ours = a.view(f, view, hidden, fill)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "compiled", lambda: None)
        theirs = a.view(f, view, hidden, fill)
    assert ours.dtype == theirs.dtype == dtype and torch.equal(ours, theirs)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_the_gather_is_compiled_where_a_compiler_is(tmp_path, monkeypatch):
    """In an empty cache, and not at all without a compiler."""
    if native.compiled() is None:
        pytest.skip("no C compiler, or no AVX2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.compiled.__wrapped__() is not None
    assert [p.suffix for p in (tmp_path / "mlr").iterdir()] == [".so"]
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert native.compiled.__wrapped__() is None
