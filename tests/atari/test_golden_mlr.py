"""Network and masked-latent objective against the official code's numbers. Every size is read from the arrays."""

import ast
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from Atari.agents.rainbow import Rainbow
from Atari.agents.settings import Settings
from Atari.core.machine import Precision
from Atari.core.method.augment import Augmentation
from Atari.core.method.encoder import Trunk
from Atari.core.method.frames import Frames
from Atari.core.method.masks import Masks
from Atari.core.method.reconstruction import MaskedSequence
from Atari.core.method.sequence import Sequence
from Atari.methods import mlr
from tests.given import assert_close, fill

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]
STRIDES = (4, 2, 1)  # of the published convolutions; their sizes are in the file
NOISY = {"mean.weight": "weight_mu", "mean.bias": "bias_mu", "sigma_weight": "weight_sigma", "sigma_bias": "bias_sigma"}
HEAD = {"value_hidden": "value.1", "value": "value.3", "advantage_hidden": "advantage_hidden.1", "advantage": "advantage_out"}


def tensor(array):
    """On the device of the test."""
    return torch.from_numpy(array).to(torch.get_default_device())


class Case:
    """Our network and objective with the given weights and inputs, batch-major as ours are."""

    def __init__(self, g, masked_0_255=True):
        self.g = g
        self.row = {str(name): i for i, name in enumerate(g["tensor_names"])}
        self.t, self.b, stack, _, size, _ = g["obs"].shape
        layers = sorted(n for n in self.row if n.startswith("conv.conv.") and n.endswith(".weight"))
        kernels = [self.shape(name) for name in layers]
        n_actions, atoms = self.shape("action_embedding.weight")[1], self.shape("head.value.3.bias_mu")[0]
        blocks = {name.split(".")[1] for name in self.row if name.startswith("transformer.")}
        width = self.shape("transformer.0.norm1.weight")[0]
        settings = Settings(
            batch_size=self.b, lr=0.0, adam_eps=1e-8, clip=10.0, discount=0.99, n_step=1, atoms=atoms, v_min=-10.0, v_max=10.0,
            hidden=self.shape("head.value.1.bias_mu")[0], noisy_std=0.1, beta=(0.4, 1.0), learning_steps=(0, 1),
        )  # fmt: skip
        self.augment = Augmentation((), size, size)
        device = torch.get_default_device()
        with skip_initialisation():
            trunk = Trunk(
                stack, size, [k[0] for k in kernels], [k[2] for k in kernels], STRIDES,
                Precision(device, torch.float32),
            )  # fmt: skip
            self.agent = Rainbow(
                settings, n_actions=n_actions, trunk=trunk, augment=self.augment, generator=torch.Generator(device), device=device
            )
            self.objective = mlr.make(
                self.agent.handles, masks=Masks(self.t, size, 1, self.t, 0.5), augment=self.augment,
                depth=len(blocks), width=width, heads=1,
                mlp_ratio=self.shape("transformer.0.mlp.fc1.weight")[0] / width, final_norm=False, tau=1.0,
                action_tokens=True, one_mask=True, masked_input_0_255=masked_0_255,
            )  # fmt: skip
        self.load()
        obs = tensor(g["obs"]).transpose(0, 1)[:, :, :, 0]  # (B, T, S, H, W)
        store = obs.reshape(-1, 1, size, size).contiguous()
        frames = Frames(store, torch.arange(len(store)).view(-1, stack))
        action = tensor(g["action_used"]).t()
        assert (g["prev_action"][1 : self.t + 1] == g["action_used"]).all()
        step, each = torch.zeros(action.shape), torch.ones(self.b)
        sequence = Sequence(frames, action, reward=step, done=step, valid=each, weight=each)
        hidden = (1 - tensor(g["mask"])[:, 0]).bool().repeat(self.b, 1, 1)
        view = self.augment.draw(self.b * self.t, stack, self.agent.generator)
        self.part = MaskedSequence(sequence, hidden, view, view)

    def shape(self, name):
        return ast.literal_eval(str(self.g["tensor_shapes"][self.row[name]]))

    def value(self, name):
        i = self.row[name]
        filled = fill(self.shape(name), int(self.g["tensor_seeds"][i]), float(self.g["tensor_offset"][i]), float(self.g["scale"]))
        first = self.g["tensor_first4"][i]
        assert np.array_equal(np.resize(filled.flatten()[:4].cpu().numpy(), 4), first), name
        return filled

    def pairs(self):
        """(our parameter, official name)."""
        network, objective = self.agent.network, self.objective
        for ours, official in ((network.trunk, "conv"), (objective.target_encoder.trunk, "target_encoder")):
            for i, conv in enumerate(ours.convs):
                yield conv.weight, f"{official}.conv.{2 * i}.weight"
                yield conv.bias, f"{official}.conv.{2 * i}.bias"
        for layer, official in HEAD.items():
            for name, theirs in NOISY.items():
                yield getattr(network.head, layer).get_parameter(name), f"head.{official}.{theirs}"
        for layer, official in (("value", "value.1"), ("advantage", "advantage_hidden.1")):
            for name in ("weight", "bias"):
                linear = getattr(objective.target_projection, layer)
                yield getattr(linear, name), f"global_target_classifier.head.{official}.{name}_mu"
        for i, block in enumerate(objective.decoder.blocks):
            for name, parameter in block.named_parameters():
                part = {"qkv": "attn.", "proj": "attn.", "fc1": "mlp.", "fc2": "mlp."}.get(name.split(".")[0], "")
                yield parameter, f"transformer.{i}.{part}{name}"
        for module, official in ((objective.embed_action.linear, "action_embedding"), (objective.prediction, "global_final_classifier.0")):
            yield module.weight, f"{official}.weight"
            yield module.bias, f"{official}.bias"

    @torch.no_grad()
    def load(self):
        for parameter, name in self.pairs():
            parameter.copy_(self.value(name))
        for layer, noise in (("value_hidden",) * 2, ("value", "value_out"), ("advantage_hidden",) * 2, ("advantage", "advantage_out")):
            for side in ("in", "out"):
                getattr(getattr(self.agent.network.head, layer), f"noise_{side}").copy_(tensor(self.g[f"noise/{noise}_{side}"]))


