"""SLAC: what its losses are made of, where gradients go, what its actor reads, and when what learns."""

import copy

import pytest
import torch
from small_agents import fill, make
from small_world_models import seen, updates_of
from torch.nn import functional as F

from DMControl.agents.slac import actor_input
from DMControl.agents.slac_model import Chain, Compressor, Steps
from DMControl.core.errors import UserError
from DMControl.core.machine import Precision
from DMControl.core.method.frames import Frames
from DMControl.settings import read_config


def batch_of(agent, n=4, seed=0):
    """Observations, steps without an episode's end, and noise."""
    g, t = torch.Generator().manual_seed(seed), agent.window
    images = torch.randint(0, 256, (t * n, 3, 64, 64), generator=g, dtype=torch.uint8)
    never = torch.zeros(t, n, dtype=torch.bool)
    steps = Steps(torch.rand(t, n, 2, generator=g), torch.rand(t, n, generator=g), torch.ones(t, n), never, never)
    return Frames.of_images(images), steps, agent.draw(n)


def chain_of(agent, obs, steps, draw):
    return agent.follow(obs.whole().unflatten(0, steps.reward.shape), steps, draw, slice(None))[1]


def grads(module):
    return [p.grad for p in module.parameters()]


def test_samples_are_normally_distributed():
    agent, _ = make("slac")
    draw = agent.draw(4000)
    for noise in draw:
        z = noise.flatten()
        assert z.mean().abs() < 0.05 and z.std() == pytest.approx(1, abs=0.05) and (z**4).mean() == pytest.approx(3, abs=0.4)
    obs, steps, draw = batch_of(agent)
    chain = chain_of(agent, obs, steps, draw)
    torch.testing.assert_close(chain.z1, chain.q1.mean + chain.q1.std * draw.z1)


def test_the_prior_follows_the_posteriors_samples():
    """In each step anew: not its own samples."""
    agent, _ = make("slac")
    chain = chain_of(agent, *(inputs := batch_of(agent)))
    prior = agent.model.prior(chain, inputs[1])
    for t in range(1, agent.window):
        torch.testing.assert_close(prior.mean[t], agent.model.z1_prior(chain.z2[t - 1], inputs[1].action[t - 1]).mean)
    assert not prior.mean[0].any() and (prior.std[0] == 1).all()


def test_the_kl_is_of_z1_alone():
    agent, _ = make("slac")
    obs, steps, draw = batch_of(agent)
    chain = chain_of(agent, obs, steps, draw)
    prior = agent.model.prior(chain, steps)
    ours = torch.distributions.Normal(*chain.q1), torch.distributions.Normal(*prior)
    expected = torch.distributions.kl_divergence(*ours).sum(-1)  # over z1
    assert agent.model.losses(chain, obs.whole(), steps)["kl"].item() == pytest.approx(expected.sum(0).mean().item(), rel=1e-4)


def test_losses_are_summed_over_frames_and_pixels_have_a_variance_of_a_tenth():
    agent, _ = make("slac")
    obs, steps, draw = batch_of(agent)
    chain = chain_of(agent, obs, steps, draw)
    mean = agent.model.decoder(chain.latent.flatten(0, 1))
    of_pixels = torch.distributions.Normal(mean, 0.1**0.5).log_prob(obs.whole() / 255).sum((1, 2, 3))
    assert agent.model.losses(chain, obs.whole(), steps)["image"].item() == pytest.approx(-of_pixels.sum().item() / 4, rel=1e-4)


def test_no_gradient_of_sac_reaches_the_model():
    agent, _ = make("slac")
    obs, steps, draw = batch_of(agent)
    _, features, chain = agent.model_gradient(obs, steps, draw)
    assert not features.requires_grad and not chain.latent.requires_grad
    model = [p.grad.clone() for p in agent.model.parameters()]
    agent.sac_gradients(agent.newest_step(features, chain.latent, steps), draw)
    assert all(torch.equal(a, b) for a, b in zip(model, grads(agent.model), strict=True))
    assert all(g is not None and g.abs().sum() > 0 for m in (agent.critic, agent.actor) for g in grads(m)[-1:])
    assert all(g is None for g in grads(agent.target)) and agent.log_alpha.grad is not None


