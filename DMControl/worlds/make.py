"""A world for an environment."""

from ..core.run.config import Config
from . import footage, procedural
from .catalogue import Place
from .scene import Colour, Distraction, Video, World

VIDEOS = {"video_easy": 10, "video_hard": 100}  # as published
BACKGROUNDS = {0.025: 2, 0.05: 2, 0.1: 4, 0.15: 6, 0.2: 8}  # the first so many of 60 videos; all above
SIGMA = {"color_easy": 0.1, "color_hard": 0.2}


def make(place: Place, data: Config, training: bool = False) -> World | None:
    """The world for one environment; footage is looked at here, so that what is missing is missed at once.

    training: procedural clips and colours of their own. Footage is the same for training and judging, as published.
    """
    if place.name in SIGMA:
        return Colour(procedural.colour_settings(SIGMA[place.name], place.name, training))
    if place.name in VIDEOS:
        count = VIDEOS[place.name]
        clips = footage.videos(data.video, place.name, count) if data.video else procedural.clips(place.name, count, training)
        return Video(clips, floor=place.name == "video_hard")
    if place.name == "distracting_cs":
        count = BACKGROUNDS.get(place.intensity, 60)
        clips = footage.davis(data.davis, count) if data.davis else procedural.clips(place.name, count, training)
        return Distraction(clips, place.intensity)
    return None
