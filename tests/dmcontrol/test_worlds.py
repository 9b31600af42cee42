"""Worlds: what they change, what they leave alone, and that a seed gives the same pixels."""

import colorsys
import csv
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from dm_control import suite
from dm_control.suite import common

from DMControl import evaluate as evaluation
from DMControl.core import machine
from DMControl.core.errors import UserError
from DMControl.core.run.config import Config, plain
from DMControl.env import EVALUATE, TRAIN, Env
from DMControl.settings import read_config
from DMControl.train import Trainer
from DMControl.worlds import camera, footage, procedural, scene
from DMControl.worlds.catalogue import INTENSITIES, WORLDS, WorldName, is_procedural, label, world_names
from DMControl.worlds.images import overlay_images
from DMControl.worlds.make import BACKGROUNDS, make

NONE = Config({"video": "", "images": "", "davis": ""})
SIX = ("walker_walk", "cartpole_swingup", "ball_in_cup_catch", "finger_spin", "cheetah_run", "reacher_easy")
DCS = WorldName("distracting_cs", 0.2)
ALL = [WorldName(w) for w in WORLDS[:-1]] + [DCS]


def env_in(place, task="walker_walk", size=48, seed=1, stream=EVALUATE, repeat=4):
    return Env(task, repeat, size, False, seed, stream, make(place, NONE))


def roll(env, steps=4, episode=0):
    """First frame and frames of the episode, with its rewards and physics states."""
    rng = np.random.default_rng(0)
    frames, rewards = [env.reset(episode)], []
    states = [env.inner.physics.get_state().copy()]
    for _ in range(steps):
        step = env.step(rng.uniform(-1, 1, env.action_dim))
        frames.append(step.frame)
        rewards.append(step.reward)
        states.append(env.inner.physics.get_state().copy())
    return np.stack(frames), np.array(rewards), np.stack(states)


@pytest.mark.parametrize("task", SIX)
def test_physics_is_untouched_by_a_world(task):
    """The same actions give the same states and rewards in every world, however often the camera looks; only pixels differ."""
    frames, rewards, states = roll(env_in(ALL[0], task, size=32), 3)
    for place in ALL[1:]:
        env = env_in(place, task, size=32)
        other = roll(env, 3)
        assert np.array_equal(other[1], rewards) and np.array_equal(other[2], states), place
        if (task, place.name) != ("reacher_easy", "video_easy"):  # there the camera sees floor alone
            assert not np.array_equal(other[0], frames), place
        position, axes = env.inner.physics.data.cam_xpos[0].copy(), env.inner.physics.data.cam_xmat[0].copy()
        env.render(24)
        assert np.array_equal(position, env.inner.physics.data.cam_xpos[0]) and np.array_equal(axes, env.inner.physics.data.cam_xmat[0])
        env.close()


@pytest.mark.parametrize("place", ALL[1:], ids=str)
def test_same_seed_same_pixels_and_another_seed_others(place):
    one, again = roll(env_in(place)), roll(env_in(place))
    assert np.array_equal(one[0], again[0])
    env = env_in(place)
    roll(env, 2, episode=5)  # what was shown before does not matter
    assert np.array_equal(roll(env)[0], one[0])
    assert not np.array_equal(roll(env, episode=1)[0][0], one[0][0])
    if not place.name.startswith("video"):  # these go through their videos in order, by the number of the episode
        assert not np.array_equal(roll(env_in(place, seed=2))[0][0], one[0][0])


@pytest.mark.parametrize("place", ALL[1:], ids=str)
def test_training_worlds_are_not_test_worlds(place):
    """The same world, to train and to be judged in: no set of colours and no clip is in both."""
    config = read_config(["preset=debug", "method=sac"])
    shown = []
    for stream in (TRAIN, EVALUATE):
        env = evaluation.make_env(config, 1, stream, place)
        world = env.world
        shown.append({s["sky"].tobytes() for s in world.settings} if place.name.startswith("color") else {id(v) for v in world.videos})
        env.close()
    assert len(shown[0]) == len(shown[1]) and not shown[0] & shown[1]
    clips = [procedural.Clip("video_easy", n).frame(0) for n in (0, procedural.TRAINING)]
    assert not np.array_equal(*clips)


