"""Worlds with videos: the chroma key, and what stands behind the agent."""

import colorsys
import time
from fractions import Fraction

import numpy as np
from world_envs import env_in

from DMControl.worlds import procedural, scene
from DMControl.worlds.catalogue import WorldName


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