@contextmanager
def skip_initialisation():
    """Random values that are overwritten at once need not be drawn."""
    uniform, torch.nn.init.kaiming_uniform_ = torch.nn.init.kaiming_uniform_, lambda tensor, *_, **__: tensor
    try:
        yield
    finally:
        torch.nn.init.kaiming_uniform_ = uniform


def norm(parameters):
    return torch.stack([p.grad.double().norm() for p in parameters if p.grad is not None]).norm()


@pytest.fixture(scope="module")
def case(golden, device):
    return Case(golden("atari_mlr"))


@pytest.fixture(scope="module")
def run(case):
    """One forward and backward pass of the objective, with everything on the way."""
    seen = {}

    def keep(name, index=None):
        def hook(module, inputs, output):
            seen[name] = (output if index is None else inputs[index]).detach()

        return hook

    o = case.objective
    handles = [block.register_forward_hook(keep(f"block{i}")) for i, block in enumerate(o.decoder.blocks)]
    handles += [
        o.decoder.blocks[0].register_forward_hook(keep("tokens_in", 0)),
        o.target_encoder.register_forward_hook(keep("target_latent")),
        o.target_projection.register_forward_hook(keep("target_projection")),
        o.prediction.register_forward_hook(keep("prediction")),
        o.prediction.register_forward_hook(keep("projection", 0)),
    ]
    encode, compare = o.encoder, o.compare
    o.encoder = lambda image: seen.setdefault("masked_latent", encode(image))
    o.compare = lambda predicted, targets: seen.setdefault("loss", compare(predicted, targets))
    per_window, _ = o.loss(case.part)
    per_window.mean().backward()
    o.encoder, o.compare = encode, compare
    for handle in handles:
        handle.remove()
    return seen | {"per_window": per_window}