@pytest.mark.parametrize("place", [WorldName("color_hard"), WorldName("video_hard"), DCS], ids=str)
def test_an_environment_comes_back_to_where_it_was(place):
    """Restored from its state, an environment goes on with the same pixels: a world resumes with the run."""
    env, rng = env_in(place), np.random.default_rng(1)
    env.reset(3)
    for _ in range(3):
        env.step(rng.uniform(-1, 1, env.action_dim))
    other = env_in(place)
    other.load_state_dict(env.state_dict())
    assert np.array_equal(env.render(), other.render())
    for _ in range(3):
        action = rng.uniform(-1, 1, env.action_dim)
        assert np.array_equal(env.step(action).frame, other.step(action).frame)


# --- textures in place of reloads


def reloaded(domain, changes):
    """The textures of a physics reloaded with other colours, as the published worlds were made."""
    assets = dict(common.ASSETS)
    for name, old, new in changes:
        text = assets[name].decode()
        assert old in text
        assets[name] = text.replace(old, new).encode()
    physics, model = suite.load(*domain).physics, common.read_model(f"{domain[0]}.xml").decode()
    for name, old, new in changes:
        model = model.replace(old, new) if name == SKYBOX else model  # fish has a sky in its own file
    physics.reload_from_xml_string(model, assets=assets)
    return physics


def text(colour):
    return " ".join(f"{c:.17g}" for c in colour)


SKYBOX, MATERIALS = "./common/skybox.xml", "./common/materials.xml"
GREEN = text(scene.GREEN)


@pytest.mark.parametrize("domain", [("walker", "walk"), ("fish", "swim")], ids="_".join)  # fish has its textures the other way round
def test_colours_are_written_as_a_reload_would(domain):
    """To the byte, in both textures, for several settings; and the agent's material."""
    for setting in procedural.colour_settings(0.2, "color_hard")[:3]:
        physics = suite.load(*domain).physics
        world = scene.Colour([setting])
        world.bind(physics)
        world.start(np.random.default_rng(0), 0)
        changes = [
            (SKYBOX, 'rgb1=".4 .6 .8"', f'rgb1="{text(setting["sky"])}"'),
            (MATERIALS, 'rgb1=".1 .2 .3" rgb2=".2 .3 .4"', f'rgb1="{text(setting["grid1"])}" rgb2="{text(setting["grid2"])}"'),
            (MATERIALS, 'name="self" rgba=".7 .5 .3 1"', f'name="self" rgba="{text(setting["self"])} 1"'),
        ]
        expected = reloaded(domain, changes)
        different = (physics.model.tex_data != expected.model.tex_data).sum()
        assert different == 0, different
        np.testing.assert_allclose(physics.model.mat_rgba, expected.model.mat_rgba, rtol=1e-6)


def test_green_screens_are_written_as_a_reload_would_but_for_its_rounding():
    physics = suite.load("walker", "walk").physics
    scene.Video(procedural.clips("video_hard", 1), floor=True).bind(physics)
    sky = f'rgb1="{GREEN}" rgb2="{GREEN}"'
    changes = [
        (SKYBOX, 'rgb1=".4 .6 .8" rgb2="0 0 0"', sky),
        (SKYBOX, 'markrgb="1 1 1"', f'markrgb="{GREEN}"'),
        (MATERIALS, 'rgb1=".1 .2 .3" rgb2=".2 .3 .4"', sky),
        (MATERIALS, 'markrgb=".2 .3 .4"', f'markrgb="{GREEN}"'),
    ]
    expected = reloaded(("walker", "walk"), changes).model.tex_data
    apart = np.abs(physics.model.tex_data.astype(int) - expected)  # a reload mixes green with green and rounds some of it down
    assert apart.max() <= 1 and apart.mean() < 0.03


def test_a_model_without_the_suites_floor_is_refused():
    physics = suite.load("walker", "walk").physics
    physics.model.mat_texid[:] = -1
    with pytest.raises(UserError, match="only world=clean"):
        scene.Video(procedural.clips("video_hard", 1), floor=True).bind(physics)


