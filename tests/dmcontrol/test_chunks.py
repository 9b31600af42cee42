"""Chunks of episodes, against a slow reference that keeps every episode as a list."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from DMControl.core.errors import UserError
from DMControl.replay import Replay

CPU = torch.device("cpu")


def fill(capacity, episodes, stack=1):
    """A replay of episodes of these lengths. Its frames, actions and rewards are counted from 1."""
    replay = Replay(capacity, min(episodes), stack, 2, 1, CPU, torch.Generator().manual_seed(0))
    frames = steps = 0
    told = []  # of each episode: frames, actions, rewards
    for length in episodes:
        told.append(([], [], []))
        frames += 1
        replay.start(np.full((2, 2, 3), frames, np.uint8))
        for age in range(length):
            told[-1][0].append(frames)
            frames, steps = frames + 1, steps + 1
            replay.add(np.array([steps], np.float32), -float(steps), False, age == length - 1, np.full((2, 2, 3), frames, np.uint8))
            told[-1][1].append(steps)
            told[-1][2].append(-steps)
    return replay, told


def all_chunks(replay, told, length):
    """Every chunk that can be told from what the replay still holds: (frames, actions, rewards)."""
    found, number = set(), 0
    for frames, actions, rewards in told:
        for start in range(len(frames) - length + 1):
            begin = number + start
            if begin - (start > 0) >= replay.oldest:
                led = slice(start, start + length)
                found.add((tuple(frames[led]), tuple([0, *actions][led]), tuple([0, *rewards][led])))
        number += len(frames)
    return found


def drawn(replay, n, length):
    chunk = replay.sample_chunks(n, length)
    frames = chunk.obs.whole()[:, 0, 0, 0].view(length, n)
    return [
        (tuple(frames[:, b].tolist()), tuple(chunk.action[:, b, 0].int().tolist()), tuple(chunk.reward[:, b].int().tolist()))
        for b in range(n)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 6), st.integers(12, 40))
def test_chunks_are_those_of_the_reference(episodes, length, capacity):
    replay, told = fill(capacity, episodes)
    expected = all_chunks(replay, told, length)
    assert replay.holds_chunk(length) == bool(expected)
    if not expected:
        with pytest.raises(UserError, match=f"holds no {length} consecutive observations"):
            replay.require_chunk(length)
        return
    found = drawn(replay, 40 * len(expected), length)
    assert set(found) == expected  # the chance to miss one is below 1e-15


def test_all_chunks_are_equally_likely():
    replay, told = fill(40, [5, 9, 3])
    expected = all_chunks(replay, told, 4)
    found = drawn(replay, 8000, 4)
    assert len(expected) == 2 + 6
    assert all(found.count(chunk) == pytest.approx(1000, abs=150) for chunk in expected)


def test_an_action_stands_beside_the_picture_that_it_led_to():
    """And the last observation of an episode is in no chunk, as officially."""
    replay, _ = fill(40, [4])
    assert set(drawn(replay, 50, 3)) == {((1, 2, 3), (0, 1, 2), (0, -1, -2)), ((2, 3, 4), (1, 2, 3), (-1, -2, -3))}


def test_a_loaded_replay_draws_the_same():
    replay, _ = fill(20, [5, 9, 12])
    other = Replay(20, 5, 1, 2, 1, CPU, torch.Generator().manual_seed(0))
    files = []
    replay.save_frames(lambda first, data, count: files.append(bytes(data)) or {"first": first, "count": count, "file": len(files) - 1})
    other.load_state_dict(replay.state_dict(), replay.store.segments, lambda segment: files[segment["file"]])
    assert [other.holds_chunk(n) for n in (11, 12, 13)] == [replay.holds_chunk(n) for n in (11, 12, 13)] == [True, True, False]
    for r in (replay, other):
        r.generator.manual_seed(3)
    assert drawn(replay, 30, 4) == drawn(other, 30, 4)
