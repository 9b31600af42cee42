"""The replay against a plain list of everything that happened."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from DMControl.core.errors import UserError
from DMControl.replay import Replay

SIZE, STACK, CAPACITY, EPISODE = 4, 3, 40, 7


class Recorder:
    """Feeds a replay and keeps each transition as the environment gave it, stacks and all."""

    def __init__(self, seed: int = 0, capacity: int = CAPACITY) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.replay = Replay(capacity, EPISODE, STACK, SIZE, 2, torch.device("cpu"), self.generator)
        self.rng = np.random.default_rng(seed)
        self.transitions: list[dict] = []
        self.episode = -1
        self.stack: list[np.ndarray] = []

    def frame(self) -> np.ndarray:
        return self.rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)

    def play(self, length: int, ended: bool = True, terminal: bool = False) -> None:
        self.episode += 1
        frame = self.frame()
        self.replay.start(frame)
        self.stack = [frame] * STACK
        for t in range(length):
            action, reward, following = self.rng.normal(size=2).astype(np.float32), float(self.rng.normal()), self.frame()
            last = ended and t == length - 1
            self.replay.add(action, reward, terminal and last, last, following)
            obs, self.stack = self.stack, [*self.stack[1:], following]
            self.transitions.append(
                {"obs": obs, "next": self.stack, "action": action, "reward": reward, "last": last,
                 "not_done": float(not (terminal and last)), "episode": self.episode}
            )  # fmt: skip

    def find(self, action: torch.Tensor) -> int:
        """Number of the transition with this action: actions are all different."""
        actions = np.stack([t["action"] for t in self.transitions])
        return int(np.flatnonzero((actions == action.numpy()).all(1))[0])


def dense(stack: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(stack, -1)).permute(2, 0, 1)


histories = st.lists(st.tuples(st.integers(1, EPISODE + 2), st.booleans()), min_size=3, max_size=25)


@settings(max_examples=60, deadline=None)
@given(histories, st.integers(0, 2**31))
def test_transitions_come_back_as_they_were(history, seed):
    """Frame by frame, at episode starts, after ends and after the ring has gone round."""
    r = Recorder(seed)
    for length, terminal in history:
        r.play(length, terminal=terminal)
    batch = r.replay.sample(64)
    obs, following = batch.obs.whole(), batch.next_obs.whole()
    newest = len(r.transitions) - CAPACITY
    for n in range(64):
        j = r.find(batch.action[n])
        t = r.transitions[j]
        assert j >= newest
        assert torch.equal(obs[n], dense(t["obs"])) and torch.equal(following[n], dense(t["next"]))
        assert batch.reward[n].item() == pytest.approx(t["reward"]) and batch.not_done[n].item() == t["not_done"]


@settings(max_examples=60, deadline=None)
@given(histories, st.integers(0, 2**31), st.integers(2, 5))
def test_windows_never_cross_an_end_or_the_seam(history, seed, length):
    r = Recorder(seed)
    for steps, terminal in history:
        r.play(steps, terminal=terminal)
    if len(r.replay) <= length:
        with pytest.raises(UserError, match="random_steps"):
            r.replay.sample_sequences(8, length)
        return
    window = r.replay.sample_sequences(32, length)
    images = window.obs.whole().view(32, length, -1, SIZE, SIZE)
    for n in range(32):
        if not window.valid[n]:
            continue
        first = r.find(window.action[n, 0])
        run = r.transitions[first : first + length]
        assert first >= len(r.transitions) - CAPACITY and len(run) == length
        assert len({t["episode"] for t in run}) == 1 and not any(t["last"] for t in run)
        for k, t in enumerate(run):
            assert np.array_equal(window.action[n, k].numpy(), t["action"])
            assert torch.equal(images[n, k], dense(t["obs"]))


def test_fewer_windows_than_asked_get_weight_zero():
    r = Recorder()
    for _ in range(5):
        r.play(3)
    assert r.replay.sample_sequences(16, 3).valid.sum() == 0  # every window of 3 holds an end
    assert r.replay.sample_sequences(16, 2).weight.sum() > 0


def test_all_of_the_newest_capacity_can_be_sampled():
    """With full episodes the frame ring holds all that `capacity` transitions need, round after round."""
    r = Recorder()
    for _ in range(30):
        r.play(EPISODE)
        assert len(r.replay) == min(len(r.transitions), CAPACITY)
    drawn = {r.find(a) for a in r.replay.sample(3000).action}
    assert drawn == set(range(len(r.transitions) - CAPACITY, len(r.transitions)))


def test_uniform():
    r = Recorder()
    r.play(40, ended=False)
    counts = torch.bincount(torch.tensor([r.find(a) for a in r.replay.sample(4000).action]), minlength=40).float()
    assert ((counts - 100) ** 2 / 100).sum() < 80  # chi-square, 39 degrees of freedom: p about 1e-4


def test_newest_observation():
    r = Recorder()
    for steps in (1, 2, 5):
        r.play(steps, ended=False)
        assert torch.equal(r.replay.newest().whole()[0], dense(r.stack))


@settings(max_examples=15, deadline=None)
@given(histories, histories, st.integers(0, 2**31))
def test_saving_and_loading(before, after, seed):
    """Saves write each frame once; a replay loaded from them goes on as the first one does."""
    r = Recorder(seed)
    files: dict[int, tuple[bytes, int]] = {}

    def write(first: int, data, count: int) -> dict:
        assert first not in files
        files[first] = (bytes(data), count)
        return {"first": first, "count": count}

    for length, terminal in before:
        r.play(length, terminal=terminal)
        segments = r.replay.save_frames(write)
    for length, terminal in after:
        r.play(length, terminal=terminal)
    segments = r.replay.save_frames(write)
    state = r.replay.state_dict()
    generator = torch.Generator()
    other = Replay(CAPACITY, EPISODE, STACK, SIZE, 2, torch.device("cpu"), generator)
    other.load_state_dict(state, segments, lambda s: files[s["first"]][0])
    generator.set_state(r.generator.get_state())
    assert sum(count for _, count in files.values()) <= r.replay.frames_added
    one, two = r.replay.sample(32), other.sample(32)
    for a, b in ((one.obs, two.obs), (one.next_obs, two.next_obs)):
        assert torch.equal(a.whole(), b.whole())
    assert torch.equal(one.action, two.action) and torch.equal(one.reward, two.reward) and len(other) == len(r.replay)


def test_memory_is_asked_for_first(monkeypatch):
    monkeypatch.setattr("DMControl.core.machine.free_memory", lambda device: 1000)
    with pytest.raises(UserError, match=r"needs .*, but .* are free"):
        Recorder()


def test_size_of_the_paper_preset(monkeypatch):
    """Each frame once: the official code keeps 18 GB."""
    monkeypatch.setattr(torch, "full", lambda shape, *_, **__: torch.empty(shape, dtype=torch.uint8, device="meta"))
    replay = Replay(100_000, 250, 3, 100, 6, torch.device("cpu"), torch.Generator())
    assert 3.0e9 < replay.store.frames.nbytes < 3.1e9