def test_the_actor_reads_features_and_actions_and_the_critic_latents():
    agent, _ = make("slac", "slac.length=8", "slac.filters=32", "slac.z1=32", "slac.z2=256")
    assert agent.actor[0].in_features == 8 * 256 + 7 * 2 and agent.critic.q1[0].in_features == 288 + 2
    features, action = torch.arange(1.0, 5).view(4, 1, 1).expand(4, 2, 1), torch.arange(11.0, 14).view(3, 1, 1).expand(3, 2, 1)
    first = torch.zeros(4, 2, dtype=torch.bool)
    first[2, 1] = True
    found = actor_input(features, action, first)
    assert found.tolist() == [[1, 2, 3, 4, 11, 12, 13], [3, 3, 3, 4, 0, 0, 13]]


def test_acting_reads_what_training_reads():
    """After six steps of an episode: the newest four frames and the three actions between them; at its start the first frame alone."""
    agent, _ = make("slac", "quirks.stochastic_evaluation=false")
    given = []
    real = agent.policy
    agent.policy = lambda inputs, noise: given.append(inputs) or real(inputs, noise)
    state, frames, actions = agent.begin(1), [], []
    for step in range(6):
        frames.append(agent.model.compressor(seen(agent, 1, step).whole()).detach())
        action, state = agent.act(seen(agent, 1, step), state, explore=False)
        actions.append(torch.from_numpy(action))
    torch.testing.assert_close(given[5], torch.cat([*frames[2:6], *actions[2:5]], -1))
    nothing = torch.zeros(1, 2)
    torch.testing.assert_close(given[1], torch.cat([*frames[:1] * 3, frames[1], nothing, nothing, actions[0]], -1))


def test_the_reward_reads_both_ends_of_a_step_and_none_leaves_an_episodes_last_frame():
    agent, _ = make("slac")
    obs, steps, draw = batch_of(agent)
    chain = chain_of(agent, obs, steps, draw)
    told = agent.model.reward_log_prob(chain, steps)
    later = Chain(chain.z1.clone(), chain.z2.clone(), chain.q1)
    later.z1[2] += 1
    changed = (agent.model.reward_log_prob(later, steps) != told).all(1)
    assert changed.tolist() == [False, True, True, False]
    last = steps.last.clone()
    last[1, 0] = True
    masked = agent.model.reward_log_prob(chain, steps._replace(last=last))
    assert masked[1, 0] == 0 and (masked == told).sum() == told.numel() - 1