def test_the_camera_sees_what_was_written_and_nothing_was_reloaded(monkeypatch):
    """A changed texture reaches the renderer, in an environment that has rendered before; no reset compiles a model."""
    env = env_in(WorldName("color_hard"))
    frames = [env.reset(e) for e in range(3)]
    from dm_control.mujoco import wrapper

    def forbidden(*args, **kwargs):
        raise AssertionError("the model was compiled again")

    monkeypatch.setattr(wrapper.MjModel, "from_xml_string", forbidden)
    again = [env.reset(e) for e in range(3)]
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True)) and not np.array_equal(frames[0], frames[1])


# --- the chroma key


def published(red, green, blue):
    """Hue 100 to 185 degrees, saturation 80 to 255, value 70 to 255, pixel by pixel, in exact fractions."""
    high, low = max(red, green, blue), min(red, green, blue)
    if high == low:
        return False
    spread = high - low
    if high == red:
        hue = (60 * Fraction(green - blue, spread)) % 360
    elif high == green:
        hue = 60 * Fraction(blue - red, spread) + 120
    else:
        hue = 60 * Fraction(red - green, spread) + 240
    assert abs(float(hue) / 360 - colorsys.rgb_to_hsv(red, green, blue)[0]) < 1e-9
    return 100 <= hue <= 185 and 80 <= 255 * Fraction(spread, high) <= 255 and 70 <= high


def test_the_key_follows_the_published_rule():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    pixels[:20] = (np.array([51, 204, 51]) + rng.integers(-50, 51, (20, 40, 3))).clip(0, 255)
    edges = [(51, 204, 51), (0, 70, 0), (0, 69, 0), (70, 70, 0), (0, 255, 255), (0, 234, 255), (255, 255, 255), (0, 0, 0), (100, 146, 100)]
    pixels[0, : len(edges)] = edges
    found = scene.is_green(pixels)
    expected = np.array([[published(*(int(c) for c in p)) for p in row] for row in pixels])
    assert np.array_equal(found, expected) and 0.1 < found.mean() < 0.9


def test_the_key_takes_under_2_ms_a_frame():
    video = scene.Video(procedural.clips("video_easy", 1), floor=False)
    video.video.frame(0)
    frame = np.random.default_rng(0).integers(0, 256, (84, 84, 3), dtype=np.uint8)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        video.paint(frame)
        times.append(time.perf_counter() - start)
    assert min(times) < 2e-3, min(times)


def test_a_video_shows_in_place_of_sky_and_of_floor():
    """Keyed shares of walker: the sky in easy, all but the agent in hard; the agent stays; a frame per agent step, a video per episode."""

    class Flat:
        def __init__(self, value):
            self.value = value

        def __len__(self):
            return 10

        def frame(self, i):
            return np.full((8, 8, 3), self.value, np.uint8)

    clean, shares = env_in(WorldName("clean"), size=84).reset(0).astype(int), {}
    for name in ("video_easy", "video_hard"):
        env, shown = env_in(WorldName(name), size=84), []
        for value in (0, 255):
            env.world.videos = [Flat(value)]
            shown.append(env.reset(0))
        keyed = (shown[0] == 0).all(-1) & (shown[1] == 255).all(-1)
        assert np.array_equal(shown[0][~keyed], shown[1][~keyed])
        body = (clean[..., 0] > 120) & (clean[..., 0] > clean[..., 2] + 40)
        assert body.sum() > 200 and (keyed & body).mean() < 0.01
        shares[name] = keyed.mean()
    assert 0.55 < shares["video_easy"] < 0.75 and 0.88 < shares["video_hard"] < 0.96  # the published worlds: 0.65 and 0.92
    env = env_in(WorldName("video_hard"))
    env.reset(0)
    assert env.world.video.number == 1 and env.world.shown == 0  # the order begins at the second video
    env.step(np.zeros(env.action_dim))
    assert env.world.shown == 1
    env.reset(99)
    assert env.world.video.number == 0


# --- the Distracting Control Suite


