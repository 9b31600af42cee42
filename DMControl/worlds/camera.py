"""The camera of distracting_cs."""

from typing import Any

import numpy as np


class Camera:
    """Where camera 0 stands, in spherical coordinates around the agent's first body: it drifts at random within its ranges."""

    def __init__(self, intensity: float, upper_only: bool) -> None:
        s = self.intensity = intensity
        self.upper_only = upper_only
        self.angle, self.roll_angle = np.pi / 2 * s, np.pi / 2 * s
        self.nearer, self.farther = 1 - 0.5 * s, 1 + 1.5 * s
        self.speed_std, self.speed_max = 0.1 * s, 0.4 * s  # at a radius of 4
        self.roll_std, self.roll_max = np.pi / 300 * s, np.pi / 50 * s

    def start(self, physics: Any, rng: np.random.Generator) -> None:
        offset, up = physics.data.cam_xpos[0] - physics.data.xpos[1], physics.data.cam_xmat[0].reshape(3, 3)[:, 1]
        self.home = spherical(offset)  # radius, azimuth, elevation
        if np.hypot(*offset[:2]) < 1e-3 * self.home[0]:  # straight above: the azimuth at which the picture stays upright
            self.home[1] = np.arctan2(-up[1], -up[0])
        away = rng.uniform(-1, 1, 3)
        radius = rng.uniform(self.nearer, self.farther) * self.home[0]
        self.at = self.within(np.array([radius, self.home[1] + away[0] * self.angle, self.home[2] + away[1] * self.angle]))
        self.roll = away[2] * self.roll_angle
        self.velocity, self.roll_velocity = np.zeros(3), 0.0

    def move(self, physics: Any, rng: np.random.Generator) -> None:
        scale = self.home[0] / 4
        velocity = self.velocity + rng.normal(0, self.speed_std * scale, 3)
        speed = np.linalg.norm(velocity)
        velocity *= min(1.0, self.speed_max * scale / max(speed, 1e-12))
        before = cartesian(self.at)
        self.at = self.within(spherical(before + velocity))
        self.velocity = cartesian(self.at) - before  # what the ranges left of it
        turn = np.clip(self.roll_velocity + rng.normal(0, self.roll_std), -self.roll_max, self.roll_max)
        roll = np.clip(self.roll + turn, -self.roll_angle, self.roll_angle)
        self.roll_velocity, self.roll = roll - self.roll, roll

    def within(self, at: np.ndarray) -> np.ndarray:
        radius = np.clip(at[0], self.nearer * self.home[0], self.farther * self.home[0])
        azimuth = self.home[1] + np.clip((at[1] - self.home[1] + np.pi) % (2 * np.pi) - np.pi, -self.angle, self.angle)
        elevation = self.home[2] + np.clip(at[2] - self.home[2], -self.angle, self.angle)
        if self.upper_only:
            elevation = max(elevation, 0.0)
        return np.array([radius, azimuth, min(elevation, 0.499 * np.pi)])

    def pose(self, physics: Any) -> tuple[np.ndarray, np.ndarray]:
        """Position, and the axes of a camera that looks at the agent: right, up, back."""
        offset = cartesian(self.at)
        back = offset / np.linalg.norm(offset)
        right = np.cross((0.0, 0.0, 1.0), back)
        right /= np.linalg.norm(right)
        up = np.cross(back, right)
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        axes = np.stack([cos * right + sin * up, cos * up - sin * right, back], 1)
        return physics.data.xpos[1] + offset, axes.flatten()


def spherical(offset: np.ndarray) -> np.ndarray:
    radius = np.linalg.norm(offset)
    return np.array([radius, np.arctan2(offset[1], offset[0]), np.arcsin(np.clip(offset[2] / radius, -1, 1))])


def cartesian(at: np.ndarray) -> np.ndarray:
    radius, azimuth, elevation = at
    flat = radius * np.cos(elevation)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), radius * np.sin(elevation)])
