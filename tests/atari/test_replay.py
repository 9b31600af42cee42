"""The prioritised replay against slow and obvious implementations."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from Atari.core.errors import UserError
from Atari.env import Step

ENDS = st.lists(st.sampled_from([0, 0, 0, 0, 1, 2]), min_size=30, max_size=90)


def frame_numbers(frames):
    """Which frame each entry of the stacks is, by its grey level; 0 is black. (N, S)"""
    pixels = frames.store[frames.index]  # (N, S, 1, size, size)
    assert (pixels == pixels[..., :1, :1]).all()
    return pixels[:, :, 0, 0, 0].tolist()


def slow_stack(log, j, depth):
    return [log.frame[j - back] if back <= log.age[j] else 0 for back in range(depth - 1, -1, -1)]


def assert_sample(replay, log, lost=0):
    """Every number of a batch, recomputed in plain Python. `lost`: transitions below it must not come."""
    depth, k, n = replay.stack, replay.window, replay.n_step
    batch = replay.sample(64, beta=0.5)
    obs, following, window = frame_numbers(batch.obs), frame_numbers(batch.next_obs), frame_numbers(batch.sequence.obs)
    for i, slot in enumerate(batch.slot.tolist()):
        j = max(x for x in range(slot, len(log.frame), replay.slots))
        assert lost <= j < len(log.frame) - replay.reserve
        assert obs[i] == slow_stack(log, j, depth)
        assert batch.action[i] == log.action[j]
        value, over, last = 0.0, False, j
        for step in range(n):
            value += 0.0 if over else replay.powers[step].item() * log.reward[j + step]
            over = over or log.done[j + step]
        assert batch.return_n[i].item() == pytest.approx(value, abs=1e-5)
        assert batch.done_n[i] == float(log.done[j] if replay.done_n_first_step else over)
        for step in range(max(k, n + 1)):
            if step < k:
                assert window[i * k + step] == slow_stack(log, last, depth)
                assert batch.sequence.action[i, step] == log.action[j + step]
                assert batch.sequence.done[i, step] == float(log.done[j + step])
                assert batch.sequence.reward[i, step] == log.reward[j + step]
            if step == n:
                assert following[i] == slow_stack(log, last, depth)
            if not log.done[last]:
                last += 1
    return batch


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=ENDS, n_step=st.integers(1, 6), window=st.integers(1, 8), stack=st.integers(1, 4), first=st.booleans())
def test_windows_returns_and_stacks(make_replay, story, ends, n_step, window, stack, first):
    replay = make_replay(n_step=n_step, window=window, stack=stack, done_n_first_step=first)
    log = story(replay, ends)
    assert_sample(replay, log)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=ENDS, capacity=st.integers(12, 40), stack=st.integers(1, 4))
def test_ring(make_replay, story, ends, capacity, stack):
    """After the ring came round, nothing that was overwritten is seen and every sound transition can come."""
    replay = make_replay(capacity=capacity, stack=stack)
    log = story(replay, ends)
    last_frame = len(ends) - (ends[-1] == 2)  # its number: a frame is pending unless the game is over
    lost = max(0, last_frame - replay.slots + stack) if last_frame >= replay.slots else 0
    assert_sample(replay, log, lost)
    alive = torch.nonzero(replay.leaf.flatten() > 0).flatten()
    wanted = sorted(j % replay.slots for j in range(lost, len(ends) - replay.reserve))
    assert alive.tolist() == wanted and len(replay) == len(wanted)
    assert len(ends) <= capacity or lost <= len(ends) - capacity  # the newest `capacity` are whole
    torch.testing.assert_close(replay.row_sum, replay.leaf.sum(1), rtol=1e-12, atol=0)


def test_long_ring(make_replay, story):
    """Several times round, with priorities that change in between."""
    replay = make_replay(capacity=50)
    ends = np.random.default_rng(0).choice([0, 0, 0, 0, 0, 1, 2], size=777).tolist()
    log = story(replay, ends)
    batch = assert_sample(replay, log, 777 - 54)
    replay.update_priorities(batch.slot, torch.linspace(0.1, 9, 64))
    assert_sample(replay, log, 777 - 54)


def test_newest_steps_cannot_be_sampled(make_replay, story):
    replay = make_replay(window=5, n_step=4)  # 1 + 4 + 5 = 10 of them
    story(replay, [0] * 10)
    assert len(replay) == 0
    with pytest.raises(UserError, match="needs more than 10"):
        replay.sample(2, 0.5)
    replay.add(0, Step(np.ones((4, 4, 1), np.uint8), 0.0, 0.0, False, False, False))
    assert set(replay.sample(32, 0.5).slot.tolist()) == {0}


def test_frequencies_match_priorities(make_replay, story):
    """Chi-square over many draws, for priorities of very different sizes, some of them zero."""
    replay = make_replay(alpha=0.5)
    story(replay, [0] * 208)  # 200 can be sampled
    priority = torch.from_numpy(np.random.default_rng(1).gamma(0.5, size=200))
    replay.update_priorities(torch.arange(200), priority)
    draws = 200_000
    counts = np.bincount(replay._draw(draws)[0].numpy(), minlength=200)
    assert counts.sum() == draws and len(counts) == 200
    mass = priority.pow(0.5).numpy()
    expected = draws * mass / mass.sum()
    big = expected > 20
    chi = ((counts[big] - expected[big]) ** 2 / expected[big]).sum()
    freedom = big.sum() - 1
    assert freedom - 5 * (2 * freedom) ** 0.5 < chi < freedom + 5 * (2 * freedom) ** 0.5


def test_draw_never_takes_a_leaf_without_mass(make_replay):
    replay = make_replay(capacity=196, stack=4)  # 200 slots
    for alive in ([0], [199], [3, 197], [100]):
        replay.leaf.zero_()
        replay.row_sum.zero_()
        replay._set_leaf(torch.tensor(alive), 1e-3)
        assert set(replay._draw(500)[0].tolist()) == set(alive)


def test_importance_weights(make_replay, story):
    replay = make_replay(alpha=0.5)
    story(replay, [0] * 40)
    priority = torch.linspace(0.01, 7, 32)
    replay.update_priorities(torch.arange(32), priority)
    for beta in (0.4, 1.0):
        batch = replay.sample(16, beta)
        raw = [(1 / (priority[j].item() ** 0.5 + 1e-5)) ** beta for j in batch.slot.tolist()]
        assert batch.weight.tolist() == pytest.approx([w / max(raw) for w in raw], rel=1e-5)
        assert torch.equal(batch.weight, batch.sequence.weight)


def test_new_samples_enter_at_one(make_replay, story):
    """At 1, not at the largest priority so far; and the given exponent is applied to new priorities."""
    replay = make_replay(alpha=0.5)
    story(replay, [0] * 20)
    replay.update_priorities(torch.tensor([0, 1]), torch.tensor([9.0, 0.25]))
    replay.add(0, Step(np.ones((4, 4, 1), np.uint8), 0.0, 0.0, False, False, False))
    assert replay.leaf.flatten()[:14].tolist() == pytest.approx([3.0, 0.5] + [1.0] * 11 + [0.0])


def test_first_of_two_equal_slots_counts(make_replay, story):
    replay = make_replay(alpha=1.0)
    story(replay, [0] * 20)
    replay.update_priorities(torch.tensor([5, 2, 5]), torch.tensor([4.0, 2.0, 8.0]))
    assert replay.leaf.flatten()[[5, 2]].tolist() == [4.0, 2.0]


def test_acting_sees_what_sampling_will_see(make_replay, story):
    """The newest observation is the one of the transition that is added next."""
    replay = make_replay()
    ends = [0, 0, 1, 0, 0, 0, 0, 2, 0, 1, 0]
    for count in range(1, len(ends)):
        if ends[count - 1] == 2:
            continue
        fresh = make_replay()
        log = story(fresh, ends[:count])
        seen = frame_numbers(fresh.newest())[0]
        full = story(make_replay(), ends)
        assert seen == slow_stack(full, count, replay.stack)
        assert log.frame == full.frame[:count]


def test_start_is_required_after_a_game(make_replay, story):
    replay = make_replay()
    story(replay, [0, 0, 2])
    with pytest.raises(UserError, match="start"):
        replay.add(0, Step(np.ones((4, 4, 1), np.uint8), 0.0, 0.0, False, False, False))


@pytest.mark.parametrize("more", [[], [0] * 7, [0, 1, 0, 2, 0, 0] * 9])
def test_saved_and_loaded(make_replay, story, more):
    """A second save writes new frames only, and a replay read back draws the same batches."""
    files = {}
    replay = make_replay(capacity=40)
    ends = np.random.default_rng(3).choice([0, 0, 0, 1, 2], size=60).tolist()
    story(replay, ends)
    replay.save_frames(lambda first, data, count: write_once(files, first, data, count))
    story_on(replay, more, ends[-1])
    segments = replay.save_frames(lambda first, data, count: write_once(files, first, data, count))
    assert sum(s["count"] for s in segments) <= replay.slots + 45  # old segments go
    state = replay.state_dict()
    other = make_replay(capacity=40, seed=9)
    other.load_state_dict(state, segments, lambda segment: files[segment["first"]])
    for mine, theirs in ((replay, other), (replay, other)):
        a, b = mine.sample(32, 0.6), theirs.sample(32, 0.6)
        assert torch.equal(a.slot, b.slot) and torch.equal(a.weight, b.weight) and torch.equal(a.return_n, b.return_n)
        assert torch.equal(a.sequence.obs.whole(), b.sequence.obs.whole()) and torch.equal(a.next_obs.whole(), b.next_obs.whole())
        assert torch.equal(a.sequence.action, b.sequence.action) and torch.equal(a.done_n, b.done_n)
        priority = torch.rand(32)
        mine.update_priorities(a.slot, priority)
        theirs.update_priorities(b.slot, priority)
    assert other.frames_added == replay.frames_added and other.pending == replay.pending


def write_once(files, first, data, count):
    assert first not in files
    files[first] = bytes(data)
    return {"first": first, "count": count}


def story_on(replay, ends, before):
    fresh = before == 2
    for j, end in enumerate(ends):
        if fresh:
            replay.start(np.full((4, 4, 1), 7, np.uint8))
        frame = np.full((4, 4, 1), 100 + j, np.uint8)
        replay.add(j % 3, Step(frame, 1.0, 1.0, end > 0, end == 1, end == 2))
        fresh = end == 2


def test_other_capacity_is_refused(make_replay, story):
    replay = make_replay(capacity=40)
    story(replay, [0] * 20)
    with pytest.raises(UserError, match="40"):
        make_replay(capacity=41).load_state_dict(replay.state_dict(), [], None)


def test_capacity_must_hold_a_window(make_replay):
    with pytest.raises(UserError, match="capacity"):
        make_replay(capacity=8, window=4, n_step=3)


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_no_loop_over_samples_or_levels_and_no_wait_for_the_device(make_replay, story):
    """The operations are the same few for any batch and any capacity, and none fetches a number."""
    counts = set()
    for capacity in (100, 5000):
        replay = make_replay(capacity=capacity)
        story(replay, [0] * 90)
        for n in (2, 32):
            with Operations() as seen:
                batch = replay.sample(n, 0.5)
                replay.update_priorities(batch.slot, batch.weight)
            counts.add(len(seen.names))
            assert not [name for name in seen.names if "_local_scalar_dense" in name or "nonzero" in name]
    assert len(counts) == 1 and counts.pop() < 150
