"""task=ur5e:visual_reach, a simulation of the robot arm that MaDi was tried on.

A UR5e with a pointer and a camera at its wrist stands in front of a screen. The tip of the pointer must touch a red disc, which is
at a new place on the screen in each episode. The model is MuJoCo Menagerie's; sky, grid and colours have the names that they have in the
suite, so that the worlds find them.
"""

import xml.etree.ElementTree as ET
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from dm_control import mujoco
from dm_control.rl import control
from dm_control.suite import base, common
from dm_control.utils import rewards
from dm_env import specs

from .core.errors import UserError
from .ur5e_model import find

JOINTS = 5  # that move; the last one only turns the pointer around itself, and holds still
SPEED = 0.7  # largest joint velocity, rad/s
TIMESTEP, SECONDS = 0.04, 6.0  # of a step, of an episode: 150 steps
LEAD = 0.2  # rad that a joint's commanded position may be ahead of the joint, for instance where the screen stops the arm
START = (-1.571, -2.36, 2.63, -3.41, -1.571, 0.0)  # the pointer is level and square to the screen
SCATTER = 0.05  # rad, of each joint at the start
SCREEN = np.array([-0.134, 0.75, 0.45])  # its middle; it faces the arm
SPREAD = np.array([0.18, 0.0, 0.12])  # of the target around it
TOUCH, MARGIN = 0.02, 0.4  # m: full reward within TOUCH of the target, a tenth of it MARGIN farther away

SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0.2 2" dir="0 0.2 -1" directional="true" castshadow="false" diffuse="0.3 0.3 0.3"/>
    <geom name="table" type="plane" size="2 2 0.1" material="grid"/>
    <body name="screen" pos="-0.134 0.75 0.45">
      <geom name="pane" type="box" size="0.34 0.01 0.2" pos="0 0.01 0" rgba="0 0 0 0"/>
      <geom type="box" size="0.36 0.01 0.01" pos="0 0.01 0.21" material="black"/>
      <geom type="box" size="0.36 0.01 0.01" pos="0 0.01 -0.21" material="black"/>
      <geom type="box" size="0.01 0.01 0.22" pos="0.35 0.01 0" material="black"/>
      <geom type="box" size="0.01 0.01 0.22" pos="-0.35 0.01 0" material="black"/>
      <geom type="box" size="0.04 0.01 0.12" pos="0 0.03 -0.33" material="black"/>
      <geom name="target" type="cylinder" size="0.03 0.001" zaxis="0 1 0" material="target" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
</mujoco>
"""
HAND = """
<hand>
  <geom name="pointer" type="capsule" fromto="0 0.1 0 0 0.242 0" size="0.008" material="self"/>
  <site name="tip" pos="0 0.25 0" size="0.001" rgba="0 0 0 0"/>
  <camera name="wrist" pos="0 0.08 0.06" xyaxes="1 0 0 0 0 1" fovy="60"/>
</hand>
"""


def load(folder: str = "") -> control.Environment:
    """folder: of a Menagerie clone; without one the model comes from a package."""
    path = find(folder)
    try:
        xml, meshes = scene(path)
        physics = Physics.from_xml_string(xml, assets=meshes)
    except (ET.ParseError, OSError, ValueError) as error:
        raise UserError(f"{path} is not the UR5e of MuJoCo Menagerie ({error}): clone it anew, or leave out ur5e.model") from error
    return control.Environment(physics, VisualReach(random=0), time_limit=SECONDS, control_timestep=TIMESTEP)


def scene(path: Path) -> tuple[bytes, dict[str, bytes]]:
    """The arm's model with hand, screen and table, driven by joint velocities; and its meshes."""
    root = ET.parse(path).getroot()
    for keyframes in root.findall("keyframe"):
        root.remove(keyframes)
    compiler = part_of(root, "compiler")
    meshes = {mesh.name: mesh.read_bytes() for mesh in (path.parent / compiler.attrib.pop("meshdir", "")).iterdir()}
    parts = [ET.fromstring(common.ASSETS[f"./common/{name}.xml"]) for name in ("materials", "skybox", "visual")]
    for part in (*parts, ET.fromstring(SCENE)):
        root.extend(part)
    part_of(root, ".//body[@name='wrist_3_link']").extend(ET.fromstring(HAND))
    for geom in root.findall(".//geom[@material='linkgray']"):
        geom.set("material", "self")
    part_of(root, "asset/material[@name='self']").set("rgba", part_of(root, "asset/material[@name='linkgray']").get("rgba"))
    part_of(root, "asset/material[@name='target']").set("rgba", "0.9 0.1 0.1 1")
    for motor in part_of(root, "actuator"):  # the integral of a velocity is the position that Menagerie's controller holds
        motor.attrib |= {"dyntype": "integrator", "ctrlrange": f"{-SPEED} {SPEED}", "actrange": "-6.28319 6.28319"}
    return ET.tostring(root), meshes


def part_of(root: ET.Element, path: str) -> ET.Element:
    found = root.find(path)
    if found is None:
        raise ValueError(f"it has no {path}")
    return found


class Physics(mujoco.Physics):
    def tip(self) -> np.ndarray:
        return self.named.data.site_xpos["tip"]

    def to_target(self) -> np.ndarray:
        """From the tip of the pointer to the target."""
        return self.named.data.geom_xpos["target"] - self.tip()

    def facing(self) -> float:
        """Cosine of the angle between the pointer and the screen's normal."""
        return float(self.named.data.site_xmat["tip"].reshape(3, 3)[1, 1])


class VisualReach(base.Task):
    """The reward of a step is in [0, 1]: how near the tip is to the target, times how squarely the pointer faces the screen."""

    def action_spec(self, physics: Physics) -> specs.BoundedArray:
        return specs.BoundedArray((JOINTS,), np.float64, -SPEED, SPEED)

    def initialize_episode(self, physics: Physics) -> None:
        start = np.array(START)
        start[:JOINTS] += self.random.uniform(-SCATTER, SCATTER, JOINTS)
        physics.data.qpos[:] = physics.data.act[:] = start
        at = self.random.uniform(-SPREAD, SPREAD)
        physics.named.model.geom_pos["target"] = at
        super().initialize_episode(physics)

    def before_step(self, action: np.ndarray, physics: Physics) -> None:
        data = physics.data
        data.act[:] = np.clip(data.act, data.qpos - LEAD, data.qpos + LEAD)
        data.ctrl[:JOINTS] = action

    def get_observation(self, physics: Physics) -> dict[str, Any]:
        return OrderedDict(position=physics.position().copy(), velocity=physics.velocity().copy(), to_target=physics.to_target())

    def get_reward(self, physics: Physics) -> float:
        near = rewards.tolerance(np.linalg.norm(physics.to_target()), bounds=(0, TOUCH), margin=MARGIN, sigmoid="gaussian")
        return float(near * max(0.0, physics.facing()))
