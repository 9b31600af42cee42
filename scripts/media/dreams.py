"""Show what a world model believes: frames, reconstructions, and predictions without pictures, side by side.

scripts/dreams.sh RUN_DIR                    45 steps ahead after 5 frames, from 3 places of an evaluation episode
scripts/dreams.sh RUN_DIR steps=100 context=10 starts=5 figure=figs/dreams.png

In RUN_DIR/dreams: dreams.png, and dreams.mp4, which plays all places at once. The model gets all actions, but sees only the
frames of the context.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot
from torch import Tensor

from DMControl.agents.world_agent import WorldAgent, grey_levels
from DMControl.core import machine
from DMControl.core.errors import UserError, run_main
from DMControl.core.run.config import Config
from DMControl.core.run.folder import read_config
from DMControl.core.run.options import Options
from DMControl.core.run.writers import video
from DMControl.env import EVALUATE, Stack
from DMControl.evaluate import load_agent, make_env
from DMControl.settings import worlds_of

SHOWN = 10  # steps in the picture
ROWS = ("frame", "reconstruction", "prediction")


def episode(agent: WorldAgent, config: Config, device: torch.device) -> tuple[Tensor, Tensor, float]:
    """Frames (T, 3, H, W) and actions (T, A) of an evaluation episode, action t before frame t; and its frames per second."""
    env, stack = make_env(config, config.seed + 10_000, EVALUATE, worlds_of(config)[0]), Stack(1, device)
    frames, actions, state = [env.reset(0)], [np.zeros(env.action_dim, np.float32)], agent.begin(1)
    stack.start(frames[0])
    while not env.over:
        chosen, state = agent.act(stack.observation(), state, explore=False)
        frames.append(env.step(chosen[0]).frame)
        actions.append(chosen[0])
        stack.push(frames[-1])
    env.close()
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).to(device), torch.from_numpy(np.stack(actions)).to(device), env.fps


def dream(agent: WorldAgent, frames: Tensor, actions: Tensor, context: int, steps: int, starts: int) -> Tensor:
    """The three pictures of each step, (3, T, B, 3, H, W), from B places of an episode."""
    length = context + steps
    first = torch.linspace(0, len(frames) - length, starts, device=frames.device).long()
    index = first + torch.arange(length, device=frames.device)[:, None]  # (T, B)
    generator = torch.Generator(frames.device).manual_seed(0)
    seen = frames[index]
    return torch.stack([seen, *agent.dream(seen, actions[index], context, generator)])


def draw(pictures: np.ndarray, context: int, heading: str, path: Path) -> None:
    """pictures (3, T, H, W, 3): three rows, some steps. Those of the context come first."""
    chosen = np.unique(np.linspace(0, pictures.shape[1] - 1, SHOWN).round().astype(int))
    figure, axes = pyplot.subplots(3, len(chosen), figsize=(1.2 * len(chosen) + 0.6, 4.4), layout="constrained", squeeze=False)
    for column, t in enumerate(chosen):
        axes[0, column].set_title(f"seen, {t + 1}" if t < context else f"+{t - context + 1}", fontsize=8)
        for row in range(3):
            axes[row, column].imshow(pictures[row, t])
            axes[row, column].set(xticks=[], yticks=[])
    for row, name in enumerate(ROWS):
        axes[row, 0].set_ylabel(name, fontsize=8)
    figure.suptitle(heading, fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str]) -> int:
    options = Options(arguments, {"steps": "45", "context": "5", "starts": "3", "figure": "", "device": "auto", "threads": "0"}, words=True)
    steps, context, starts = (options.whole(name, 1, 1000) for name in ("steps", "context", "starts"))
    threads = options.whole("threads", 0, 1024)
    if len(options.words) != 1:
        raise UserError("say which run: scripts/dreams.sh runs/dmcontrol/<task>/dreamer-<preset>/seed<k>")
    path = Path(options.words[0])
    config = read_config(path)
    precision = machine.choose_precision(config.precision, machine.choose_device(options["device"]))
    machine.set_threads(threads)
    env = make_env(config, config.seed, EVALUATE, worlds_of(config)[0])
    agent, step = load_agent(path, config, env.action_dim, precision)
    env.close()
    if not isinstance(agent, WorldAgent):
        raise UserError(f"{path} holds an agent of method={config.method}, which has no world model: take a run of dreamer, planet or slac")
    frames, actions, fps = episode(agent, config, precision.device)
    if len(frames) < context + steps:
        raise UserError(f"the episode has {len(frames)} frames: lower context={context} or steps={steps}")
    pictures = dream(agent, frames, actions, context, steps, starts)
    told = pictures.permute(0, 1, 2, 4, 5, 3).cpu().numpy()  # (3, T, B, H, W, 3)
    target = path / "dreams"
    target.mkdir(exist_ok=True)
    errors = [grey_levels(picture[context:], pictures[0, context:]) for picture in pictures[1:]]
    heading = f"{config.task}, {config.method}, preset {config.preset}, {step * config.action_repeat:,} env steps: {steps} steps ahead"
    draw(told[:, :, starts // 2], context, heading, target / "dreams.png")
    wide = [np.concatenate([np.concatenate(list(told[:, t, b]), 1) for b in range(starts)]) for t in range(context + steps)]
    video(target / "dreams.mp4", [np.repeat(np.repeat(frame, 2, 0), 2, 1) for frame in wide], max(1, round(fps)))
    print(f"after the context: reconstructions are {errors[0]:.1f} and predictions {errors[1]:.1f} grey levels off")
    print(f"{target / 'dreams.png'}, {target / 'dreams.mp4'}")
    if options["figure"]:
        draw(told[:, :, starts // 2], context, heading, Path(options["figure"]))
        print(f"figure: {options['figure']}")
    return 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    run_main(main)
