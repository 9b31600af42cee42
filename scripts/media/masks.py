"""Show what a masking agent sees: frame, mask and masked frame side by side, in every world or distraction.

scripts/masks.sh RUN_DIR worlds=clean,video_hard intensities=0.1,0.5 steps=100
scripts/masks.sh RUN_DIR distractions=none,video strength=0.5      a run on Atari
scripts/masks.sh RUN_DIR figure=figs/madi.png      all.png there as well

In RUN_DIR/masks: <world>.png (frames of an episode) and <world>.mp4 (the episode) for each world, and all.png, one frame of each.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot

import Atari.distraction
import Atari.evaluate
import Atari.logger
import DMControl.evaluate
from Atari.core.errors import UserError as AtariUserError
from DMControl.core import machine
from DMControl.core.errors import UserError, run_main
from DMControl.core.run.agent import Agent
from DMControl.core.run.config import Config
from DMControl.core.run.folder import read_config
from DMControl.core.run.options import Options
from DMControl.core.run.writers import video
from DMControl.settings import worlds_of
from DMControl.worlds.catalogue import WORLDS, check_data, label, world_names
from scripts.trees import ATARI, DMCONTROL, Tree, tree_of

SHOWN = 6  # frames of an episode in a picture
NAMES = ("frame", "mask", "masked frame")
DEFAULTS = {"figure": "", "steps": "100", "device": "auto", "threads": "0"}
OWN = {  # options of a tree
    DMCONTROL: {"worlds": ",".join(WORLDS), "intensities": "0.1", "data.video": "", "data.davis": ""},
    ATARI: {"distractions": ",".join(Atari.distraction.DISTRACTIONS), "strength": "", "data.video": ""},
}


def asked(tree: Tree, config: Config, options: Options) -> dict[Any, str]:
    """The worlds or distractions that the user asks for, with their labels. Puts the user's folders into the settings."""
    if tree is ATARI:
        try:
            return {d: Atari.distraction.label(d, config.data) for d in Atari.evaluate.asked(config, options)}
        except AtariUserError as error:
            raise UserError(str(error)) from error
    wanted = world_names(options["worlds"].split(","), options.numbers("intensities"))
    config["data"].update({key: options[f"data.{key}"] for key in ("video", "davis") if options[f"data.{key}"]})
    check_data(config.data, ("video", "davis"))  # overlay images are for training
    return {world: label(world, config.data) for world in wanted}


def look(agent: Agent, config: Config, world: Any, steps: int, device: torch.device) -> tuple[list[np.ndarray], float]:
    """Each step's three pictures, (3, H, W, 3) uint8, of a deterministic episode; and its frames per second."""
    tree = tree_of(config)
    own = Atari.distraction.distractions_of(config)[0] if tree is ATARI else worlds_of(config)[0]
    env = tree.load("evaluate").make_env(config, config.seed + 10_000, tree.load("env").EVALUATE, world)
    stack, out = tree.make_stack(config, device), []
    stack.start(env.reset(0))
    while not env.over and len(out) < steps:
        obs = tree.observation(stack, device)
        seen = (p[0].permute(1, 2, 0).cpu().numpy() for p in agent.seen(obs, world != own).values())
        out.append(np.stack([np.broadcast_to(p, (*p.shape[:2], 3)) for p in seen]))  # grey frames have one channel
        tree.push(stack, env.step(tree.act(agent, obs, explore=False, elsewhere=world != own)))
    if tree is ATARI:
        return out, Atari.logger.FPS
    env.close()
    return out, env.fps


def draw(columns: list[np.ndarray], titles: list[str], heading: str, path: Path) -> None:
    """Columns of three pictures each, named."""
    figure, axes = pyplot.subplots(3, len(columns), figsize=(1.75 * len(columns) + 0.4, 5.6), layout="constrained", squeeze=False)
    for column, (pictures, name) in enumerate(zip(columns, titles, strict=True)):
        axes[0, column].set_title(name, fontsize=8)
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture, vmin=0, vmax=255)
            axes[row, column].set(xticks=[], yticks=[])
    for row, name in enumerate(NAMES):
        axes[row, 0].set_ylabel(name)
    figure.suptitle(heading, fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str]) -> int:
    words = [a for a in arguments if "=" not in a]
    if len(words) != 1:
        raise UserError("say which run: scripts/masks.sh runs/<dmcontrol or atari>/<task>/madi-<preset>/seed<k>")
    path = Path(words[0])
    config = read_config(path)
    tree = tree_of(config)
    options = Options(arguments, DEFAULTS | OWN[tree], words=True)
    steps, threads = options.whole("steps", 1), options.whole("threads", 0, 1024)
    wanted = asked(tree, config, options)
    precision = machine.choose_precision(config.precision, machine.choose_device(options["device"]))
    machine.set_threads(threads)
    agent, step = tree.load_agent(path, config, tree.make_env(config, config.seed, judge=True, clean=True), precision)
    if "agent/mask" not in agent.columns:
        raise UserError(f"{path} holds an agent of method={config.method}, which masks nothing: take a run of madi or mlr_madi")
    method = DMControl.evaluate.title(config) if tree is DMCONTROL else config.method
    heading = f"{config[tree.task]}, {method}, preset {config.preset}, {step * tree.repeat(config):,} {tree.unit}"
    target, columns = path / "masks", []
    target.mkdir(exist_ok=True)
    with torch.no_grad():
        for world, name in wanted.items():
            seen, fps = look(agent, config, world, steps, precision.device)
            shown = np.linspace(0, len(seen) - 1, min(SHOWN, len(seen))).astype(int)
            draw([seen[i] for i in shown], [f"step {i}" for i in shown], f"{heading}, {name}", target / f"{world}.png")
            wide = [np.repeat(np.repeat(np.concatenate(list(p), 1), 3, 0), 3, 1) for p in seen]
            video(target / f"{world}.mp4", wide, max(1, round(fps)))
            columns.append(seen[len(seen) // 2])
            means = np.mean([p[1] for p in seen]) / 255
            print(f"{name}: mean mask {means:.3f}: {target / str(world)}.png, .mp4", flush=True)
    titles = [name.replace(" (", "\n(").replace("distracting_cs", "distracting_cs\n") for name in wanted.values()]
    draw(columns, titles, heading, target / "all.png")
    print(f"all worlds: {target / 'all.png'}")
    if options["figure"]:
        draw(columns, titles, heading, Path(options["figure"]))
        print(f"figure: {options['figure']}")
    return 0


if __name__ == "__main__":
    run_main(main)
