"""SPR and PlayVirtual against the official code's numbers."""

import pytest
import torch
from official import assert_close, below, norm, tensor, to_ours
from official_playvirtual import Given, drawn, give, given, labelled, make_agent_of, sequence_of

from DMControl.core.method.reconstruction import distance
from DMControl.methods.playvirtual import ramp

pytestmark = pytest.mark.golden
GROUPS = {  # labels of gradient norms: the beginnings of the labels that they sum up
    "encoder_convs": "critic.encoder.convs.", "encoder_fc": "critic.encoder.fc.", "encoder_ln": "critic.encoder.ln.",
    "transition_model": "transition_model.", "reverse_transition_model": "reverse_transition_model.",
    "global_classifier": "global_classifier.", "global_final_classifier": "global_final_classifier.",
}  # fmt: skip


@pytest.fixture
def g(golden):
    return {k: tensor(v) for k, v in golden("dmc_playvirtual").items()}


def case_of(g, case):
    """An agent whose settings are those of a case of the file: "" is PlayVirtual, "fp/" SPR, "clip/" has large weights."""
    if case == "fp/":
        return make_agent_of(g, "spr")
    weights = [f"spr.weight={float(g['clip/forward_weight'])}", f"playvirtual.weight={float(g['clip/cycle_weight'])}"]
    agent = make_agent_of(g, "playvirtual", *(weights if case == "clip/" else []))
    agent.objective.at_step(step(g, g["env_step"]) + 1)  # the official counter leaves out the newest step
    return agent


def step(g, env_step):
    return int(env_step) // int(g["action_repeat"])


def total(agent, metrics):
    """The loss, as a float; `scale` and `weight` are the weights of its terms."""
    whole = agent.objective.scale * metrics["loss/spr"]
    return whole + metrics["loss/cycle"] * metrics["playvirtual/weight"] if "loss/cycle" in metrics else whole


def test_views(g):
    o, part = case_of(g, "").objective, drawn(g, 0, True)
    image = o.augment.view(part.sequence.obs[:: o.window], part.view)
    assert_close(image[0, 0], g["input_image0_channel0"], 1e-6)
    assert image.max() > 255  # nothing is clamped


def test_forward_latents_targets_and_distances(g):
    o, part = case_of(g, "").objective, drawn(g, 0, True)
    state = o.state(part)
    assert_close(state, g["z0"], 1e-4)
    ahead = o.dynamics.roll(state, part.sequence.action[:, : o.steps])
    assert_close(ahead, g["forward_latent"][:, 1:], 1e-4)
    assert_close(o.projection(ahead), g["forward_projection"][:, 1:], 1e-4)
    assert_close(o.answer(ahead), g["forward_prediction"][:, 1:], 1e-4)
    targets = o.target(part)
    assert_close(targets[:, : o.steps], g["target_projection"][:, 1:], 1e-4)
    assert_close(targets[:, o.steps :].transpose(0, 1), g["cycle_target_projection"], 1e-4)
    assert_close(distance(o.answer(ahead), targets[:, : o.steps]).t(), g["forward_distance"][1:], 1e-4)
    _, metrics = o.loss(part)
    for k in range(1, o.steps + 1):
        assert_close(metrics[f"loss/spr_{k}"], g["forward_distance"][k].mean(), 1e-4)


def test_cycle(g):
    o, part = case_of(g, "").objective, drawn(g, 0, True)
    state, targets = o.state(part), o.target(part)
    begin = state[:, None].expand(-1, o.copies, -1)
    away = o.dynamics.roll(begin, part.actions)  # (B, M, K, d)
    assert_close(away.permute(2, 1, 0, 3), g["cycle_forward_latent"][1:], 1e-4)
    back = o.reverse.roll(away[:, :, -1], part.actions.flip(2))
    assert_close(back.permute(2, 1, 0, 3), g["cycle_backward_latent"][1:], 1e-4)
    assert_close(o.answer(back[:, :, -1]).transpose(0, 1), g["cycle_prediction"], 1e-4)
    assert_close(o.cycle_distance(state, part.actions, targets[:, o.steps :]).t(), g["cycle_distance"], 1e-4)


def test_the_ramp(g):
    for env_step, weight in zip(g["ramp/env_step"], g["ramp/weight"], strict=True):
        assert ramp(int(env_step), 50_000) == pytest.approx(float(weight), rel=1e-5)


@pytest.mark.parametrize("case", ["", "fp/", "clip/"])
def test_loss_and_gradients(g, case):
    agent, of = case_of(g, case), below(g, case)
    agent.objective.draw = lambda sequence, generator: drawn(g, 0, case != "fp/")
    (part,) = agent.objective.parts(sequence_of(g), agent.generator)
    loss, metrics = agent.objective.loss(part)
    assert_close(loss.mean(), of["total_loss"], 1e-4)
    assert_close(total(agent, metrics), of["total_loss"], 1e-4)
    assert_close(metrics["loss/spr"], of["forward_loss"], 1e-4)
    if case != "fp/":
        assert_close(metrics["loss/cycle"], of["cycle_loss"], 1e-4)
        assert_close(metrics["playvirtual/weight"], of["cycle_weight_in_force"], 1e-5)
    loss.mean().backward()
    ours = labelled(agent)
    for name, theirs in below(of, "gradnorm/").items():
        assert_close(norm(p for label, p in ours.items() if label.startswith(GROUPS[name])), theirs, 1e-3)
    for label, theirs in below(of, "grad/").items():
        assert_close(ours[label].grad, theirs, 1e-3)
    for label, theirs in below(of, "grad_rows/").items():
        rows = to_ours(theirs, agent.critic.encoder.trunk) if label == "critic.encoder.fc.weight" else theirs
        assert_close(ours[label].grad[: len(rows)], rows, 1e-3)
    still = ("target_encoder", "global_target_classifier", "critic_target", "critic.Q", "actor")
    assert all(p.grad is None for label, p in ours.items() if label.startswith(still))


