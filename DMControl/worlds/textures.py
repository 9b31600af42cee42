"""The textures of the suite's sky and floor, changed in the model without reloading it."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mujoco
import numpy as np

from ..core.errors import UserError

SKY, GRID = "skybox", "grid"  # the sky's texture, and the texture of the material `grid`


class Textures:
    """Changes the suite's sky and floor in the model, and uploads them to the renderer before the next frame."""

    def __init__(self, physics: Any) -> None:
        self.physics, self.model = physics, physics.model
        self.stale: set[str] = set()
        self.number = self.find()
        data = self.pixels(SKY)
        self.stars = (data == 255).all(-1)
        edge = np.zeros(self.pixels(GRID).shape[:2], bool)
        edge[[0, -1]] = edge[:, [0, -1]] = True
        first = (self.pixels(GRID) == self.pixels(GRID)[1, 1]).all(-1)
        self.first, self.second = first & ~edge, ~first & ~edge

    def find(self) -> dict[str, int]:
        """The numbers of the textures of sky and floor, which differ between the suite's domains."""
        m = self.model
        skies = np.flatnonzero(m.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
        materials = {m.id2name(i, "material"): i for i in range(m.nmat)}
        if not len(skies) or not {"self", "grid"} <= materials.keys() or (floor := m.mat_texid[materials["grid"]].max()) < 0:
            raise UserError(f"the task's model ({m.name}) lacks the suite's sky, floor and colours: only world=clean fits it")
        return {SKY: int(skies[0]), GRID: int(floor)}

    def pixels(self, texture: str) -> np.ndarray:
        m, number = self.model, self.number[texture]
        height, width, start = int(m.tex_height[number]), int(m.tex_width[number]), int(m.tex_adr[number])
        return m.tex_data[start : start + height * width * 3].reshape(height, width, 3)

    def sky(self, upper: Sequence[float]) -> None:
        """The suite's gradient from another colour down to black, with its stars. A reload of the model gives the same bytes."""
        data, side = self.pixels(SKY), int(self.model.tex_width[self.number[SKY]])
        share = sky_gradient(side)
        for channel in range(3):
            faces = as_bytes(share * upper[channel])
            for position, face in enumerate((0, 0, 1, 2, 0, 0)):
                data[position * side : (position + 1) * side, :, channel] = faces[face]
        data[self.stars] = 255
        self.stale.add(SKY)

    def flood(self, texture: str, colour: Sequence[float]) -> None:
        """Fill a texture with one colour."""
        self.pixels(texture)[:] = as_bytes(np.array(colour))
        self.stale.add(texture)

    def grid(self, one: Sequence[float], two: Sequence[float]) -> None:
        """Set the two colours of the floor; its edges do not change."""
        data = self.pixels(GRID)
        for where, colour in ((self.first, one), (self.second, two)):
            data[where] = as_bytes(np.array(colour))
        self.stale.add(GRID)

    def upload(self) -> None:
        """Upload the changed textures. A new renderer needs no upload: it reads them from the model."""
        contexts = self.physics.contexts
        with contexts.gl.make_current() as context:
            for texture in sorted(self.stale):
                context.call(mujoco.mjr_uploadTexture, self.model.ptr, contexts.mujoco.ptr, self.number[texture])
        self.stale.clear()


def as_bytes(colour: np.ndarray) -> np.ndarray:
    return (255 * colour).astype(np.uint8)


@lru_cache(maxsize=1)
def sky_gradient(side: int) -> np.ndarray:
    """The share of the sky's upper colour in each pixel of MuJoCo's cube, from its elevation: (3, side, side); sides, above, below."""
    line = 2.0 * np.arange(side) / (side - 1) - 1
    far = np.sqrt(1 + line[None] ** 2 + line[:, None] ** 2)
    around = np.arcsin(-line[:, None] / far) / (0.5 * np.pi)
    above = 1 - np.arccos(1 / far) / (0.5 * np.pi)
    elevation = np.stack([around, above, -above])
    return (0.5 * (1 + elevation / np.sqrt(1 + elevation**2) * np.sqrt(2))).clip(0, 1)
