"""The worlds and their names."""

from dataclasses import dataclass

from ..core.errors import UserError, nearest
from ..core.method.footage import folder
from ..core.run.config import Config

WORLDS = ("clean", "color_easy", "color_hard", "video_easy", "video_hard", "distracting_cs")
INTENSITIES = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class WorldName:
    """The name of a world for training or evaluation."""

    name: str
    intensity: float | None = None  # of distracting_cs

    def __str__(self) -> str:
        return self.name if self.intensity is None else f"{self.name}_{self.intensity:g}"


def world_names(names: list[str], intensities: list[float]) -> list[WorldName]:
    """The named worlds without repeats; distracting_cs once per intensity."""
    for intensity in intensities:
        if intensity not in INTENSITIES:
            raise UserError(f"intensity {intensity:g} does not exist: distracting_cs has {', '.join(f'{i:g}' for i in INTENSITIES)}")
    out = []
    for name in names:
        if name not in WORLDS:
            raise UserError(f"world {name} does not exist: {nearest(name, WORLDS)}")
        out += [WorldName(name, float(i)) for i in intensities] if name == "distracting_cs" else [WorldName(name)]
    if not out or ("distracting_cs" in names and not intensities):
        raise UserError("name at least one world, and an intensity with distracting_cs")
    return list(dict.fromkeys(out))


def is_procedural(world: WorldName, data: Config) -> bool:
    """Whether the world shows generated pictures or colours instead of footage."""
    source = {"video_easy": data.video, "video_hard": data.video, "distracting_cs": data.davis}
    return not source.get(world.name, world.name == "clean")


def label(world: WorldName, data: Config) -> str:
    """The world's name in tables and plots."""
    return f"{world} (procedural)" if is_procedural(world, data) else str(world)


def check_data(data: Config, keys: tuple[str, ...] = ("video", "images", "davis")) -> None:
    """Raise a UserError if a folder in `data` does not exist."""
    for key in keys:
        folder(f"data.{key}", getattr(data, key))
