"""Worlds: the same task, seen otherwise. Physics, rewards and initial states are the same in all of them.

clean             the suite as it is
color_easy/hard   agent, floor and sky in one of 100 random sets of colours
video_easy/hard   a video behind the agent, in place of the sky (easy) or of sky and floor (hard)
distracting_cs    a video on the sky, changing colours, a moving camera: the Distracting Control Suite, at eight intensities
"""

from dataclasses import dataclass

from ..core.config import Config
from ..core.errors import UserError, nearest
from . import footage, procedural
from .scene import Colour, Distraction, Video, World

WORLDS = ("clean", "color_easy", "color_hard", "video_easy", "video_hard", "distracting_cs")
INTENSITIES = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
VIDEOS = {"video_easy": 10, "video_hard": 100}  # as published
BACKGROUNDS = {0.025: 2, 0.05: 2, 0.1: 4, 0.15: 6, 0.2: 8}  # the first so many of 60 videos; all above
SIGMA = {"color_easy": 0.1, "color_hard": 0.2}


@dataclass(frozen=True)
class Place:
    """A world to train or to be judged in."""

    name: str
    intensity: float | None = None  # of distracting_cs

    def __str__(self) -> str:
        return self.name if self.intensity is None else f"{self.name}_{self.intensity:g}"


def places(names: list[str], intensities: list[float]) -> list[Place]:
    """Each world once, distracting_cs once per intensity."""
    for intensity in intensities:
        if intensity not in INTENSITIES:
            raise UserError(f"intensity {intensity:g} does not exist: distracting_cs has {', '.join(f'{i:g}' for i in INTENSITIES)}")
    out = []
    for name in names:
        if name not in WORLDS:
            raise UserError(f"world {name} does not exist: {nearest(name, WORLDS)}")
        out += [Place(name, float(i)) for i in intensities] if name == "distracting_cs" else [Place(name)]
    if not out:
        raise UserError("no world is named, or distracting_cs without an intensity")
    return list(dict.fromkeys(out))


def make(place: Place, data: Config) -> World | None:
    """The world for one environment; footage is looked at here, so that what is missing is missed at once."""
    if place.name in SIGMA:
        return Colour(procedural.colour_settings(SIGMA[place.name], place.name))
    if place.name in VIDEOS:
        count = VIDEOS[place.name]
        clips = footage.videos(data.video, place.name, count) if data.video else procedural.clips(place.name, count)
        return Video(clips, floor=place.name == "video_hard")
    if place.name == "distracting_cs":
        count = BACKGROUNDS.get(place.intensity, 60)
        clips = footage.davis(data.davis, count) if data.davis else procedural.clips(place.name, count)
        return Distraction(clips, place.intensity)
    return None


def is_procedural(place: Place, data: Config) -> bool:
    """Whether what the world shows was generated and not filmed. The colours are drawn as published, from a seed of ours."""
    source = {"video_easy": data.video, "video_hard": data.video, "distracting_cs": data.davis}
    return not source.get(place.name, place.name == "clean")


def label(place: Place, data: Config) -> str:
    """The world's name in tables and plots."""
    return f"{place} (procedural)" if is_procedural(place, data) else str(place)


def check_data(data: Config) -> None:
    """The folders that the user named exist."""
    for key, folder in (("video", data.video), ("images", data.images), ("davis", data.davis)):
        footage.folder(f"data.{key}", folder)
