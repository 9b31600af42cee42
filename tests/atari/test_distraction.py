"""The moving background: what it changes, what it leaves alone, and that it comes back."""

import csv
import sys

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from Atari import distraction
from Atari import evaluate as evaluation
from Atari.core.errors import UserError, run_main
from Atari.core.machine import Precision
from Atari.core.run.config import Config
from Atari.distraction import Distraction, Footage
from Atari.env import EVALUATE, TRAIN, Env
from Atari.memory import memory
from Atari.settings import read_config
from Atari.train import main
from scripts.ledger.runs import elsewhere, own_evaluations, world_of
from scripts.media import masks
from scripts.trees import ATARI
from tests.atari.test_train import train

NO_DATA = Config({"video": "", "images": ""})
MOVING = ("noise", "video")


def make_env(name, game="breakout", behind="darkest", strength=1.0, data=NO_DATA, **settings):
    found = Distraction(name, None if name == "none" else strength)
    return Env(game, **{"seed": 3, **settings}, background=distraction.make(found, behind, data))


def play(env, count, seed=0, see=lambda env, step: step.frame):
    rng, seen = np.random.default_rng(seed), []
    for _ in range(count):
        step = env.step(int(rng.integers(env.n_actions)))
        seen.append(see(env, step))
        if step.over:
            env.reset()
    return seen


@pytest.mark.parametrize("name", MOVING)
def test_the_game_is_the_same(name):
    """Score, rewards, lives, ends and the console's memory, over a lost life and a game's end."""
    outcome = lambda env, s: (s.reward, s.score, s.done, s.blank, s.over, env.lives, env.ale.getRAM().tobytes())  # noqa: E731
    games = []
    for which in ("none", name):
        env = make_env(which, max_steps=150)
        env.reset()
        games.append(play(env, 170, see=outcome))
    assert games[0] == games[1]
    assert {s[3] for s in games[0]} == {s[4] for s in games[0]} == {False, True} and any(s[0] for s in games[0])


def test_without_one_a_frame_is_the_screen_made_smaller():
    """As before there were distractions, and with a strength of 0 as well."""
    plain, faint = make_env("none"), make_env("video", strength=0.0)
    screen = lambda env, s: cv2.resize(env.screens.max(0), (84, 84), interpolation=cv2.INTER_LINEAR)[:, :, None]  # noqa: E731
    assert plain.background is None and np.array_equal(plain.reset(), faint.reset())
    for a, b, frame in zip(play(plain, 40, see=lambda e, s: (s.frame, screen(e, s))), play(faint, 40), range(40), strict=True):
        assert np.array_equal(a[0], a[1]) and np.array_equal(a[0], b), frame


@pytest.mark.parametrize(
    ("behind", "game", "share"), [("darkest", "breakout", 0.5), ("darkest", "qbert", 0.5), ("commonest", "boxing", 0.3)]
)
@pytest.mark.parametrize("name", MOVING)
def test_one_colour_alone_is_replaced(name, behind, game, share):
    env = make_env(name, game, behind)
    env.reset()
    play(env, 10)
    screen, picture = env.screens.max(0), env.background.picture((3, TRAIN, 0, env.steps), env.screens.shape[1:])
    level = screen.min() if behind == "darkest" else np.bincount(screen.ravel()).argmax()
    wanted = np.where(screen == level, picture, screen)
    drawn = env.background.draw(screen, 3, TRAIN, 0, env.steps)
    assert np.array_equal(drawn, wanted) and (screen == level).mean() > share and picture.std() > 30
    assert np.array_equal(env._frame(0, env.steps)[:, :, 0], cv2.resize(wanted, (84, 84), interpolation=cv2.INTER_LINEAR))
    coloured, plain = env.render(), env.ale.getScreenRGB()
    now = env.ale.getScreenGrayscale()
    kept = now != (now.min() if behind == "darkest" else level)
    assert np.array_equal(coloured[kept], plain[kept]) and not np.array_equal(coloured, plain)