def test_the_first_sequences_train_the_model():
    agent, _ = make("slac")
    obs, steps, draw = batch_of(agent)
    agent.model_gradient(obs, steps, draw)
    few, other = make("slac", "slac.batch_size=2")[0], obs.whole().unflatten(0, (5, 4))[:, :2].flatten(0, 1)
    few.model.load_state_dict(agent.model.state_dict())
    half = type(draw)(*(n[:, :2] for n in draw[:2]), *(n[:2] for n in draw[2:]))
    few.model_gradient(Frames.of_images(other), steps.rows(slice(2)), half)
    for ours, theirs in zip(grads(agent.model), grads(few.model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_when_what_learns():
    paper = read_config(["method=slac", "action_repeat=4", "env_steps=60000"])
    due, random = updates_of(paper)
    assert sum(random) == 10_000 and due[9_999:10_002] == [0, 100_000, 1] and set(due[10_001:]) == {1}
    agent, config = make("slac")
    replay, before = fill(agent, config), copy.deepcopy(agent.modules)
    for number in range(6):
        metrics = agent.update(replay, 0).metrics
        assert ("loss/critic" in metrics) == (number >= 4)
        moved = {
            n: any(not torch.equal(a, b) for a, b in zip(m.parameters(), before[n].parameters(), strict=True))
            for n, m in agent.modules.items()
        }
        assert moved["model"] and all(moved[name] == (number >= 4) for name in ("actor", "critic", "target", "temperature"))


def test_temperature_targets_and_the_critics_loss():
    agent, _ = make("slac")
    assert agent.log_alpha.exp() == 1 and read_config(["method=slac"]).slac.tau == 0.005
    obs, steps, draw = batch_of(agent)
    _, features, chain = agent.model_gradient(obs, steps, draw)
    batch = agent.newest_step(features, chain.latent, steps)
    with torch.no_grad():
        target = agent.target_value(batch, draw.next_action)
        q1, q2 = agent.critic(batch.state, batch.action)
        halved = 0.5 * F.mse_loss(q1, target) + 0.5 * F.mse_loss(q2, target)
    assert agent.sac_gradients(batch, draw)["loss/critic"].item() == pytest.approx(halved.item(), rel=1e-5)
    old = [p.clone() for p in agent.target.parameters()]
    agent.take_steps()
    agent.momentum.step()
    for before, now, online in zip(old, agent.target.parameters(), agent.critic.parameters(), strict=True):
        torch.testing.assert_close(now, before + 0.005 * (online - before))


def test_histories_across_an_episodes_beginning():
    agent, config = make("slac")
    replay = fill(agent, config)  # episodes of 20 steps
    history = replay.sample_histories(500, 4)
    j = replay.action.view(-1, 2)
    first = {tuple(row.tolist()): number for number, row in enumerate(j[: replay.added])}
    frames = history.obs.whole().unflatten(0, (5, 500))
    for b in range(500):
        start = first[tuple(history.action[0, b].tolist())]
        numbers = range(start, start + 4)
        assert [first[tuple(a.tolist())] for a in history.action[:4, b]] == list(numbers) and not history.action[4, b].any()
        assert history.first[:, b].tolist() == [*(n % 20 == 0 for n in numbers), False]
        assert history.last[:, b].tolist() == [*(n % 20 == 19 for n in numbers[:3]), False, False]
        slots = [n + n // 20 for n in numbers]  # an episode has a frame more than steps
        assert torch.equal(frames[:, b], replay.store.frames[[*slots, slots[-1] + 1]])


def test_evaluation_draws_from_the_policy_as_officially():
    agent, _ = make("slac")
    obs, state = seen(agent, 200), agent.begin(200)
    one, two, wild = (agent.act(obs, state, explore)[0] for explore in (False, False, True))
    assert (one != two).any() and one.std() == pytest.approx(wild.std(), abs=0.1)
    calm, _ = make("slac", "quirks.stochastic_evaluation=false")
    assert (calm.act(obs, state, False)[0] == calm.act(obs, state, False)[0]).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["slac.batch_size=16"], "slac.batch_size=16 must be at least slac.model_batch=32"),
        (["preset=debug", "train.random_steps=6"], r"slac.length \+ 3 = 7"),
        (["env_steps=30000"], "nothing is learnt before"),
        (["train.unit=episode"], "no effect with method=slac"),
    ],
)
def test_mistakes_are_named(arguments, says):
    with pytest.raises(UserError, match=says):
        read_config(["method=slac", *arguments])


def test_the_centre_is_taken_off_the_pixels_alone():
    """A picture with a centre is the picture less that colour without one; the model still tells whole pictures."""
    precision, colour = Precision(torch.device("cpu"), torch.float32), torch.tensor([52.0, 78.0, 103.0])
    plain, centred = Compressor(2, (), precision), Compressor(2, colour.tolist(), precision)
    centred.load_state_dict(plain.state_dict())
    image = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(centred(image), plain(image - colour[:, None, None]))
    assert not torch.allclose(centred(image), plain(image))
