"""Arguments that a command takes, and what it says of those that it does not."""

import pytest

from DMControl.core.errors import UserError
from DMControl.core.run.options import Options

DEFAULTS = {"run": "", "episodes": "10", "video": "false", "intensities": "0.1"}


def test_what_is_typed_replaces_the_defaults_and_nothing_else():
    options = Options(["episodes=3", "RUN", "intensities=0.5,1e-2", "video=True", "run=a=b"], DEFAULTS, words=True)
    assert (options.whole("episodes"), options.numbers("intensities"), options.flag("video")) == (3, [0.5, 0.01], True)
    assert options["run"] == "a=b" and options.words == ["RUN"]
    assert DEFAULTS["episodes"] == "10" and Options([], DEFAULTS).whole("episodes") == 10


@pytest.mark.parametrize("argument", ["episods=3", "episodes=", "RUN", "=3"])
def test_what_sets_nothing_is_refused(argument):
    with pytest.raises(UserError, match="is unknown: write key=value with one of run, episodes, video, intensities"):
        Options([argument], DEFAULTS)


@pytest.mark.parametrize("value", ["-1", "1.0", "²", "٣", "x", "11"])
def test_a_whole_number_is_whole_and_in_its_range(value):
    with pytest.raises(UserError, match="must be a whole number between 1 and 10"):
        Options([f"episodes={value}"], DEFAULTS).whole("episodes", 1, 10)


def test_flags_and_numbers():
    with pytest.raises(UserError, match="video=yes must be true or false"):
        Options(["video=yes"], DEFAULTS).flag("video")
    with pytest.raises(UserError, match=r"intensities=0\.1; must be numbers"):
        Options(["intensities=0.1;"], DEFAULTS).numbers("intensities")
