"""Textures rewritten in place give what a reload of the model with other colours gave in the published worlds."""

import numpy as np
import pytest
from dm_control import suite
from dm_control.mujoco import wrapper
from dm_control.suite import common
from world_envs import env_in

from DMControl.core.errors import UserError
from DMControl.worlds import procedural, scene
from DMControl.worlds.catalogue import WorldName


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

    def forbidden(*args, **kwargs):
        raise AssertionError("the model was compiled again")

    monkeypatch.setattr(wrapper.MjModel, "from_xml_string", forbidden)
    again = [env.reset(e) for e in range(3)]
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True)) and not np.array_equal(frames[0], frames[1])
