"""SAC+AE against the official code's numbers."""

import pytest
import torch
from official import assert_close, tensor
from official_sac import (
    OneBatch,
    assert_displaced,
    assert_gradients,
    assert_no_gradient,
    give,
    make_agent_of,
    moved,
    record_targets,
    theirs,
)

from DMControl.agents.chunks import rows_of
from DMControl.agents.planet import five_bits
from DMControl.methods.sac_ae import Part

pytestmark = pytest.mark.golden
GROUPS = {"encoder_convs": "critic.encoder.convs.", "encoder_fc": "critic.encoder.fc.", "encoder_ln": "critic.encoder.ln."}
GROUPS |= {"decoder_fc": "decoder.fc.", "decoder_deconvs": "decoder.deconvs."}
BIG = "big/"  # the same with a penalty and a decay that can be seen


@pytest.fixture
def g(golden):
    return {k: tensor(v) for k, v in golden("dmc_sac_ae").items()}


def make(g, prefix=""):
    """Updates count from the first on, as after the thousand at once."""
    rates = {name: float(g[name]) for name in ("encoder_lr", "decoder_lr")}
    rates |= {"latent_weight": float(g[f"{prefix}latent_lambda"]), "weight_decay": float(g[f"{prefix}weight_decay"])}
    return make_agent_of(g, "sac_ae", "train.catch_up=0", *(f"sac_ae.{name}={value}" for name, value in rates.items()))


def whole_image(g):
    n, size = len(g["obs"]), g["obs"].shape[-1]
    return moved(torch.zeros(n, 2, dtype=torch.int64), size, size)


def give_noise(agent, g, update):
    """The target's noise, in the agent's parts."""
    noise = g["target_noise_u8"][update].float() / 256
    agent.objective.parts = lambda sequence, generator, view: [
        Part(agent.augment.view(sequence.obs[rows], view[rows]), noise[rows]) for rows in rows_of(len(noise), agent.chunk)
    ]


def restore(agent, g, update):
    """A step of encoder and decoder; gives the losses."""
    give_noise(agent, g, update)
    metrics = agent.update_objective(OneBatch(g, update).batch.as_sequence(), whole_image(g))
    return metrics["loss/reconstruction"], metrics["loss/latent"]


def total(agent, losses):
    return losses[0] + agent.objective.latent_weight * losses[1]


def test_description_and_target(g):
    agent = make(g)
    assert_close(agent.critic.encoder(g["obs"]), g["h"], 1e-4)
    assert_close(five_bits(g["obs"], g["target_noise_u8"][0].float() / 256)[0], g["target_image0"], 1e-5)


def test_decoder(g):
    agent = make(g)
    decoder, trunk, shown = agent.objective.decoder, agent.critic.encoder.trunk, []
    for layer in (decoder.fc, *decoder.convs):
        layer.register_forward_hook(lambda layer, inputs, output: shown.append(output.detach().clone()))
    image = decoder(g["h"])
    first = theirs(shown[0].T, "decoder.fc.", trunk).T  # before its ReLU
    assert_close(first[:, : g["decoder_fc_first16"].shape[1]], g["decoder_fc_first16"], 1e-4)
    for number, output in enumerate(shown[1:], 1):
        assert list(output.shape) == g[f"decoder_shape{number}"].tolist()
        if number < len(decoder.convs):
            assert_close(output.relu().mean((2, 3)), g[f"decoder_act{number}_channel_mean"], 1e-4)
    assert_close(image[0, [0, -1]], g["reconstruction_image0_channels_0_8"], 1e-4)
    assert_close(image[:, :, -g["reconstruction_last_rows"].shape[2] :], g["reconstruction_last_rows"], 1e-4)
    assert_close(image.mean((2, 3)), g["reconstruction_channel_mean"], 1e-4)


@pytest.mark.parametrize("prefix", ["", BIG])
def test_losses_and_gradients(g, prefix):
    agent = make(g, prefix)
    losses = restore(agent, g, 0)
    for ours, name in zip((*losses, total(agent, losses)), ("rec_loss", "latent_loss", "loss"), strict=True):
        assert_close(ours, g[prefix + name], 1e-4)
    assert_gradients(agent, g, f"{prefix}grad", GROUPS)
    assert_no_gradient(agent, g, ("critic_target.", "critic.Q", "actor."))


@pytest.mark.parametrize("prefix", ["", BIG])
def test_two_steps(g, prefix):
    agent = make(g, prefix)
    rate = float(g["encoder_lr"])
    for number, update in ((1, 0), (2, 1)):
        losses = restore(agent, g, update)
        if number == 1 and not prefix:
            assert_displaced(agent, g, "after1", rate, 1e-2)
    for ours, name in zip((*losses, total(agent, losses)), ("rec_loss", "latent_loss", "loss"), strict=True):
        assert_close(ours, g[f"{prefix}{name}_second_update"], 1e-3)
    assert_displaced(agent, g, f"{prefix}after2", rate, 3e-2)


def test_whole_updates(g):
    """The third has the inputs of the first."""
    agent = make(g)
    targets = record_targets(agent)
    rate = float(g["critic_lr"]) + float(g["encoder_lr"])
    for number, update in ((1, 0), (2, 1), (3, 0)):
        noises = [g["noise_next"][update]] + ([g["noise_actor"]] if number != 2 else [])
        give(agent, [whole_image(g)] * 2, noises)
        give_noise(agent, g, update)
        targets.clear()
        metrics = agent.update(OneBatch(g, update), 0).metrics
        near = 1e-4 if number == 1 else 1e-3
        assert_close(torch.cat(targets), g[f"whole/target_Q{number}"], near)
        assert_close(total(agent, (metrics["loss/reconstruction"], metrics["loss/latent"])), g[f"whole/ae_loss{number}"], near)
        for name in ("critic", "actor", "alpha"):
            assert (f"loss/{name}" in metrics) == (f"whole/{name}_loss{number}" in g)
            if f"loss/{name}" in metrics:
                assert_close(metrics[f"loss/{name}"], g[f"whole/{name}_loss{number}"], near)
        assert_displaced(agent, g, f"whole/after{number}", rate, 1e-2 if number == 1 else 3e-2)