@pytest.fixture(scope="module")
def g(golden):
    return golden("atari_mlr")


def test_latents(g, case, run):
    t, b = case.t, case.b
    image = case.part.sequence.obs.whole().view(b, t, *case.part.sequence.obs.whole().shape[1:])[:, 0]
    rl = case.agent.network.encoder(image)
    first = g["rl_latent_first64"].shape[-1]
    assert_close(rl[:, :first], g["rl_latent_first64"])
    for name in ("masked", "target"):
        latent = run[f"{name}_latent"].view(b, t, -1)
        assert_close(latent[..., :first], g[f"{name}_latent_first64"])
        assert_close(latent.double().sum(-1), g[f"{name}_latent_sum"])


def test_tokens(g, case, run):
    first = g["tokens_in_first8"].shape[-1]
    assert_close(run["tokens_in"][..., :first], g["tokens_in_first8"])
    blocks = len(case.objective.decoder.blocks)
    if blocks > 1:
        assert_close(run["block0"][..., :first], g["tokens_mid_first8"])
    out = run[f"block{blocks - 1}"]
    assert_close(out[..., :first], g["tokens_out_first8"])
    assert_close(out.norm(dim=-1), g["tokens_out_norm"])


def test_heads(g, case, run):
    first = g["projection_first8"].shape[-1]
    for name in ("projection", "prediction"):
        assert_close(run[name][..., :first], g[f"{name}_first8"])
    assert_close(run["target_projection"].view(g["target_projection"].shape), g["target_projection"])


def test_loss(g, case, run):
    assert_close(run["loss"].t(), g["mlr_loss"])
    assert_close(run["per_window"].mean(), g["mlr_loss_mean"])


def test_gradients(g, case, run):
    network, objective = case.agent.network, case.objective
    head = network.head
    groups = {
        "conv": network.trunk.parameters(),
        "head": head.parameters(),
        "head_value_hidden": head.value_hidden.parameters(),
        "head_advantage_hidden": head.advantage_hidden.parameters(),
        "action_embedding": objective.embed_action.parameters(),
        "prediction": objective.prediction.parameters(),
    } | {f"block{i}": block.parameters() for i, block in enumerate(objective.decoder.blocks)}
    for name, parameters in groups.items():
        assert_close(norm(parameters), g[f"gradnorm/{name}"], 1e-3)
    assert_close(norm(network.parameters()), g["gradnorm_stem"], 1e-3)
    ours = {official: parameter for parameter, official in case.pairs()}
    for key in (key for key in g if key.startswith("grad_first8/")):
        assert_close(ours[key.split("/", 1)[1]].grad.flatten()[: len(g[key])], g[key], 1e-3)
    assert head.value_hidden.sigma_weight.grad is None and head.advantage_hidden.sigma_weight.grad is None


def test_repaired_input(g, case):
    case.objective.encoder, kept = mlr._masked_encoder(case.agent.network.encoder, False), case.objective.encoder
    kept_compare, seen = case.objective.compare, []
    case.objective.compare = lambda *both: seen.append(kept_compare(*both)) or seen[0]
    with torch.no_grad():
        case.objective.loss(case.part)
    case.objective.encoder, case.objective.compare = kept, kept_compare
    assert_close(seen[0].t(), g["mlr_loss_if_masked_branch_in_0_1"])


def test_q_head(g, case):
    whole = case.part.sequence.obs.whole()
    image = whole.view(case.b, case.t, *whole.shape[1:])[:, 0]
    with torch.no_grad():
        assert_close(case.agent.network(image, noisy=True), g["log_pred_ps"])
        assert_close(case.agent.network(image, noisy=False), g["log_pred_ps_no_noise"])