@pytest.mark.parametrize("name", MOVING)
def test_what_is_shown_follows_from_seed_stream_episode_and_step(name):
    picture = distraction.make(Distraction(name, 1.0), "darkest", NO_DATA).picture
    shape = (210, 160)
    first = picture((1, TRAIN, 2, 3), shape)
    assert first.shape == shape and first.dtype == np.uint8 and np.array_equal(first, picture((1, TRAIN, 2, 3), shape))
    for other in ((2, TRAIN, 2, 3), (1, EVALUATE, 2, 3), (1, TRAIN, 1, 3), (1, TRAIN, 2, 4)):
        assert np.abs(first.astype(int) - picture(other, shape)).mean() > 1, other
    if name == "video":  # it moves, and does not jump
        steps = [picture((1, TRAIN, 2, t), shape).astype(int) for t in range(20)]
        assert np.abs(steps[1] - steps[0]).mean() < 0.7 * np.abs(steps[19] - steps[0]).mean()
        cameras = lambda stream: [distraction.clip(stream, n)(0, shape).tobytes() for n in range(3)]  # noqa: E731
        assert not set(cameras(TRAIN)) & set(cameras(EVALUATE))  # a training has videos of its own


@pytest.mark.parametrize("name", MOVING)
def test_a_restored_game_goes_on_with_the_same_pixels(name):
    env, other = make_env(name), make_env(name)
    env.reset(4)
    play(env, 25)
    other.load_state_dict(env.state_dict())
    distraction.clip.cache_clear()
    distraction.chosen.cache_clear()
    after = play(env, 12, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(after, play(other, 12, seed=1), strict=True))
    assert not np.array_equal(after[0], after[1])


def test_strength_is_the_contrast():
    screen, when = np.full((210, 160), 40, np.uint8), (0, 0, 0, 0)
    whole, half = (distraction.make(Distraction("noise", s), "darkest", NO_DATA).draw(screen, *when) for s in (1.0, 0.5))
    np.testing.assert_allclose(half, 40 + 0.5 * (whole.astype(float) - 40), atol=0.51)


