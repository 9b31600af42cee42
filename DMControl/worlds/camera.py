"""The camera of distracting_cs: a random walk around the suite's own camera 0, within ranges that grow with the intensity.

A fixed camera walks in world coordinates and keeps looking at the point that it looked at when the episode began. A tracking camera
walks in coordinates around the agent's centre of mass and looks at the same point as the suite's own camera. A camera that the agent
carries, as the arm's does, is moved aside by the walk and looks at the same point as its own pose. At intensity 0 each is the suite's
own camera.
"""

from typing import Any

import mujoco
import numpy as np

FIXED = mujoco.mjtCamLight.mjCAMLIGHT_FIXED
AGENT = 1  # the root body of the agent


class Camera:
    """The walk is in spherical coordinates: radius, azimuth, angle from the vertical."""

    def __init__(self, intensity: float, upper_only: bool) -> None:
        s = intensity
        self.upper_only = upper_only  # the camera stays above the horizontal, with an upright picture apart from the roll
        self.angle = np.pi / 2 * s  # the range of azimuth, angle from the vertical and roll, in both directions
        self.nearer, self.farther = 1 - 0.5 * s, 1 + 1.5 * s  # range of the radius
        self.speed_std, self.speed_max = 0.1 * s, 0.4 * s  # at a radius of 4
        self.roll_std, self.roll_max = np.pi / 300 * s, np.pi / 50 * s

    def start(self, physics: Any, rng: np.random.Generator) -> None:
        """Begin an episode with a random pose and velocity, then one step of the walk."""
        self.carried = physics.model.cam_mode[0] == FIXED and physics.model.cam_bodyid[0] != 0
        self.fixed = physics.model.cam_mode[0] == FIXED and not self.carried
        self.aim = viewed(physics)
        origin = self.aim if self.carried else self.origin(physics)
        self.home = home = spherical(physics.data.cam_xpos[0] - origin)
        self.low = np.array([home[0] * self.nearer, home[1] - self.angle, home[2] - self.angle])
        self.high = np.array([home[0] * self.farther, home[1] + self.angle, home[2] + self.angle])
        if self.upper_only:
            self.low[2] = max(self.low[2], 0.0)
            self.high[2] = min(self.high[2], max(home[2], np.pi / 2))
        self.at = rng.uniform(self.low, self.high)
        self.roll = rng.uniform(-self.angle, self.angle)
        direction = rng.normal(size=3)
        self.velocity = direction / np.linalg.norm(direction) * rng.uniform(0, self.speed_max)
        self.roll_velocity = rng.uniform(-self.roll_max, self.roll_max)
        self.move(rng)

    def move(self, rng: np.random.Generator) -> None:
        """One step of the walk. The ranges clip the step, and the new velocity is the clipped step."""
        scale = self.home[0] / 4
        velocity = self.velocity + rng.normal(0, self.speed_std * scale, 3)
        velocity *= min(1.0, self.speed_max * scale / max(np.linalg.norm(velocity), 1e-12))
        before = cartesian(self.at)
        self.at = spherical(before + velocity, self.home[1]).clip(self.low, self.high)
        self.velocity = cartesian(self.at) - before
        turn = np.clip(self.roll_velocity + rng.normal(0, self.roll_std), -self.roll_max, self.roll_max)
        roll = np.clip(self.roll + turn, -self.angle, self.angle)
        self.roll_velocity, self.roll = roll - self.roll, roll

    def origin(self, physics: Any) -> np.ndarray:
        """The origin of the coordinates in which the camera walks."""
        if self.carried:
            return physics.data.cam_xpos[0] - cartesian(self.home)
        return np.zeros(3) if self.fixed else physics.data.subtree_com[AGENT]

    def pose(self, physics: Any) -> tuple[np.ndarray, np.ndarray]:
        """Position and axes (right, up, back; flattened like MuJoCo's). The simulator must still hold the suite's own pose."""
        position = self.origin(physics) + cartesian(self.at)
        back = position - (self.aim if self.fixed else viewed(physics))
        back /= np.linalg.norm(back)
        if self.carried:
            axes = leaning(physics.data.cam_xmat[0].reshape(3, 3), back)
        elif self.upper_only:
            axes = upright(back)
        else:
            axes = turned(back)
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return position, (axes @ [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]).flatten()


def viewed(physics: Any) -> np.ndarray:
    """The point that the suite's own camera looks at: on its viewing axis, at the distance of the agent."""
    position, back = physics.data.cam_xpos[0], physics.data.cam_xmat[0].reshape(3, 3)[:, 2]
    return position - back * np.linalg.norm(position - physics.data.subtree_com[AGENT])


def upright(back: np.ndarray) -> np.ndarray:
    """Axes of a camera with an upright picture."""
    azimuth = np.arctan2(back[0], -back[1])
    right = np.array([np.cos(azimuth), np.sin(azimuth), 0])
    return np.stack([right, np.cross(back, right), back], 1)


def turned(back: np.ndarray) -> np.ndarray:
    """Axes of a camera that looks down and turns by the smallest angle. Straight above the agent, `upright` would spin the picture."""
    x, y, z = back
    cross = np.array([[0, 0, x], [0, 0, y], [-x, -y, 0]])  # times a vector: the cross product with (0, 0, 1) x back
    return np.eye(3) + cross + cross @ cross / (1 + z)


def leaning(own: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The axes `own`, turned by the smallest angle until the camera looks along -back."""
    return own @ turned(own.T @ back)


def spherical(offset: np.ndarray, near: float = 0.0) -> np.ndarray:
    """Radius, azimuth within half a turn of `near`, angle from the vertical."""
    flat = np.hypot(offset[0], offset[1])
    azimuth = np.arctan2(offset[1], offset[0])
    return np.array([np.hypot(flat, offset[2]), near + (azimuth - near + np.pi) % (2 * np.pi) - np.pi, np.arctan2(flat, offset[2])])


def cartesian(at: np.ndarray) -> np.ndarray:
    radius, azimuth, angle = at
    flat = radius * np.sin(angle)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), radius * np.cos(angle)])
