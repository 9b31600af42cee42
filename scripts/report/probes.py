"""The report's tables of what the probes measured: what a linear map reads from latents, and what MLR's decoder learns."""

from scripts.probes import measurements
from scripts.report.data import OURS_FIRST, method_name, preset_order
from scripts.report.page import Page, number, ours_text, span
from scripts.trees import DMCONTROL, tree_named


def readout_table(page: Page) -> None:
    """What a linear map reads from the latents, as scripts/readout.sh measured it."""
    found: dict[tuple, list[dict[str, str]]] = {}
    for r in measurements.READOUT.read(page.results):
        found.setdefault((r["benchmark"], r["task"], r["preset"], r["method"], r["name"], int(r["step"])), []).append(r)

    def order(key: tuple) -> tuple:
        benchmark, task, preset, method, name, step = key
        first = (measurements.UNTRAINED, *OURS_FIRST)
        position = first.index(method) if method in first else len(first)
        return benchmark != DMCONTROL.name, preset_order(preset), task, name, position, method, -step

    if not found:
        return
    rows = []
    for key in sorted(found, key=order):
        benchmark, task, preset, method, name, step = key
        r2, rank = ([float(r[column]) for r in found[key]] for column in ("r2", "rank"))
        after = f"{step:,} {tree_named(benchmark).unit}" if step else ""
        losses = [[float(r[column]) for r in found[key]] for column in measurements.LOSSES if all(r[column] for r in found[key])]
        answer = " / ".join(span([f"{v:#.3g}" for v in sorted(values)]) for values in losses)
        encoder = f"{method_name(method)} {name}".strip()
        rows.append([task, preset, encoder, after, ours_text(r2, 2), span([number(v, 0) for v in sorted(rank)]), answer])
    page.say("## What a linear map reads from the latents")
    page.table(
        [
            *("task", "preset", "encoder of", "after"),
            *("R² of the simulator's state", "rank of the latents", "MLR's loss: own / other / constant"),
        ],
        rows,
    )
    page.say(
        "R² on episodes that the map was not fitted to, the same for all runs of a task and drawn once: 1 is all, 0 nothing or less. Mean"
        " over the parts of the state (DMControl: positions and velocities; Atari: the bytes of the console's memory), ± sample standard "
        "deviation over seeds. *untrained*: before the first update. *rank*: effective rank. *own*: MLR's loss on windows of these "
        "episodes; *other*: the same where the decoder is given other windows' masked frames and actions; *constant*: where the mean "
        "target answers all; each from the lowest seed to the highest. As far as *own* and *other* are equal, MLR's answer does not "
        "depend on its input. Losses of other masks, or of pixels, have other scales. Measured by `scripts/readout.sh`."
    )


def decoder_table(page: Page) -> None:
    """Whether MLR's answer comes to depend on its input, as scripts/decoder.sh measured it."""
    rows = measurements.DECODER.read(page.results)
    if not rows:
        return

    def order(row: dict[str, str]) -> tuple:
        trained = row["trained"]
        return row["game"], preset_order(row["preset"]), trained == measurements.IN_THE_RUN, trained, row["settings"], row["seed"]

    page.say("## What MLR's decoder learns")
    page.table(
        ["game", "preset", "run", "decoder trained", "settings", "after", "frame's share of the targets", "own / other / constant"],
        [
            [
                row["game"],
                row["preset"],
                f"{method_name(row['method'])} {row['name']}".strip() + f", seed {row['seed']}",
                row["trained"],
                f"`{row['settings']}`" if row["settings"] else "the preset's",
                row["after"],
                row["frame_share"],
                " / ".join(f"{float(row[c]):#.3g}" for c in measurements.LOSSES),
            ]
            for row in sorted(rows, key=order)
        ],
    )
    page.say(
        "Losses as above, on games that are not trained on; *in the run*: as its last evaluation logged them, on windows of its replay. "
        "*frame's share*: of the variance of the targets' directions, the part that is due to the frame; the rest comes from its random "
        "shift and intensity. Measured by `scripts/decoder.sh`."
    )
