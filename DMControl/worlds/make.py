"""Make a world from its name."""

from ..core.run.config import Config
from . import footage, procedural
from .catalogue import WorldName
from .scene import Colour, Distraction, Video, World

VIDEOS = {"video_easy": 10, "video_hard": 100}  # as published
BACKGROUNDS = {0.025: 2, 0.05: 2, 0.1: 4, 0.15: 6, 0.2: 8}  # number of videos; all 60 at higher intensities
SIGMA = {"color_easy": 0.1, "color_hard": 0.2}


def make(world: WorldName, data: Config, training: bool = False) -> World | None:
    """The world for one environment; None for the clean one. Missing footage is an error here, before the first episode.

    training: use other procedural clips and colours than for evaluation. Footage is the same for both, as published.
    """
    if world.name in SIGMA:
        return Colour(procedural.colour_settings(SIGMA[world.name], world.name, training))
    if world.name in VIDEOS:
        count = VIDEOS[world.name]
        clips = footage.videos(data.video, world.name, count) if data.video else procedural.clips(world.name, count, training)
        return Video(clips, floor=world.name == "video_hard")
    if world.name == "distracting_cs":
        count = BACKGROUNDS.get(world.intensity, 60)
        clips = footage.davis(data.davis, count) if data.davis else procedural.clips(world.name, count, training)
        return Distraction(clips, world.intensity)
    return None
