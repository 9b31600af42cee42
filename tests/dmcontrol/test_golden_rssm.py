"""The latent model of Dreamer and of PlaNet against the official codes' numbers."""

import pytest
import torch
from official import assert_close, below, tensor
from official_world_models import decoder_of, encoder_of, images, rssm_of_dreamer, rssm_of_planet, time_first

from DMControl.agents.rssm import flat, image_log_prob

pytestmark = pytest.mark.golden
NAMES = {"dreamer": ("std", "stoch", "deter"), "planet": ("stddev", "sample", "belief")}


@pytest.fixture(params=NAMES)
def case(request, golden):
    g = {k: tensor(v) for k, v in golden(request.param).items()}
    if request.param == "planet":
        g["image"] = (torch.floor(g["image"] / 8) / 32 + 0.5 / 32) * 255  # as its encoder takes it, but for the shift
        weights = below(g, "w/")
    else:
        weights = below(g, "w/rssm.")
    trunk = encoder_of(below(g, "w/encoder."))
    rssm = (rssm_of_dreamer if request.param == "dreamer" else rssm_of_planet)(weights, g["embed"].shape[-1])
    return g, trunk, rssm, decoder_of(below(g, "w/decoder.")), NAMES[request.param]


def filtered(g, trunk, rssm):
    embed = flat(trunk(images(g["image"]))).unflatten(0, (-1, len(g["image"])))
    noise = g["noise/post"] if g["noise/post"].dim() == 3 else g["noise/post"][:, None]
    return embed, rssm.observe(embed, time_first(g["action"]), noise)


def test_states_and_kl(case):
    g, trunk, rssm, _, (std, stoch, deter) = case
    embed, found = filtered(g, trunk, rssm)
    assert_close(embed, time_first(g["embed"]), 1e-4)
    pairs = [
        *((found.posterior.mean, "post/mean"), (found.posterior.std, f"post/{std}"), (found.state.stoch, f"post/{stoch}")),
        *((found.state.deter, f"post/{deter}"), (found.prior.mean, "prior/mean"), (found.prior.std, f"prior/{std}")),
        (found.posterior.kl(found.prior), "kl"),
    ]
    for ours, name in pairs:
        assert_close(ours, time_first(g[name]), 1e-4)
    noise = g["noise/prior"] if g["noise/prior"].dim() == 3 else g["noise/prior"][:, None]
    assert_close(found.prior.sample(noise), time_first(g[f"prior/{stoch}"]), 1e-4)


def test_pictures(case):
    g, trunk, rssm, decoder, _ = case
    _, found = filtered(g, trunk, rssm)
    mean = decoder(found.state.features.flatten(0, 1))
    assert_close(mean[0].permute(1, 2, 0), g["image_mean_first"], 1e-4)
    target = images(g["image"]) / 255 - 0.5
    assert_close(image_log_prob(mean, target), time_first(g["image_log_prob"]).flatten(), 1e-4)


def test_a_state_without_pictures_is_the_prior(case):
    g, trunk, rssm, _, _ = case
    _, found = filtered(g, trunk, rssm)
    before = type(found.state)(found.state.stoch[0], found.state.deter[0])
    noise = torch.randn(1, *before.stoch.shape)
    one = rssm.foresee(before, time_first(g["action"])[1:2], noise)
    assert_close(one.deter[0], found.state.deter[1].detach(), 1e-5)
    prior = rssm.prior(one.deter[0])
    assert_close(one.stoch[0], (prior.mean + prior.std * noise[0]).detach(), 1e-5)
