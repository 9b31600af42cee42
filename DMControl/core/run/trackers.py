"""Where a run's curves and pictures are shown: tracker=tensorboard, wandb or none. train.csv and eval.csv are written with each.

A tracker's packages are imported with the tracker, so that a run needs and loads only those of its own.
"""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import numpy as np
import yaml

from ..errors import UserError
from .config import flatten
from .writers import gif

UNLISTED = ("device", "compile", "threads", "runs", "tracker", "checkpoint", "eval.video")  # settings that tables of runs leave out


class Header(NamedTuple):
    """What a tracker gets once, at the start of a run."""

    config: dict[str, Any]
    command: str
    charts: dict[str, dict[str, list[str]]]  # {group: {chart: [scalars]}}
    first: tuple[str, ...]  # the first settings in a table of runs
    scores: tuple[str, ...]  # the scalars by which runs are compared

    @property
    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in flatten(self.config) if not k.startswith(UNLISTED)}


class Tracker:
    """tracker=none, and the interface of the others. `step` counts env steps or frames."""

    def scalars(self, values: dict[str, float], step: int) -> None: ...

    def image(self, name: str, image: np.ndarray, step: int) -> None: ...  # (H, W, 3) uint8

    def animation(self, name: str, frames: list[np.ndarray], step: int, fps: int) -> None: ...

    def flush(self) -> None:
        """Write the points that are still in memory."""

    def close(self) -> None: ...


class TensorBoard(Tracker):
    """Event files in the run folder."""

    def __init__(self, folder: Path, header: Header, resumed_at: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=None if resumed_at is None else resumed_at + 1)
        if resumed_at is None:
            self._begin(header)

    def _begin(self, header: Header) -> None:
        self.writer.add_text("run/command", f"    {header.command}")
        self.writer.add_text("run/config", indent(yaml.safe_dump(header.config, sort_keys=False), "    "))  # four spaces: a code block
        exact = {g: {c: ["Multiline", [f"^{tag}$" for tag in tags]] for c, tags in own.items()} for g, own in header.charts.items()}
        self.writer.add_custom_scalars(exact)  # tags are regular expressions here
        self._fill_hparams(header)

    def _fill_hparams(self, header: Header) -> None:
        """The HParams tab: the settings as columns, and the last values of the scores."""
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if type(v) in (int, float) else str(v) for k, v in header.settings.items()}
        columns, start, _ = hparams(plain, dict.fromkeys(header.scores, 0.0))
        plugin = columns.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in header.first  # TensorBoard shows these columns first
        plugin.content = content.SerializeToString()
        for summary in (columns, start):
            self.writer._get_file_writer().add_summary(summary)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        self.writer.add_image(name, image, step, dataformats="HWC")

    def animation(self, name: str, frames: list[np.ndarray], step: int, fps: int) -> None:
        """Add a GIF, which the Images tab plays."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width = frames[0].shape[:2]
        encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif(frames, fps))
        summary = Summary(value=[Summary.Value(tag=name, image=encoded)])
        self.writer._get_file_writer().add_summary(summary, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Wandb(Tracker):
    """Weights & Biases, with its own environment variables. Its files lie in the run folder, under wandb/."""

    def __init__(self, folder: Path, header: Header, axis: str, resumed_at: int | None) -> None:
        import wandb

        self.wandb, self.axis = wandb, axis
        identity = folder / "wandb_id"  # a resumed run goes on under its own
        if resumed_at is None or not identity.exists():
            identity.write_text(os.urandom(4).hex())
        try:
            self.run = wandb.init(
                dir=str(folder),
                project=os.environ.get("WANDB_PROJECT", "mlr"),
                id=identity.read_text(),
                resume="allow",
                name="/".join(str(header.config[key]) for key in header.first if header.config[key] != ""),
                config={**header.settings, "command": header.command},
                settings=wandb.Settings(silent=True, console="off"),
            )
        except Exception as error:  # of many kinds: its own, pydantic's, the network's
            said = next(iter(str(error).splitlines()), type(error).__name__)
            advice = "`wandb login` logs in, and WANDB_MODE=offline needs neither login nor network"
            raise UserError(f"tracker=wandb cannot begin ({said}): {advice}") from error
        self.run.define_metric("*", step_metric=axis)
        self.lost = False
        print(f"wandb: offline; send it with: wandb sync {folder}/wandb/offline-run-*" if self.run.offline else f"wandb: {self.run.url}")

    def _log(self, values: Callable[[], dict[str, Any]], step: int) -> None:
        """A tracker that fails does not stop the run."""
        if self.lost:
            return
        try:
            self.run.log({**values(), self.axis: step})
        except Exception as error:
            self.lost = True
            print(f"\ntracker=wandb has stopped ({error}): the run goes on, and train.csv and eval.csv have all numbers")

    def scalars(self, values: dict[str, float], step: int) -> None:
        self._log(lambda: values, step)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        self._log(lambda: {name: self.wandb.Image(image)}, step)

    def animation(self, name: str, frames: list[np.ndarray], step: int, fps: int) -> None:
        self._log(lambda: {name: self.wandb.Video(io.BytesIO(gif(frames, fps)), format="gif")}, step)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.run.finish()


def make(name: str, folder: Path, header: Header, axis: str, resumed_at: int | None) -> Tracker:
    """axis: the name of the steps; resumed_at: the step of the save from which the run goes on, None at its start."""
    if name == "tensorboard":
        return TensorBoard(folder, header, resumed_at)
    return Wandb(folder, header, axis, resumed_at) if name == "wandb" else Tracker()
