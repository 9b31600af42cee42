"""An update of SPR, and what PlayVirtual shares with it, against the official code's numbers."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from Atari.core.method.reconstruction import distance
from tests.atari.official_spr import GROUPS, Official
from tests.atari.test_golden_mlr import tensor
from tests.given import assert_close

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]
NAMES = ("spr", "playvirtual")


@pytest.fixture(scope="module", params=NAMES)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def g(golden, method):
    return golden(f"atari_{method}")


@pytest.fixture(scope="module")
def make(golden, method, device):
    """make(*settings): an agent as officially; PlayVirtual's cycle has its weight of `ramp_step`."""

    def official(*settings):
        case = Official(golden(f"atari_{method}"), method, *settings)
        if "ramp_step" in case.g:
            case.agent.objective.at_step(int(case.g["ramp_step"]) + 1)
        return case

    return official


@pytest.fixture(scope="module")
def case(make):
    """Before its update. Nothing depends on tau until the targets move."""
    return make("spr.tau=0.01")


@pytest.fixture(scope="module")
def updated(make):
    case = make()
    case.metrics = case.update()
    return case


def norm(parameters):
    found = [p.double().norm() for p in parameters]
    return torch.stack(found).norm() if found else torch.tensor(0.0)


def assert_gradients(g, prefix, gradients):
    for name, label in GROUPS.items():
        if f"{prefix}_norm/{name}" in g:
            ours = norm(p for n, p in gradients.items() if n.startswith(label))
            assert abs(ours.item() - g[f"{prefix}_norm/{name}"]) <= 1e-3 * g[f"{prefix}_norm/{name}"] + 1e-9, name
    for key in (key for key in g if key.startswith(f"{prefix}_at8/")):
        label = key.split("/", 1)[1]
        assert_close(gradients[label].flatten()[tensor(g[f"index8/{label}"])], g[key], 1e-3)


def test_augmentation(g, case):
    view = case.agent.augment.view(case.batch.obs, case.view("rl")).float() / 255
    assert_close(view.double().sum((1, 2, 3)), g["aug_rl_sum"])
    assert_close(view[:, -1, 0], g["aug_rl_row0"])


def test_latents_and_heads(g, case):
    o, k = case.agent.objective, case.k
    with torch.no_grad():
        state = case.agent.network.encoder(case.agent.augment.view(case.batch.obs, case.view("rl")))
        first = g["rl_latent_first64"].shape[-1]
        assert_close(state[:, :first], g["rl_latent_first64"])
        assert_close(state.double().sum(1), g["rl_latent_sum"])
        seen = {}
        keep = lambda name: lambda module, inputs, out: seen.setdefault(name, []).append(out)  # noqa: E731
        hooks = [layer.register_forward_hook(keep(name)) for name, layer in o.dynamics.named_children()]
        ahead = torch.stack([state, *o.dynamics.roll(state, o.one_hot(case.batch.sequence.action[:, :k]))])  # (K + 1, B, d)
        for hook in hooks:
            hook.remove()
        relu, bn, conv2 = seen["first"][0].relu(), seen["norm"][0], seen["second"][0]
        for name, ours in (("conv1_relu", relu), ("bn", bn), ("conv2", conv2)):
            assert_close(ours.flatten(1)[:, :first], g[f"dynamics_first_step_{name}_first64"])
        assert_close(relu.mean((0, 2, 3)), g["dynamics_first_step_bn_channel_mean"])
        assert_close(relu.var((0, 2, 3), unbiased=False), g["dynamics_first_step_bn_channel_var"])
        assert_close(ahead[1, 0].view(o.dynamics.shape), g["dynamics_first_step_full_sample0"])
        assert_close(ahead[1:, :, : g["dynamics_latents_first64"].shape[-1]], g["dynamics_latents_first64"])
        assert_close(ahead[1:].double().sum(-1), g["dynamics_latents_sum"])
        projection = o.projection(ahead)
        assert_close(projection[..., :16], g["projection_first16"])
        assert_close(o.prediction(projection)[..., :16], g["prediction_first16"])
        assert_close(projection.norm(dim=-1), g["proj_norm"])
        assert_close(o.answer(ahead).norm(dim=-1), g["pred_norm"])


def test_targets(g, case):
    o, part, latents = case.agent.objective, case.windows(case.batch.sequence), []
    hook = o.target_encoder.register_forward_hook(lambda module, inputs, out: latents.append(out))
    targets = o.target(part)[:, : case.k].transpose(0, 1)  # (K, B, p)
    hook.remove()
    latent = latents[0].unflatten(0, (case.b, -1))[:, : case.k].transpose(0, 1)
    assert_close(latent[..., : g["target_latents_first64"].shape[-1]], g["target_latents_first64"][1:])
    assert_close(latent.double().sum(-1), g["target_latents_sum"][1:])
    assert_close(targets[..., :16], g["target_projection_first16"][1:])
    assert_close(targets.norm(dim=-1), g["tproj_norm"][1:])


def test_loss(g, case):
    o, weight = case.agent.objective, case.batch.weight
    sequence = replace(case.batch.sequence, state=case.agent.network.encoder(case.agent.augment.view(case.batch.obs, case.view("rl"))))
    part, key = case.windows(sequence), "spr" if "spr_loss" in g else "forward"
    assert_close(o.counted(sequence.done).T, g["nonterminal"])
    targets = o.target(part)
    ahead = torch.stack(o.dynamics.roll(sequence.state, o.one_hot(sequence.action[:, : case.k])), 1)
    assert_close(distance(o.answer(ahead), targets[:, : case.k]).T, g[f"{key}_loss_per_k"][1:])
    loss, metrics = o.forward_loss(sequence, targets)
    assert_close(weight * loss / o.scale, g[f"{key}_loss_weighted_per_sample"])
    assert_close((weight * loss).mean() / o.scale, g[f"{key}_loss"])
    for k in range(1, case.k + 1):
        kept = g["nonterminal"][k] > 0
        assert_close(metrics[f"loss/spr_{k}"], g[f"{key}_loss_per_k"][k][kept].mean() if kept.any() else 0.0)
    total, _ = o.loss(part)
    assert_close((weight * total).mean(), g["aux_total"])


