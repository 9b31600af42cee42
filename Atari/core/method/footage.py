"""The user's videos and images."""

import os
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..errors import UserError

SMALLEST = 100  # smallest side, in pixels
VIDEO_ENDINGS, IMAGE_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm"), (".jpg", ".jpeg", ".png")
KEPT = 2  # videos that stay in memory
BYTES = 200_000_000  # of a video in memory; larger videos are scaled down
_cached: OrderedDict[str, np.ndarray] = OrderedDict()


class Film:
    """A video file, or a folder of images in alphabetical order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = len(pictures_in(path)) if path.is_dir() else 0

    def __len__(self) -> int:
        return len(self.frames()) if not self.length else self.length

    def frame(self, i: int) -> np.ndarray:
        frames = self.frames()
        return frames[i % len(frames)]

    def frames(self) -> np.ndarray:
        """(T, H, W, 3) uint8"""
        key = str(self.path)
        if key not in _cached:
            _cached[key] = read(self.path)
        _cached.move_to_end(key)
        while len(_cached) > KEPT:
            _cached.popitem(last=False)
        return _cached[key]


def read(path: Path) -> np.ndarray:
    """All frames, (T, H, W, 3) uint8."""
    return np.stack(_read_folder(path) if path.is_dir() else _read_video(path))


def folder(key: str, name: str) -> Path | None:
    if not name:
        return None
    if not Path(name).is_dir():
        raise UserError(f"{key}={name} is not a folder: name one, or leave {key} empty for procedural ones")
    return Path(name)


def images(name: str, count: int, side: int, seed: int) -> np.ndarray:
    """The middle squares, at side x side, of `count` images drawn from all folders below NAME."""
    root = folder("data.images", name)
    root = root / "places365_standard" / "train" if (root / "places365_standard" / "train").is_dir() else root
    found = sorted(os.path.join(at, f) for at, _, files in os.walk(root) for f in files if f.lower().endswith(IMAGE_ENDINGS))
    if not found:
        raise UserError(f"{root} holds no images ({', '.join(IMAGE_ENDINGS)}) at any depth")
    out = np.empty((count, side, side, 3), np.uint8)
    for slot, choice in enumerate(np.random.default_rng(seed).permutation(max(count, len(found)))[:count] % len(found)):
        picture = check_image(Path(found[choice]))
        height, width = picture.shape[:2]
        square = min(height, width)
        top, left = (height - square) // 2, (width - square) // 2
        out[slot] = cv2.resize(picture[top : top + square, left : left + square], (side, side), interpolation=cv2.INTER_AREA)
    return out


def video_files(root: Path) -> list[Path]:
    """The video files in a folder, in the order of their numbers."""
    return sorted((p for p in root.iterdir() if p.suffix.lower() in VIDEO_ENDINGS), key=lambda p: (len(p.stem), p.stem))


def check(path: Path) -> None:
    """Raise a UserError if a video or an image of a folder cannot be read or was cut off. Damage in the middle goes unseen."""
    if not path.is_dir():
        _check_video(path)
        return
    for picture in pictures_in(path):
        _check_picture(picture)


def _check_video(path: Path) -> None:
    capture = cv2.VideoCapture(str(path))
    sides = [int(capture.get(k)) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    _check_size(path, *sides)
    length, whole = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.read()[0]
    if length > 1:  # a stream does not say how long it is
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(0.9 * length))
        reached = capture.get(cv2.CAP_PROP_POS_FRAMES)  # of a video that was cut off, the last frame that it has
        whole = whole and reached >= int(0.8 * length) and capture.read()[0]
    capture.release()
    if not whole:
        raise UserError(f"{path} is damaged: it cannot be read to its end")


def pictures_in(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())


def _check_size(path: Path, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise UserError(f"{path} cannot be read as a video")
    if min(width, height) < SMALLEST:
        raise UserError(f"{path} is too small: {width} x {height} pixels, at least {SMALLEST} x {SMALLEST} are needed")


def check_image(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise UserError(f"{path} cannot be read as an image")
    _check_picture(path)
    return picture[..., ::-1]


def _check_picture(path: Path) -> None:
    """Look for the end of the image here: OpenCV would decode what is left of one that was cut off."""
    with open(path, "rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        ended = (b"IEND" if path.suffix.lower() == ".png" else b"\xff\xd9") in file.read()
    try:
        with Image.open(path) as picture:
            _check_size(path, *picture.size)
            if not ended:  # or something follows its end
                picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is damaged or cannot be read as an image ({error})") from error


def _read_folder(path: Path) -> list[np.ndarray]:
    files = pictures_in(path)
    pictures = [_shrink(check_image(p), len(files)) for p in files]
    height, width = pictures[0].shape[:2]
    return [p if p.shape[:2] == (height, width) else cv2.resize(p, (width, height)) for p in pictures]


def _read_video(path: Path) -> list[np.ndarray]:
    capture, out = cv2.VideoCapture(str(path)), []
    length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    length = length if length > 0 else 500
    while True:
        good, picture = capture.read()
        if not good:
            break
        out.append(_shrink(picture[..., ::-1], length))
    capture.release()
    if not out:
        raise UserError(f"{path} cannot be read as a video")
    return out


def _shrink(picture: np.ndarray, count: int) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = (BYTES / (count * height * width * 3)) ** 0.5
    if factor >= 1:
        return np.ascontiguousarray(picture)
    return cv2.resize(
        np.ascontiguousarray(picture), (max(1, int(width * factor)), max(1, int(height * factor))), interpolation=cv2.INTER_AREA
    )
