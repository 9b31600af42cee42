"""A run's policy as a folder that can be handed on: policy.safetensors, config.yaml, and a model card.

scripts/export.sh RUN_DIR [to=DIR]
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from DMControl.core.errors import UserError, run_main
from DMControl.core.run.checkpoint import Checkpoints
from DMControl.core.run.evaluation import EXPORTED
from DMControl.core.run.folder import read_config
from DMControl.core.run.options import Options
from DMControl.core.run.paths import parse_path
from scripts.ledger.runs import eval_rows, own_evaluations
from scripts.trees import Tree, tree_named

CARD = """---
library_name: pytorch
tags: [reinforcement-learning, {benchmark}, {task}, {method}]
---

# {method} on {task}

A policy of method `{method}`, preset `{preset}`, seed {seed}, after {at:,} {unit}s. `policy.safetensors` holds the networks that act: the
encoder and the policy. `config.yaml` holds all settings.

```python
from {package} import load_agent

agent = load_agent("{folder}")
agent.reset()                # before each episode
action = agent.act(image)    # {image}
```

| | |
|---|---|
| return | {score} |
| seeds | {seed}, of this run alone |
| trained on | {hardware}, {hours:.2f} h |
| commit | {commit} |
| versions | {versions} |
| world | {world} |
"""


def networks_of(run: Path, tree: Tree) -> tuple[dict[str, torch.Tensor], int]:
    """The networks that act, by network/key, and the agent step of their save."""
    saved = Checkpoints(run / "checkpoint").load(("agent",), torch.device("cpu"))
    if saved is None:
        raise UserError(f"{run} holds no saved policy: let the run reach its first checkpoint")
    found = tree.acting(saved[1]["agent"])
    return {f"{name}/{key}": value.contiguous().clone() for name, part in found.items() for key, value in part.items()}, saved[0]["step"]


def score_of(run: Path, tree: Tree, config: Any, at: int) -> str:
    """The run's own evaluation at that point."""
    rows = own_evaluations(eval_rows(run), tree, config).get(at, [])
    if not rows:
        return "not judged at this step"
    returns = torch.tensor([float(row["episode_return"]) for row in rows])
    return f"{returns.mean():.1f} ± {returns.std(correction=0):.1f} over {len(rows)} episodes"


def main(arguments: list[str]) -> int:
    options = Options(arguments, {"to": ""}, words=True)
    if len(options.words) != 1:
        raise UserError("say which run: scripts/export.sh runs/dmcontrol/cartpole_swingup/mlr-small/seed1")
    run = Path(options.words[0])
    said, config = parse_path(run.absolute()), read_config(run)
    tree, to = tree_named(said.benchmark), Path(options["to"] or run / "export")
    tensors, step = networks_of(run, tree)
    env = tree.make_env(config, config.seed, judge=True)
    facts = {name: str(getattr(said, name)) for name in ("benchmark", "task", "method", "preset", "seed")}
    to.mkdir(parents=True, exist_ok=True)
    save_file(tensors, to / EXPORTED, {**facts, "step": str(step), "actions": str(tree.actions(env))})
    shutil.copyfile(run / "config.yaml", to / "config.yaml")
    at = step * tree.repeat(config)
    started = json.loads((run / "origin.json").read_text())[-1]
    rows = eval_rows(run)
    size = config.image.size if "image" in config else config.env.size
    card = CARD.format(
        **facts,
        package=tree.package,
        unit=tree.unit.removesuffix("s"),
        folder=to,
        at=at,
        image=f"uint8, ({size}, {size}, {3 if 'image' in config else 1}); how it is made: {tree.package}/env.py",
        score=score_of(run, tree, config, at),
        hardware=started["hardware"],
        hours=max((float(row["hours"] or 0) for row in rows), default=0.0),
        commit=started["commit"],
        versions=", ".join(f"{name} {version}" for name, version in started["versions"].items()),
        world=config.get("world", config.get("env", {}).get("distraction", "clean")),
    )
    (to / "README.md").write_text(card)
    print(f"{to}: {EXPORTED} ({sum(t.nbytes for t in tensors.values()) / 1e6:.1f} MB), config.yaml, README.md")
    return 0


if __name__ == "__main__":
    run_main(main)