def test_each_intensity_is_its_own():
    """Its own range of camera, colours and videos; what it shows differs from every other's."""
    first = {}
    for intensity in INTENSITIES:
        env = env_in(WorldName("distracting_cs", intensity), size=32)
        first[intensity] = env.reset(0)
        world = env.world
        assert len(world.videos) == BACKGROUNDS.get(intensity, 60) and world.intensity == intensity
        assert world.camera.angle == pytest.approx(np.pi / 2 * intensity)
        assert (world.camera.nearer, world.camera.farther) == pytest.approx((1 - 0.5 * intensity, 1 + 1.5 * intensity))
        env.close()
    frames = list(first.values())
    assert all(not np.array_equal(a, b) for i, a in enumerate(frames) for b in frames[:i])
    assert [BACKGROUNDS.get(i, 60) for i in INTENSITIES] == [2, 2, 4, 6, 8, 60, 60, 60]


def test_colours_and_camera_stay_in_their_ranges_and_wander():
    s, env = 0.3, env_in(WorldName("distracting_cs", 0.3), size=16)
    world, model = env.world, env.inner.physics.model
    changes, rolls, radii, seen = [], [], [], []
    for episode in range(4):
        env.reset(episode)
        for _ in range(60):
            before, at = world.now.copy(), world.camera.at.copy()
            world.tick()
            assert np.array_equal(before, world.now) and np.array_equal(at, world.camera.at)  # every second step only
            world.tick()
            assert (np.abs(world.now - world.colours) <= s + 1e-6).all() and world.now.min() >= 0 and world.now.max() <= 1
            changes.append(world.now - before)
            home, now = world.camera.home, world.camera.at
            assert (1 - 0.5 * s) * home[0] - 1e-9 <= now[0] <= (1 + 1.5 * s) * home[0] + 1e-9
            assert np.abs(now[1:] - home[1:]).max() <= np.pi / 2 * s + 1e-9 and now[2] >= 0
            moved = np.linalg.norm(camera.cartesian(now) - camera.cartesian(at))
            assert moved <= 0.4 * s * home[0] / 4 * 1.01  # the ranges may bend a move along them
            rolls.append(world.camera.roll)
            radii.append(now[0] / home[0])
        env.render()
        seen.append(model.mat_rgba[:, :3].copy())
        np.testing.assert_allclose(model.mat_rgba[:, :3], world.now, atol=1e-6)
    free = np.abs(np.array(changes)) > 0
    assert np.array(changes)[free].std() == pytest.approx(0.03 * s, rel=0.15)
    assert np.ptp(radii) > 0.05 and np.ptp(rolls) > 0.1 and np.abs(rolls).max() <= np.pi / 2 * s
    assert all(not np.array_equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert model.mat_rgba[model.name2id("grid", "material"), 3] == 1  # the walker's floor stays


def test_the_camera_looks_at_the_agent_from_where_it_stands():
    env = env_in(WorldName("distracting_cs", 0.5))
    env.reset(0)
    physics = env.inner.physics
    for _ in range(5):
        env.world.camera.move(physics, np.random.default_rng(0))
    position, axes = env.world.camera.pose(physics)
    axes = axes.reshape(3, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    towards = physics.data.xpos[1] - position
    np.testing.assert_allclose(-axes[:, 2], towards / np.linalg.norm(towards), atol=1e-12)


@pytest.mark.parametrize("task", ["walker_walk", "reacher_easy"])
def test_the_undistorted_camera_is_the_suites(task):
    """At home and aimed at what the suite's own camera is aimed at, the picture is nearly the suite's."""
    env = env_in(WorldName("distracting_cs", 0.025), task, size=48)
    env.reset(0)
    camera, physics = env.world.camera, env.inner.physics
    camera.at, camera.roll = camera.home.copy(), 0.0
    _, axes = camera.pose(physics)
    own = physics.data.cam_xmat[0].reshape(3, 3)
    assert (axes.reshape(3, 3) * own).sum(0).min() > 0.9


def test_videos_go_to_and_fro():
    env = env_in(WorldName("distracting_cs", 0.1), size=16)
    env.reset(0)
    world, visited = env.world, []
    world.shown, world.direction = len(world.video) - 3, 1
    for _ in range(16):
        world.tick()
        visited.append(world.shown - len(world.video))
    assert visited[1::2] == [-2, -1, -2, -3, -4, -5, -6, -7]


# --- procedural sources


def test_training_pictures_are_not_test_pictures():
    """Families and seeds are disjoint: overlay images are leaves, videos are waves, cells and drapes."""
    assert len(set(procedural.SEEDS.values())) == len(procedural.SEEDS)
    bank = overlay_images("", 12, 64)
    assert np.array_equal(bank, overlay_images("", 12, 64)) and len(np.unique(bank.reshape(12, -1), axis=0)) == 12
    seen = {}
    for family, count in (("video_easy", 10), ("video_hard", 100), ("distracting_cs", 60)):
        clips = procedural.clips(family, count)
        assert len(clips) == count
        seen[family] = [clips[n].frame(0) for n in (0, 1, count - 1)]
        assert clips[0].frame(0).shape == (128, 128, 3) and not np.array_equal(clips[0].frame(0), clips[0].frame(40))
        assert procedural.clips(family, count)[0] is clips[0] and clips[0].frame(7) is clips[0].frame(7)  # drawn once
        fresh = procedural.Clip(family, 1)
        assert np.array_equal(fresh.frame(3), clips[1].frame(3))  # in any order
    frames = [cv2.resize(f, (64, 64)) for group in seen.values() for f in group]
    assert all(not np.array_equal(a, b) for i, a in enumerate(frames) for b in frames[:i])
    contrast = {k: np.mean([f.astype(float).std((0, 1)).mean() for f in v]) for k, v in seen.items()}
    assert contrast["video_easy"] < 0.7 * contrast["video_hard"]


def test_the_cache_forgets_the_oldest_clips():
    clips = procedural.clips("video_easy", procedural.KEPT + 2)
    for clip in clips:
        clip.frame(0)
    assert not clips[0].frames and clips[-1].frames and sum(bool(c.frames) for c in clips) <= procedural.KEPT


@pytest.mark.parametrize(("name", "sigma"), [("color_easy", 0.1), ("color_hard", 0.2)])
def test_colours_follow_the_published_distribution(name, sigma):
    """Default colours plus N(0, sigma), cut at 0 and 1; the second floor colour 0.1 above the first. 100 settings, always the same."""
    settings = procedural.colour_settings(sigma, name)
    assert len(settings) == 100
    deviations = []
    for key, default in (("sky", (0.4, 0.6, 0.8)), ("self", (0.7, 0.5, 0.3)), ("grid1", (0.1, 0.2, 0.3))):
        values = np.stack([s[key] for s in settings])
        assert values.min() >= 0 and values.max() <= 1
        inner = [c for c in range(3) if 2 * sigma < default[c] < 1 - 2 * sigma]  # where the cut hardly bites
        deviations += [values[:, c] - default[c] for c in inner]
    deviations = np.concatenate(deviations)
    assert abs(deviations.mean()) < 0.03 and deviations.std() == pytest.approx(sigma, rel=0.12)
    for s in settings:
        np.testing.assert_allclose(s["grid2"], (s["grid1"] + 0.1).clip(0, 1))
    assert all(np.array_equal(a["sky"], b["sky"]) for a, b in zip(settings, procedural.colour_settings(sigma, name), strict=True))


def test_labels_say_procedural():
    filmed = Config({"video": "x", "images": "", "davis": ""})
    assert label(WorldName("clean"), NONE) == "clean" and label(DCS, NONE) == "distracting_cs_0.2 (procedural)"
    assert label(WorldName("video_hard"), filmed) == "video_hard" and is_procedural(DCS, filmed)
    assert is_procedural(WorldName("color_easy"), filmed)


# --- the user's own footage


def write_video(path, frames=12, side=120, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (side, side))
    for i in range(frames):
        writer.write(np.full((side, side, 3), (0, 0, 20 * i % 256), np.uint8))  # redder each time (BGR)
    writer.release()


def test_footage_in_the_published_layouts(tmp_path):
    for n in range(10):
        write_video(tmp_path / "video" / "video_easy" / f"video{n}.mp4")
    for n in range(4):
        for i in range(5):
            picture = np.full((110, 130, 3), 10 * i + n, np.uint8)
            target = tmp_path / "davis/DAVIS/JPEGImages/480p" / footage.DAVIS[n] / f"{i:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), picture)
    for n in range(3):
        target = tmp_path / "images/places365_standard/train/a" / f"{n}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), np.full((120, 150, 3), (0, 0, 100 + n), np.uint8))
    data = Config({k: str(tmp_path / k) for k in ("video", "davis", "images")})
    world = make(WorldName("video_easy"), data)
    assert [v.path.stem for v in world.videos] == [f"video{n}" for n in range(10)] and len(world.videos[0]) == 12
    red = world.videos[3].frame(5)
    assert red[..., 0].mean() > 80 and red[..., 2].mean() < 30  # RGB
    world = make(WorldName("distracting_cs", 0.1), data)
    assert [v.path.name for v in world.videos] == footage.DAVIS[:4] and world.videos[2].frame(3).mean() == 32
    bank = overlay_images(data.images, 5, 32)
    assert bank.shape == (5, 32, 32, 3) and set(bank[..., 0].flatten()) == {100, 101, 102} and bank[..., 2].max() == 0
    env = Env("walker_walk", 4, 32, False, 1, EVALUATE, make(WorldName("distracting_cs", 0.1), data))
    assert env.reset(0).std() > 0 and env.world.side == 800
    assert label(WorldName("video_easy"), data) == "video_easy"


def test_mistakes_with_footage_are_named(tmp_path):
    (tmp_path / "video_hard").mkdir()
    write_video(tmp_path / "video_hard" / "video0.mp4")
    data = lambda **k: Config({"video": "", "images": "", "davis": "", **{n: str(v) for n, v in k.items()}})  # noqa: E731
    with pytest.raises(UserError, match=r"video_hard takes 100 videos, but .* holds 1"):
        make(WorldName("video_hard"), data(video=tmp_path))
    with pytest.raises(UserError, match="distracting_cs takes 60 videos at this intensity"):
        make(WorldName("distracting_cs", 0.5), data(davis=tmp_path))
    with pytest.raises(UserError, match="holds no images"):
        overlay_images(str(tmp_path), 3, 32)
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(UserError, match="too small: 40 x 40 pixels, at least 100"):
        overlay_images(str(tmp_path), 2, 32)
    (tmp_path / "small.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read as an image"):
        overlay_images(str(tmp_path), 4, 32)
    for n in range(10):
        (tmp_path / f"video{n}.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="cannot be read as a video"):
        make(WorldName("video_easy"), data(video=tmp_path))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["world=video_heard"], "did you mean video_hard"),
        (["eval.worlds=[clean,colour_easy]"], "did you mean color_easy"),
        (["world=distracting_cs", "intensity=0.25"], "intensity 0.25 does not exist"),
        (["eval.worlds=[distracting_cs]", "eval.intensities=[0.1,0]"], "intensity 0 does not exist"),
        (["eval.worlds=[clean,distracting_cs]", "eval.intensities=[]"], "without an intensity"),
        (["data.video=/no/such/folder"], "data.video=/no/such/folder is not a folder"),
        (["data.images=/no/such/folder"], "is not a folder"),
        (["data.davis=/no/such/folder"], "is not a folder"),
    ],
)
def test_mistakes_are_named(arguments, says):
    with pytest.raises(UserError, match=says):
        read_config(["preset=debug", *arguments])


