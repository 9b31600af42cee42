"""Masks: exact ratio, constant cubes, independent blocks; uniform as the official generator's are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from DMControl.core.errors import UserError
from DMControl.core.method.masks import Masks


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def masks(draw, strategy="cube"):
    block, blocks = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    patch, cells = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    ratio = draw(st.floats(0.26, 0.74))
    return Masks(block * blocks, patch * cells, patch, block, ratio, strategy, count_kept=draw(st.booleans()))


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(0, 2**31), st.integers(1, 3))
def test_cube_masks(m, seed, n):
    cells = m.draw(n, generator(seed))
    assert cells.shape == (n, m.window, m.cells, m.cells) and cells.dtype == torch.bool
    total = m.cells**2
    expected = total - int((1 - m.ratio) * total + 1e-9) if m.count_kept else int(m.ratio * total + 1e-9)
    assert (cells.sum((2, 3)) == expected).all()  # exact in every frame, hence in every block
    per_block = cells.view(n, m.blocks, m.block, m.cells, m.cells)
    assert (per_block == per_block[:, :, :1]).all()  # constant in time within a cube
    pixels = m.pixels(cells)
    assert pixels.shape == (n, m.window, m.size, m.size)
    patches = pixels.view(n, m.window, m.cells, m.patch, m.cells, m.patch)
    assert (patches == patches[:, :, :, :1, :, :1]).all()  # and in space
    assert torch.equal(pixels[:, :, :: m.patch, :: m.patch], cells)


@pytest.mark.parametrize("percent", range(1, 100))
def test_the_ratio_is_not_floored_by_rounding(percent):
    assert Masks(4, 100, 10, 2, percent / 100).hidden_of(100) == percent


def test_blocks_are_independent_and_uniform():
    """Agreement of two blocks is what chance gives; each cell is hidden equally often."""
    m = Masks(window=16, size=100, patch=10, block=8, ratio=0.5)
    cells = m.draw(4000, generator(1)).float()
    a, b = cells[:, 0], cells[:, 8]
    overlap = (a * b).sum((1, 2)).mean() / 100
    assert overlap == pytest.approx(0.25, abs=0.003)  # ratio^2
    frequency = cells[:, ::8].mean((0, 1))
    assert (frequency - 0.5).abs().max() < 5 * 0.5 / np.sqrt(8000)


def test_whole_window_ratio():
    m = Masks(window=8, size=20, patch=5, block=2, ratio=0.5, ratio_per_block=False)
    cells = m.draw(300, generator(0))
    per_block = cells[:, ::2].sum((2, 3))
    assert (per_block.sum(1) == 32).all()  # exact over the window
    assert per_block.float().std() > 0.5  # and free in each block


@settings(max_examples=20, deadline=None)
@given(masks("spatial"), st.integers(0, 2**31))
def test_spatial_masks_never_change_in_time(m, seed):
    cells = m.draw(2, generator(seed))
    assert (cells == cells[:, :1]).all() and (cells[:, 0].sum((1, 2)) == m.hidden_of(m.cells**2)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_temporal_masks_hide_whole_frames(blocks, block, seed):
    m = Masks(blocks * block, 12, 4, block, 0.5, "temporal")
    cells = m.draw(3, generator(seed))
    assert (cells == cells[..., :1, :1]).all()
    assert (cells[:, ::block, 0, 0].sum(1) == int(0.5 * blocks)).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ratio": 0.0}, "between 0 and 1"),
        ({"ratio": 1.0}, "between 0 and 1"),
        ({"ratio": 0.001}, "hides 0"),
        ({"patch": 7}, "does not divide"),
        ({"block": 5}, "not a multiple"),
        ({"strategy": "cubes"}, "did you mean cube"),
    ],
)
def test_bad_values_say_what_is_wrong(change, says):
    values = {"window": 16, "size": 100, "patch": 10, "block": 8, "ratio": 0.5} | change
    with pytest.raises(UserError, match=says):
        Masks(**values)


@pytest.mark.golden
def test_statistics_of_the_official_generator(golden):
    g = golden("mask_stats")
    for case in sorted({k.split("/")[0] for k in g if k.startswith("case")}):
        patch, size, window, block, ratio = g[f"{case}/patch_img_clip_block_ratio"].tolist()
        m = Masks(int(window), int(size), int(patch), int(block), ratio)
        draws = m.draw(400, generator(3))
        fraction = g[f"{case}/masked_fraction_per_frame"]
        assert np.allclose(draws.float().mean((2, 3)).numpy(), fraction.flat[0], atol=1e-6)
        assert np.allclose(fraction, fraction.flat[0]) and fraction.shape[1] == m.window
        distinct = [len(torch.unique(d.flatten(1), dim=0)) for d in draws]
        assert set(distinct) == set(g[f"{case}/distinct_frame_masks"].tolist())
        assert g[f"{case}/first_draw_cells"].shape == draws.shape[1:]
        frequency = draws.float().mean((0, 1))
        assert (frequency - float(np.mean(g[f"{case}/mean_cell_mask"]))).abs().max() < 0.1
        overlap = (draws[:, 0].float() * draws[:, -1].float()).mean()
        assert float(overlap) == pytest.approx(float(g[f"{case}/mean_overlap_between_blocks"]), abs=0.02)
