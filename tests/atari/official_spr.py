"""Agents of SPR and PlayVirtual with the weights, inputs and random choices of their golden files, every size read from the arrays.

Tensors go by their official labels.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from Atari.core.machine import Precision
from Atari.core.method.augment import Gather, View
from Atari.core.method.frames import Frames
from Atari.core.method.sequence import Sequence
from Atari.methods import make_agent
from Atari.methods.spr import Windows
from Atari.replay import Batch
from Atari.settings import read_config
from tests.atari.test_golden_mlr import HEAD, NOISY, STRIDES, skip_initialisation, tensor
from tests.given import Given

DYNAMICS = {"first": "0.net.0", "norm": "2", "second": "3.net.0"}
PAD, STRENGTH = 4, 0.05  # of the published augmentation


class Official:
    """An agent, its batch and its views."""

    def __init__(self, g: dict[str, np.ndarray], method: str, *settings: str) -> None:
        self.g, self.given = g, Given(g)
        self.given.rows, self.b, self.stack, _, self.size, _ = g["obs"].shape
        self.k, self.n = int(g["K"]), int(g["n_step"])
        kernels = [self.given.shape(f"conv.conv.{2 * i}.weight") for i in range(len(STRIDES))]
        atoms, hidden = self.given.shape("head.value.3.bias_mu")[0], self.given.shape("head.value.1.bias_mu")[0]
        n_actions = self.given.shape("head.advantage_out.bias_mu")[0] // atoms
        sizes = {
            "env.size": self.size, "env.stack": self.stack, "encoder.filters": [k[0] for k in kernels],
            "encoder.kernels": [k[2] for k in kernels], "encoder.strides": list(STRIDES), "rainbow.batch_size": self.b,
            "rainbow.atoms": atoms, "rainbow.hidden": hidden, "rainbow.n_step": self.n, "rainbow.discount": float(g["discount"]),
            "rainbow.lr": float(g["lr"]), "rainbow.adam_eps": float(g["adam_eps"]), "rainbow.clip": float(g["clip_limit"]),
            "spr.steps": self.k,
        }  # fmt: skip
        if method == "playvirtual":
            sizes |= {"spr.weight": self.k, "playvirtual.copies_per_action": g["virtual_actions"].shape[1] // n_actions}
        arguments = [f"{key}={value}".replace(" ", "") for key, value in sizes.items()]
        self.device = torch.get_default_device()
        config = read_config(["preset=paper", f"method={method}", *arguments, *settings])
        with skip_initialisation():
            self.agent = make_agent(config, n_actions, Precision(self.device, torch.float32))
        self.load()
        self.batch = self.make_batch()
        views = [self.view("rl_double"), self.view("rl_target_net"), self.view("rl")]  # in the order of our draws
        self.agent.augment.draw = lambda *_: views.pop(0)
        self.agent.network.head.resample = lambda generator: None
        self.agent.objective.draw = lambda sequence, generator: self.windows(sequence)
        self.priority = None

    def labelled(self) -> dict[str, Tensor]:
        """Our parameters and buffers by their official labels."""
        network, o, out = self.agent.network, self.agent.objective, {}
        for encoder, label in (
            (network.trunk, "conv"),
            (self.agent.target.trunk, "target_net/conv"),
            (o.target_encoder.trunk, "target_encoder"),
        ):
            for i, conv in enumerate(encoder.convs):
                out |= {f"{label}.conv.{2 * i}.{name}": p for name, p in conv.named_parameters()}
        for head, before in ((network.head, ""), (self.agent.target.head, "target_net/")):
            for layer, label in HEAD.items():
                out |= {f"{before}head.{label}.{theirs}": getattr(head, layer).get_parameter(ours) for ours, theirs in NOISY.items()}
        for layer, label in (("value", "value.1"), ("advantage", "advantage_hidden.1")):
            for name, p in getattr(o.target_projection, layer).named_parameters():
                out[f"global_target_classifier.head.{label}.{name}_mu"] = p
        models = {"dynamics_model": o.dynamics} | ({"backward_dynamics_model": o.reverse} if hasattr(o, "reverse") else {})
        for label, model in models.items():
            for layer, theirs in DYNAMICS.items():
                out |= {f"{label}.network.{theirs}.{name}": t for name, t in getattr(model, layer).state_dict(keep_vars=True).items()}
        return out | {f"global_final_classifier.0.{name}": p for name, p in o.prediction.named_parameters()}

    @torch.no_grad()
    def load(self) -> None:
        found = self.labelled()
        skipped = ("advantage_bias", "reward_predictor", "noise/")  # the first has no effect, the second has none that reaches a result
        missing = [n for n in self.given.row if n not in found and not any(word in n for word in skipped)]
        assert not missing, missing
        for name, t in found.items():
            if not name.endswith("num_batches_tracked"):
                t.copy_(self.given.weight(name))
        for head, label in ((self.agent.network.head, "online"), (self.agent.target.head, "target_net")):
            for layer in HEAD:
                theirs = layer if "hidden" in layer else f"{layer}_out"
                for side in ("in", "out"):
                    getattr(getattr(head, layer), f"noise_{side}").copy_(self.given.weight(f"noise/{label}/{theirs}_{side}"))

    def make_batch(self) -> Batch:
        g = self.g
        store = tensor(g["obs"]).reshape(-1, 1, self.size, self.size)  # frame (r, b, s)
        index = torch.arange(len(store)).view(self.given.rows, self.b, self.stack)
        window = index[: self.k + 1].transpose(0, 1).reshape(-1, self.stack)
        action = tensor(g["prev_action"])[1 : self.k + 2].T  # (B, K + 1)
        assert (action[:, : self.k] == tensor(g["action_used"]).T).all()
        done, weight = tensor(g["done"])[: self.k + 1].T.float(), tensor(g["is_weights"])
        sequence = Sequence(Frames(store, window), action, torch.zeros_like(done), done, torch.ones_like(weight), weight)
        return Batch(
            Frames(store, index[0]), action[:, 0], tensor(g["return_n"]), tensor(g["done_n"]).float(), Frames(store, index[self.n]),
            weight, torch.arange(self.b), sequence,
        )  # fmt: skip

    def view(self, *names: str) -> View:
        """The views of images under these names, each time-first or copy-first, as window-first ones: one name after the other."""
        offset, factor = [], []
        for name in names:
            shift, intensity = tensor(self.g[f"shift/{name}"]), tensor(self.g[f"intensity/{name}"])
            if intensity.ndim == 1:
                shift, intensity = shift[None], intensity[None]
            start = 1 if name == "target" else 0  # the official code also encodes the target of step 0, and does not use it
            offset.append(shift[start:].transpose(0, 1))  # (B, n, 2)
            factor.append(1 + STRENGTH * intensity[start:].T.clamp(-2, 2))
        places = (torch.cat(offset, 1).flatten(0, 1)[:, :, None] + torch.arange(self.size) - PAD).clamp(0, self.size - 1)
        return View((Gather(places[:, 0], places[:, 1], torch.cat(factor, 1).flatten()),))

    def windows(self, sequence: Sequence) -> Windows:
        if "virtual_actions" not in self.g:
            return Windows(sequence, self.view("target"))
        return Windows(sequence, self.view("target", "cycle_target"), tensor(self.g["virtual_actions"]).permute(2, 1, 0))

    def update(self) -> dict[str, Tensor]:
        """One whole update. Keeps the new priorities, and the gradients before the clip."""
        take_step = self.agent.take_step

        def keep_gradients() -> dict[str, Tensor]:
            self.gradients = {n: p.grad.clone() for n, p in self.labelled().items() if isinstance(p, nn.Parameter) and p.grad is not None}
            return take_step()

        self.agent.take_step = keep_gradients
        replay = SimpleNamespace(
            sample=lambda n, beta: self.batch, update_priorities=lambda slot, priority: setattr(self, "priority", priority)
        )
        return self.agent.update_parts(replay).metrics


GROUPS = {  # official name of a norm: the labels that it sums up
    "conv": "conv.", "conv.0": "conv.conv.0.", "conv.2": "conv.conv.2.", "conv.4": "conv.conv.4.", "head": "head.",
    "head_value_hidden": "head.value.1.", "head_advantage_hidden": "head.advantage_hidden.1.", "head_value_out": "head.value.3.",
    "head_advantage_out": "head.advantage_out.", "prediction": "global_final_classifier.",
    **{f"{name}{part}": f"{label}_model.network.{layer}"
       for name, label in (("dynamics", "dynamics"), ("backward", "backward_dynamics"))
       for part, layer in (("", ""), ("_conv1", "0."), ("_bn", "2."), ("_conv2", "3."))},
}  # fmt: skip