def assert_steps(agent, g, after, rates, share):
    """Displacements: those of each tensor to `share` of the learning rate that moves it."""
    ours, trunk, rows = labelled(agent), agent.critic.encoder.trunk, below(g, after[:-1] + "_rows/")
    wanted = below(g, after) | rows
    assert len(wanted) > 5
    for label, theirs in wanted.items():
        if label not in ours:  # SPR has no reverse model, which does not move
            assert label.startswith("reverse_") and torch.equal(theirs, given(g, label))
            continue
        rate = next(rate for beginning, rate in rates.items() if label.startswith(beginning))
        theirs = to_ours(theirs, trunk) if label.endswith("encoder.fc.weight") else theirs
        apart = (ours[label].detach()[: len(theirs)] - theirs if label in rows else ours[label].detach() - theirs).abs().max()
        assert apart <= share * rate, (label, apart / rate)


@pytest.mark.parametrize("case", ["", "fp/", "clip/"])
def test_two_updates(g, case):
    """Rates, the two Adams and both clips: the norms before each clip, what they leave of the gradients, and the steps."""
    agent, of = case_of(g, case), below(g, case)
    lr = 0.5 * float(g["auxiliary_lr"])
    rates = {"critic.encoder.": lr + 0.5 * float(g["encoder_lr"]), "": lr}
    ours, encoder = labelled(agent), list(agent.critic.encoder.parameters())
    loss, _ = agent.objective.loss(drawn(g, 0, case != "fp/"))
    whole = torch.autograd.grad(loss.mean(), [*encoder, *agent.objective.dynamics.parameters()])
    for number, name in enumerate(("", "_second_update")):
        give(agent, g, number)
        agent.objective.at_step(step(g, g["env_step"]) + number)
        metrics = agent.update_objective(sequence_of(g))
        assert_close(total(agent, metrics), of[f"total_loss{name}"], 1e-3)
        alone, both = (of[f"{clip}{name}"] for clip in ("encoder_norm_before_clip", "all_norm_before_second_clip"))
        before = (both**2 - alone.clamp(max=10) ** 2 + alone**2).sqrt()  # of all, before either clip
        assert_close(metrics["grad/objective"], before, 1e-3)
        if number == 0:
            scales = {"encoder": of["encoder_gradient_scale"], "other": of["other_gradient_scale"]}
            assert_close(encoder[0].grad, scales["encoder"] * whole[0], 1e-3)
            dynamics = agent.objective.dynamics.layers[0].weight
            assert_close(dynamics.grad, scales["other"] * whole[len(encoder)], 1e-3)
            if any(k.startswith("after1/") for k in of):
                assert_steps(agent, g, f"{case}after1/", rates, 1e-2)
    assert_steps(agent, g, f"{case}after2/", rates, 3e-2)
    still = ("target_encoder.", "global_target_classifier.", "critic_target.", "critic.Q", "actor.")
    trunk = agent.critic.encoder.trunk
    for label, p in ours.items():
        if label.startswith(still):
            weight = given(g, label)
            assert torch.equal(p, to_ours(weight, trunk) if label.endswith("encoder.fc.weight") else weight), label


def test_whole_updates(g):
    """Order and rates of all moves: critic; objective; every second time actor, temperature and all targets."""
    agent = make_agent_of(g, "playvirtual")
    lr = 0.5 * (float(g["encoder_lr"]) + float(g["auxiliary_lr"]))
    rates = {
        "critic.encoder.": float(g["critic_lr"]) + lr, "critic_target.encoder.": float(g["critic_lr"]) + lr,
        "target_encoder.": float(g["critic_lr"]) + lr, "critic": float(g["critic_lr"]), "actor": float(g["actor_lr"]),
        "log_alpha": 0.1 * float(g["alpha_lr"]), "": 0.5 * float(g["auxiliary_lr"]),
    }  # fmt: skip
    for number, draws in ((1, 0), (2, 1), (3, 0)):
        give(agent, g, draws)
        metrics = agent.update(Given(g, draws), step(g, g["whole/env_step"][number - 1])).metrics
        relative = 1e-4 if number == 1 else 1e-3
        assert_close(metrics["loss/critic"], g[f"whole/critic_loss{number}"], relative)
        assert_close(total(agent, metrics), g[f"whole/auxiliary_loss{number}"], relative)
        assert ("loss/actor" in metrics) == (number != 2)
        if number != 2:
            assert_close(metrics["loss/actor"], g[f"whole/actor_loss{number}"], relative)
            assert_close(metrics["loss/alpha"], g[f"whole/alpha_loss{number}"], relative)
        assert_steps(agent, g, f"whole/after{number}/", rates, 1e-2 if number == 1 else 3e-2)
