"""The user's videos, in the folder layout of the published benchmarks."""

from ..core.errors import UserError
from ..core.method.footage import VIDEO_ENDINGS, Film, check, folder, pictures_in, video_files

# the training videos of DAVIS 2017, in the order of distracting_cs
DAVIS = [
    "bear", "bmx-bumps", "boat", "boxing-fisheye", "breakdance-flare", "bus", "car-turn", "cat-girl", "classic-car", "color-run",
    "crossing", "dance-jump", "dancing", "disc-jockey", "dog-agility", "dog-gooses", "dogs-scale", "drift-turn", "drone",
    "elephant", "flamingo", "hike", "hockey", "horsejump-low", "kid-football", "kite-walk", "koala", "lady-running", "lindy-hop",
    "longboard", "lucia", "mallard-fly", "mallard-water", "miami-surf", "motocross-bumps", "motorbike", "night-race",
    "paragliding", "planes-water", "rallye", "rhino", "rollerblade", "schoolgirls", "scooter-board", "scooter-gray", "sheep",
    "skate-park", "snowboard", "soccerball", "stroller", "stunt", "surf", "swing", "tennis", "tractor-sand", "train", "tuk-tuk",
    "upside-down", "varanus-cage", "walking",
]  # fmt: skip


def videos(name: str, world: str, count: int) -> list[Film]:
    """The first `count` videos of NAME/<world>, in the order of their numbers."""
    root = folder("data.video", name)
    root = root / world if (root / world).is_dir() else root
    found = video_files(root)
    if len(found) < count:
        raise UserError(f"{world} takes {count} videos, but {root} holds {len(found)} ({', '.join(VIDEO_ENDINGS)})")
    for path in found[:count]:
        check(path)
    return [Film(path) for path in found[:count]]


def davis(name: str, count: int) -> list[Film]:
    """The first `count` of the 60 videos of DAVIS; of another collection, the first folders by name."""
    root = folder("data.davis", name)
    for below in ("DAVIS/JPEGImages/480p", "JPEGImages/480p"):
        root = root / below if (root / below).is_dir() else root
    found = {p.name: p for p in sorted(root.iterdir()) if p.is_dir() and pictures_in(p)}
    known = [found[n] for n in DAVIS if n in found]
    chosen = known if len(known) >= count else list(found.values())
    if len(chosen) < count:
        raise UserError(f"distracting_cs takes {count} videos at this intensity, but {root} holds {len(chosen)} folders of images")
    for path in chosen[:count]:
        check(path)
    return [Film(path) for path in chosen[:count]]
