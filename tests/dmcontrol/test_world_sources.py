"""Where the pictures of worlds come from: drawn from a seed, or the user's own footage."""

import cv2
import numpy as np
import pytest
from world_envs import DISTRACTING, NO_FOOTAGE

from DMControl.core.errors import UserError
from DMControl.core.method.footage import check
from DMControl.core.run.config import Config
from DMControl.env import EVALUATE, Env
from DMControl.settings import read_config
from DMControl.worlds import footage, procedural
from DMControl.worlds.catalogue import WorldName, is_procedural, label, world_names
from DMControl.worlds.images import overlay_images
from DMControl.worlds.make import make


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
    assert label(WorldName("clean"), NO_FOOTAGE) == "clean" and label(DISTRACTING, NO_FOOTAGE) == "distracting_cs_0.2 (procedural)"
    assert label(WorldName("video_hard"), filmed) == "video_hard" and is_procedural(DISTRACTING, filmed)
    assert is_procedural(WorldName("color_easy"), filmed)


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


@pytest.mark.parametrize("codec", ["mp4v.mp4", "MJPG.avi", "XVID.mkv"])
def test_damaged_footage_is_named_before_the_run_begins(tmp_path, codec):
    """A video or an image that was cut off. Whole ones pass, even of one frame, and a picture with more behind its end."""
    rng, (name, _, ending) = np.random.default_rng(0), codec.partition(".")
    path = tmp_path / f"video.{ending}"
    for length in (1, 2, 4, 60):
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*name), 25, (160, 120))
        for _ in range(length):
            writer.write(rng.integers(0, 255, (120, 160, 3)).astype(np.uint8))
        writer.release()
        check(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.7 * len(whole))])
    with pytest.raises(UserError, match=f"video.{ending} (is damaged|cannot be read)"):
        check(path)
    frames = tmp_path / "frames"
    frames.mkdir()
    for n, form in enumerate(("jpg", "png", "jpg")):
        cv2.imwrite(str(frames / f"{n}.{form}"), rng.integers(0, 255, (120, 160, 3)).astype(np.uint8))
    (frames / "2.jpg").write_bytes((frames / "2.jpg").read_bytes() + bytes(200))
    (frames / "folder.jpg").mkdir()
    check(frames)
    for picture in sorted(frames.glob("[0-9]*")):
        whole = picture.read_bytes()
        picture.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=f"{picture.name} (is damaged|cannot be read)"):
            check(frames)
        picture.write_bytes(whole)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["world=video_heard"], "did you mean video_hard"),
        (["eval.worlds=[clean,colour_easy]"], "did you mean color_easy"),
        (["world=distracting_cs", "intensity=0.25"], "intensity 0.25 does not exist"),
        (["eval.worlds=[distracting_cs]", "eval.intensities=[0.1,0]"], "intensity 0 does not exist"),
        (["eval.worlds=[clean,distracting_cs]", "eval.intensities=[]"], "an intensity with distracting_cs"),
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