@pytest.mark.parametrize("method", ["spr"], indirect=True, scope="module")  # PlayVirtual's file has those of the cycle alone
def test_gradients_of_the_objective_alone(g, case):
    agent = case.agent
    state = agent.network.encoder(agent.augment.view(case.batch.obs, case.view("rl")))
    agent.optimizer.zero_grad()
    agent.objective_gradient(case.batch, state)
    found = {n: p.grad for n, p in case.labelled().items() if getattr(p, "grad", None) is not None}
    assert_gradients(g, "grad_aux", found)
    assert g["grad_aux_head_sigma_is_none"] and not [n for n in found if "sigma" in n]


def test_rainbow(g, case, updated):
    batch, agent = case.batch, case.agent
    with torch.no_grad():
        view = {name: agent.augment.view(frames, case.view(f"rl{name}"))
                for name, frames in (("", batch.obs), ("_double", batch.next_obs), ("_target_net", batch.next_obs))}  # fmt: skip
        assert_close(agent.network(view[""], noisy=True), g["log_pred_ps"])
        assert_close(agent.target(view["_target_net"], noisy=True).exp(), g["rl_target_ps"])
        online = agent.network(view["_double"], noisy=True).exp()
        assert_close(online, g["rl_online_next_ps"])
        assert ((online @ agent.value.support).argmax(1).cpu().numpy() == g["rl_next_action"]).all()
    assert_close(updated.metrics["loss/rl"], (g["rl_loss_weighted_per_sample"] / g["is_weights"]).mean())
    assert_close(updated.priority, g["priority_kl"])


def test_gradients_of_an_update(g, updated):
    assert_gradients(g, "grad_total", updated.gradients)
    clipped = {n: p.grad for n, p in updated.labelled().items() if getattr(p, "grad", None) is not None}
    groups = {"stem": ("network", ("conv.", "head.")), "dynamics": ("dynamics", "dynamics_"), "backward": ("reverse", "backward_")}
    for theirs in (key.split("/")[1] for key in g if key.startswith("clip_group_norm/")):
        ours, labels = groups[theirs]
        before = float(g[f"clip_group_norm/{theirs}"])
        assert updated.metrics[f"grad/{ours}"].item() == pytest.approx(before, rel=1e-3)
        after = norm(p for n, p in clipped.items() if n.startswith(labels)).item()
        assert after == pytest.approx(min(before, float(g["clip_limit"])), rel=1e-3)
    for name in (n for n in clipped if n.startswith("global_final_classifier.")):
        assert torch.equal(clipped[name], updated.gradients[name])  # not clipped


def test_the_step(g, updated):
    """Adam's step, the running statistics, and targets that are the online weights of before it."""
    ours = updated.labelled()
    for key in (key for key in g if key.startswith("after_step_at8/")):
        label = key.split("/", 1)[1]
        at = tensor(g[f"index8/{label}"])
        before = updated.given.weight(label).flatten()[at].double().cpu()
        assert_close(ours[label].detach().flatten()[at].double().cpu() - before, torch.from_numpy(g[key]).double() - before, 2e-3)
    for key in (key for key in g if key.startswith("after_step_bn/") and "reward_predictor" not in key):
        assert_close(ours[key.split("/", 1)[1]], g[key])
    first = ours["target_encoder.conv.0.weight"]
    assert_close(first.flatten()[:8], g["after_step_target_encoder_first8"], 1e-6)
    assert g["after_step_target_equals_online_before_step"]
    for name in (n for n in ours if n.startswith("target_encoder.")):
        assert torch.equal(ours[name], updated.given.weight(name.replace("target_encoder.", "conv."))), name


def test_targets_that_follow_slowly(g, case):
    before = copy.deepcopy(case.agent.objective.state_dict())
    case.agent.objective.move_targets()
    ours = {name: t.detach().clone() for name, t in case.labelled().items() if "target_" in name}
    case.agent.objective.load_state_dict(before)
    assert_close(ours["target_encoder.conv.0.weight"].flatten()[:8], g["tau01_target_encoder_first8"])
    head = ours["global_target_classifier.head.value.1.weight_mu"]
    assert_close(head.flatten()[:8], g["tau01_target_head_value_hidden_first8"])


def test_n_step_returns(g, make_replay, story):
    """Also with episodes that end, and the end within n steps where the quirk is off."""
    rewards, done, n = g["nstep_reward"], g["nstep_done"], int(g["nstep_n"])
    replay = make_replay(window=1, n_step=n, discount=float(g["discount"]), done_n_first_step=False)
    story(replay, [int(d) for d in done] + [0] * 3, rewards=np.append(rewards, [0] * 3), actions=np.zeros(len(done) + 3))
    count = len(g["nstep_return"])
    replay._draw = lambda size: (torch.arange(count), torch.ones(count, dtype=torch.float64))
    batch = replay.sample(count, 0.5)
    assert_close(batch.return_n, g["nstep_return"])
    assert (batch.done_n.numpy() == g["nstep_done_n"]).all()