def test_world_names():
    found = world_names(["clean", "distracting_cs", "clean"], [0.1, 0.5])
    assert [str(p) for p in found] == ["clean", "distracting_cs_0.1", "distracting_cs_0.5"]


# --- runs


def train(tmp_path, *arguments, stop_at=None):
    base = ["preset=debug", "method=madi", f"runs={tmp_path}", "eval.video=false", "env_steps=3600", "eval.every=3600", "eval.episodes=1"]
    config = read_config(
        [*base, "world=color_hard", "eval.worlds=[distracting_cs]", "eval.intensities=[0.1,0.5]", "action_repeat=40", *arguments]
    )
    trainer = Trainer(config, "test")
    if stop_at is not None:
        act = trainer.act

        def stopping():
            if trainer.step >= stop_at:
                trainer.stop.signal = 15
            return act()

        trainer.act = stopping
    trainer.train()
    trainer.folder.lock.close()
    return trainer


def eval_rows(path):
    with open(path / "eval.csv", newline="") as file:
        return [{k: v for k, v in r.items() if k != "hours"} for r in csv.DictReader(file)]


def test_a_run_in_one_world_judged_in_others(tmp_path, capsys):
    """Rows per world and intensity; a stop changes nothing; then `evaluate worlds=...` adds its own, with table and plot."""
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", stop_at=70)
    second = train(tmp_path / "parts")
    assert whole.config.unread() == []
    found = eval_rows(whole.folder.path)
    assert found == eval_rows(second.folder.path)
    assert torch.equal(whole.replay.frames, second.replay.frames)  # the training world goes on where it was
    same = zip(whole.agent.critic_loss.parameters(), second.agent.critic_loss.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert [(r["world"], r["intensity"], r["source"]) for r in found[:3]] == [
        ("color_hard", "", "procedural"),
        ("distracting_cs", "0.1", "procedural"),
        ("distracting_cs", "0.5", "procedural"),
    ]
    assert len(found) == 2 * 3
    path = whole.folder.path
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    assert {"eval/episode_return", "eval_distracting_cs_0.5_procedural/episode_return", "agent/mask"} <= set(tags["scalars"])
    assert {"masks/color_hard_procedural", "masks/distracting_cs_0.5_procedural"} <= set(tags["images"])

    assert evaluation.main([f"run={path}", "threads=1", "episodes=2", "worlds=clean,distracting_cs", "intensities=0.05,0.4"]) == 0
    added = eval_rows(path)[6:]
    assert [(r["world"], r["intensity"], r["episode"]) for r in added] == [
        (w, i, str(e)) for w, i in (("clean", ""), ("distracting_cs", "0.05"), ("distracting_cs", "0.4")) for e in (0, 1)
    ]
    said = capsys.readouterr().out
    assert "distracting_cs_0.4 (procedural)" in said and "madi (overlay images procedural)" in said
    (table,) = path.glob("worlds_*.md")
    assert table.read_text().count("(procedural)") == 2 and (path / f"{table.stem}.png").stat().st_size > 1000
    with pytest.raises(UserError, match="did you mean video_hard"):
        evaluation.main([f"run={path}", "worlds=video_hart"])
    with pytest.raises(UserError, match=r"intensity 0.7 does not exist"):
        evaluation.main([f"run={path}", "worlds=distracting_cs", "intensities=0.7"])
    with pytest.raises(UserError, match=r"argument data.images=/none is unknown"):  # an evaluation overlays nothing
        evaluation.main([f"run={path}", "data.images=/none"])
    gone = Config(plain(whole.config))
    gone["data"]["images"] = str(tmp_path / "gone")  # it judges without what it was trained with
    agent, _ = evaluation.load_agent(path, gone, whole.env.action_dim, whole.precision)
    assert torch.equal(agent.critic.q1[0].weight, whole.agent.critic.q1[0].weight) and gone.strong.augment == "overlay"
    with pytest.raises(UserError, match=r"data.video=/none is not a folder"):
        evaluation.main([f"run={path}", "worlds=video_easy", "data.video=/none"])


def test_masks_of_a_run(tmp_path, root, capsys, monkeypatch):
    """Frame, mask and masked frame, as picture and as video."""
    from scripts.media import masks

    path = train(tmp_path, "env_steps=2200", "eval.worlds=[]").folder.path
    assert masks.main([str(path), "worlds=clean,video_hard", "steps=5", "threads=1"]) == 0
    assert {p.name for p in (path / "masks").iterdir()} == {"clean.png", "clean.mp4", "video_hard.png", "video_hard.mp4", "all.png"}
    assert all(p.stat().st_size > 500 for p in (path / "masks").iterdir())
    config = read_config(["preset=debug", "method=madi"])
    agent = evaluation.load_agent(path, config, 1, machine.choose_precision("fp32", torch.device("cpu")))[0]
    seen, _ = masks.look(agent, config, WorldName("video_hard"), 2, torch.device("cpu"))
    frame, mask, masked = (p.astype(float) for p in seen[1])
    np.testing.assert_allclose(masked, frame * mask / 255, atol=1.5)
    with pytest.raises(UserError, match="say which run"):
        masks.main(["worlds=clean"])
