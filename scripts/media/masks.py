"""Show what a masking agent sees: frame, mask and masked frame side by side, in every world.

scripts/masks.sh RUN_DIR worlds=clean,video_hard intensities=0.1,0.5 steps=100
scripts/masks.sh RUN_DIR figure=figs/madi.png      all.png there as well

In RUN_DIR/masks: <world>.png (frames of an episode) and <world>.mp4 (the episode) for each world, and all.png, one frame of each.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot

from DMControl.core import machine
from DMControl.core.errors import UserError, run_main
from DMControl.core.run.agent import Agent
from DMControl.core.run.config import Config
from DMControl.core.run.folder import read_config
from DMControl.core.run.options import Options
from DMControl.core.run.writers import video
from DMControl.env import EVALUATE, Stack
from DMControl.evaluate import env_fps, load_agent, make_env, title
from DMControl.methods.madi import Masker
from DMControl.settings import worlds_of
from DMControl.worlds.catalogue import WORLDS, WorldName, check_data, label, world_names

SHOWN = 6  # frames of an episode in a picture
NAMES = ("frame", "mask", "masked frame")


def look(agent: Agent, config: Config, world: WorldName, steps: int, device: torch.device) -> tuple[list[np.ndarray], float]:
    """Each step's three pictures, (3, H, W, 3) uint8, of a deterministic episode; and its frames per second."""
    elsewhere, state = world != worlds_of(config)[0], agent.begin(1)
    env, stack, out = make_env(config, config.seed + 10_000, EVALUATE, world), Stack(config.image.stack, device), []
    stack.start(env.reset(0))
    while not env.over and len(out) < steps:
        obs = stack.observation()
        out.append(np.stack([p[0].permute(1, 2, 0).cpu().numpy() for p in agent.seen(obs, elsewhere).values()]))
        actions, state = agent.act(obs, state, explore=False, elsewhere=elsewhere)
        stack.push(env.step(actions[0]).frame)
    env.close()
    return out, env_fps(env)


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
    defaults = {"figure": "", "worlds": ",".join(WORLDS), "intensities": "0.1", "steps": "100", "device": "auto", "threads": "0"}
    folders = {"data.video": "", "data.davis": ""}
    options = Options(arguments, defaults | folders, words=True)
    steps, threads = options.whole("steps", 1), options.whole("threads", 0, 1024)
    if len(options.words) != 1:
        raise UserError("say which run: scripts/masks.sh runs/dmcontrol/<task>/madi-<preset>/seed<k>")
    wanted = world_names(options["worlds"].split(","), options.numbers("intensities"))
    path = Path(options.words[0])
    config = read_config(path)
    config["data"].update({k.removeprefix("data."): options[k] for k in folders if options[k]})
    check_data(config.data, ("video", "davis"))  # overlay images are for training
    precision = machine.choose_precision(config.precision, machine.choose_device(options["device"]))
    machine.set_threads(threads)
    env = make_env(config, config.seed, EVALUATE, WorldName("clean"))
    agent, step = load_agent(path, config, env.action_dim, precision)
    env.close()
    if not isinstance(getattr(agent, "pixels", None), Masker):
        raise UserError(f"{path} holds an agent of method={config.method}, which masks nothing: take a run of madi or mlr_madi")
    heading = f"{config.task}, {title(config)}, preset {config.preset}, {step * config.action_repeat:,} env steps"
    target, columns = path / "masks", []
    target.mkdir(exist_ok=True)
    with torch.no_grad():
        for world in wanted:
            seen, fps = look(agent, config, world, steps, precision.device)
            chosen = np.linspace(0, len(seen) - 1, min(SHOWN, len(seen))).astype(int)
            titles = [f"step {i}" for i in chosen]
            draw([seen[i] for i in chosen], titles, f"{heading}, {label(world, config.data)}", target / f"{world}.png")
            wide = [np.repeat(np.repeat(np.concatenate(list(p), 1), 3, 0), 3, 1) for p in seen]
            video(target / f"{world}.mp4", wide, max(1, round(fps)))
            columns.append(seen[len(seen) // 2])
            means = np.mean([p[1] for p in seen]) / 255
            print(f"{label(world, config.data)}: mean mask {means:.3f}: {target / str(world)}.png, .mp4", flush=True)
    titles = [label(p, config.data).replace(" (", "\n(").replace("distracting_cs", "distracting_cs\n") for p in wanted]
    draw(columns, titles, heading, target / "all.png")
    print(f"all worlds: {target / 'all.png'}")
    if options["figure"]:
        draw(columns, titles, heading, Path(options["figure"]))
        print(f"figure: {options['figure']}")
    return 0


if __name__ == "__main__":
    run_main(main)