def test_the_users_footage(tmp_path):
    """Folders of images or video files; the episode says which one and where it begins."""
    for clip in range(2):
        (tmp_path / f"clip{clip}").mkdir()
        for i in range(3):
            cv2.imwrite(str(tmp_path / f"clip{clip}/{i}.png"), np.full((120, 100, 3), 100 * clip + 10 * i + 5, np.uint8))
    data = Config({"video": str(tmp_path), "images": ""})
    footage = Footage(distraction.films(str(tmp_path)))
    grey = {e: [int(footage.picture((1, TRAIN, e, t), (210, 160)).mean()) for t in range(6)] for e in range(8)}
    assert {g // 100 for shown in grey.values() for g in shown} == {0, 1}
    for shown in grey.values():
        assert shown[:3] == shown[3:] and len(set(shown)) == 3 and len({g // 100 for g in shown}) == 1
    env = make_env("video", data=data)
    env.reset()
    assert play(env, 1)[0].max() > 0 and distraction.label(Distraction("video", 1.0), data) == "video"
    assert distraction.source(Distraction("video", 1.0), data) == "footage"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no videos"):
        distraction.films(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["env.distraction=vidoe"], "did you mean video"),
        (["eval.distractions=[nois]"], "did you mean noise"),
        (["env.distraction=noise", "env.distraction_strength=1.5"], "between 0 and 1"),
        (["env.distraction=noise", "env.distraction_behind=brightest"], "is unknown"),
        (["env.distraction_strength=0.5"], "no effect with env.distraction=none"),
        (["env.distraction=video", "data.video=/none"], "is not a folder"),
        (["method=madi", "masker.type=sofft"], "did you mean soft"),
        (["method=madi", "strong_augmentation.kind=conv"], "is unknown"),
        (["method=madi", "data.images=/none"], "is not a folder"),
        (["method=mlr", "masker.width=8"], "no effect with method=mlr"),
    ],
)
def test_a_mistake_is_one_line(arguments, says, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "preset=debug", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and says in said and said.count("\n") == 1 and said.startswith("error: ")


def test_the_pictures_are_counted():
    need = lambda *s: distraction.memory(read_config(["preset=debug", *s]))  # noqa: E731
    assert need() == need("env.distraction=noise") == 0
    config = read_config(["preset=debug", "method=baseline", "env.distraction=video"])
    assert memory(config, 4, Precision(torch.device("cpu"), torch.float32))["videos"] == distraction.memory(config)
    layers = [distraction.clip(stream, n).__closure__ for stream in (TRAIN, EVALUATE) for n in range(2)]
    taken = sum(c.cell_contents[i][0].nbytes for closure in layers for c in closure if isinstance(c.cell_contents, list) for i in (0, 1))
    assert need("env.distraction=video") == need("eval.distractions=[video]") == taken // 4 * 2 * distraction.CLIPS


def run(tmp_path, *arguments, stop_at=None):
    settings = ["method=madi", "steps=90", "eval.every=1000", "eval.final_episodes=1", "env.max_steps=40", "game=breakout"]
    return train(tmp_path, *settings, "env.distraction=video", "eval.distractions=[none,noise]", *arguments, stop_at=stop_at)


def rows(path):
    with open(path / "eval.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_in_one_distraction_judged_in_others(tmp_path, capsys):
    """Masker and frames are those of a run without a stop; then `evaluate` and masks.sh judge it elsewhere."""
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_at=70)
    second = run(tmp_path / "parts")
    path, agents = whole.folder.path, (whole.agent, second.agent)
    assert whole.config.unread() == [] and second.agent.updates == whole.agent.updates > 0
    for name in ("network", "pixels"):
        a, b = (torch.cat([p.flatten() for p in agent.modules[name].parameters()]) for agent in agents)
        assert torch.equal(a, b), name
    assert torch.equal(whole.replay.store.frames, second.replay.store.frames)
    told = [{k: v for k, v in r.items() if k != "hours"} for r in rows(path)]
    assert told == [{k: v for k, v in r.items() if k != "hours"} for r in rows(second.folder.path)]
    kinds = [(r["distraction"], r["strength"], r["source"]) for r in told]
    assert kinds[-3:] == [("video", "1.0", "procedural"), ("none", "", "game"), ("noise", "1.0", "procedural")]
    events = EventAccumulator(str(path), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    assert {"eval/episode_return", "eval_none/episode_return", "eval_noise_procedural/human_normalized"} <= set(tags["scalars"])
    assert {"masks/video_procedural", "masks/none", "masks/noise_procedural"} <= set(tags["images"])

    own = own_evaluations(rows(path), ATARI, whole.config)
    assert {line["distraction"] for lines in own.values() for line in lines} == {"video"}
    assert [elsewhere(world_of(r), whole.config) for r in told[-3:]] == [False, True, True]
    assert [world_of(r) for r in told[-3:]] == ["video_1[procedural]", "clean", "noise_1[procedural]"]

    asked = [f"run={path}", "threads=1", "episodes=2", "distractions=none,video", "strength=0.5"]
    assert evaluation.main(asked) == evaluation.main(asked) == 0
    added = [tuple(r[k] for k in ("distraction", "strength", "episode", "episode_return")) for r in rows(path)[len(told) :]]
    assert added[:4] == added[4:] and [a[:3] for a in added[:4]] == [
        (d, s, e) for d, s in (("none", ""), ("video", "0.5")) for e in ("0", "1")
    ]
    assert "video_0.5 (procedural): score" in capsys.readouterr().out and len(list(path.glob("distractions_*"))) == 2
    assert masks.main([str(path), "distractions=none,video", "steps=3", "threads=1"]) == 0
    assert {p.name for p in (path / "masks").iterdir()} == {"none.png", "none.mp4", "video.png", "video.mp4", "all.png"}
    seen, fps = masks.look(whole.agent, whole.config, Distraction("video", 1.0), 2, torch.device("cpu"))
    frame, mask, masked = (p.astype(float) for p in seen[1])
    np.testing.assert_allclose(masked, frame * mask / 255, atol=1.5)
    assert fps == 15 and frame.std() > 20
    for wrong, says in (
        ("distractions=vidoe", "did you mean video"),
        ("strength=2", "between 0 and 1"),
        ("data.video=/none", "not a folder"),
    ):
        with pytest.raises(UserError, match=says):
            evaluation.main([f"run={path}", "threads=1", wrong])
