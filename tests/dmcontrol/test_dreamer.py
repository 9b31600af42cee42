"""Dreamer: what its losses are made of, where gradients go, when it updates, and how it acts."""

import copy

import pytest
import torch
from small_agents import fill, make
from small_world_models import seen, updates_of

from DMControl.agents.dreamer import Draw, Imagined, lambda_return
from DMControl.agents.rssm import State
from DMControl.agents.world_agent import parameters
from DMControl.settings import read_config


def some_state(agent, n=6):
    g = torch.Generator().manual_seed(1)
    own = agent.config
    return State(torch.randn(n, own.stoch, generator=g), torch.randn(n, own.deter, generator=g))


def some_draw(agent, n):
    own = agent.config
    return Draw(
        torch.randn(own.length, 1, own.stoch), torch.randn(own.horizon, 1, own.stoch), torch.randn(own.horizon, n, agent.action_dim)
    )


def test_free_nats_hold_for_the_mean_kl(monkeypatch):
    """KLs of 1 and 5 nats cost max(3, 3) = 3 and pull; PlaNet's form would cost 1. Below 3 there is no gradient."""
    agent, config = make("dreamer")
    chunk, draw = fill(agent, config).sample_chunks(3, 8), some_draw(agent, 24)
    real = agent.fit
    for kl, cost, pulls in (([1.0, 5.0], 3.0, None), ([1.0, 7.0], 4.0, 0.5), ([1.0, 2.0], 3.0, 0.0)):
        given = torch.tensor(kl, requires_grad=True)
        monkeypatch.setattr(agent, "fit", lambda *inputs, given=given: real(*inputs)._replace(kl=given))
        metrics, _ = agent.model_gradient(chunk, draw)
        assert metrics["loss/model"] - metrics["loss/image"] - metrics["loss/reward"] == pytest.approx(cost, abs=1e-2)
        assert pulls is None or given.grad.tolist() == [pulls, pulls]


def test_the_lambda_return_by_hand():
    reward, value = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[10.0], [20.0], [30.0]])
    third = 3 + 0.9 * 40
    second = 2 + 0.9 * (0.25 * 30 + 0.75 * third)
    first = 1 + 0.9 * (0.25 * 20 + 0.75 * second)
    found = lambda_return(reward, value, torch.full_like(reward, 0.9), torch.tensor([40.0]), 0.75)
    torch.testing.assert_close(found[:, 0], torch.tensor([first, second, third]))


def test_the_bootstrap_is_the_last_value():
    agent, _ = make("dreamer", "dreamer.return_lambda=1", "dreamer.discount=1")
    reward, value = torch.arange(4.0)[:, None], torch.tensor([100.0, 200.0, 300.0, 1000.0])[:, None]
    found = agent.returns(Imagined(torch.zeros(4, 1, 1), reward, value, torch.zeros(4, 1)))
    assert found[:, 0].tolist() == [1003.0, 1003.0, 1002.0]  # rewards 0 + 1 + 2, and the value of the fourth state


def test_the_actors_gradient_flows_through_the_dynamics():
    """The reward reads the deterministic part alone, and no value is seen: the action matters only by what it leads to."""
    agent, _ = make("dreamer", "dreamer.return_lambda=1")
    with torch.no_grad():
        agent.value[-1].weight.zero_()
        agent.reward[0].weight[:, : agent.config.stoch] = 0
    start, draw = some_state(agent), some_draw(agent, 6)
    agent.behaviour_gradients(start, draw)
    slope = torch.cat([p.grad.flatten() for p in agent.actor.parameters()])
    assert slope.norm() > 1e-4

    def loss(scale):
        with torch.no_grad():
            moved = copy.deepcopy(agent)
            for p, g in zip(moved.actor.parameters(), agent.actor.parameters(), strict=True):
                p += scale * g.grad
            returns = moved.returns(moved.imagine(start, draw))
            return -(moved.config.discount ** torch.arange(len(returns))[:, None] * returns).mean().double()

    step = 1e-2 / float(slope.norm())
    cut = (loss(step) - loss(-step)) / (2 * step)  # of the whole function; features to the actor are cut in the gradient alone
    assert cut > 0.3 * slope.norm() ** 2


def test_no_gradient_strays():
    agent, config = make("dreamer")
    model = parameters(agent.encoder, agent.rssm, agent.decoder, agent.reward)
    _, start = agent.model_gradient(fill(agent, config).sample_chunks(3, 8), some_draw(agent, 24))
    assert all(p.grad is not None for p in model) and all(p.grad is None for p in parameters(agent.actor, agent.value))
    assert not any(part.requires_grad for part in start)
    for p in model:
        p.grad = None
    draw = some_draw(agent, 24)
    agent.behaviour_gradients(start, draw)
    assert all(p.grad is None for p in model)
    imagined = agent.imagine(start, draw)
    returns = agent.returns(imagined)
    weight = agent.config.discount ** torch.arange(len(returns))[:, None]
    value_loss = 0.5 * (weight * (imagined.value[:-1] - returns.detach()).square()).mean()
    for module, loss in ((agent.actor, -(weight * returns).mean()), (agent.value, value_loss)):
        own = list(module.parameters())
        for p, expected in zip(own, torch.autograd.grad(loss, own, retain_graph=True), strict=True):
            torch.testing.assert_close(p.grad, expected)


def test_all_gradients_are_taken_before_any_step():
    agent, config = make("dreamer")
    other = copy.deepcopy(agent)
    replay = fill(agent, config)
    found = {}
    first = agent.optimizers["model"].step

    def step():
        found.update({name: [p.grad.clone() for p in optimizer.parameters] for name, optimizer in agent.optimizers.items()})
        return first()

    agent.optimizers["model"].step = step
    state = agent.generator.get_state()
    agent.update(replay, 0)
    replay.generator.set_state(state)
    other.generator = replay.generator
    chunk = replay.sample_chunks(3, 8)
    _, start = other.model_gradient(chunk, draw := other.draw())
    other.behaviour_gradients(start, draw)
    for name, optimizer in other.optimizers.items():
        for p, gradient in zip(optimizer.parameters, found[name], strict=True):
            torch.testing.assert_close(p.grad, gradient)


def test_the_first_updates_train_the_model_alone():
    agent, config = make("dreamer", "dreamer.model_updates=2")
    replay = fill(agent, config)
    for update in range(3):
        before = {name: copy.deepcopy(module.state_dict()) for name, module in agent.modules.items()}
        metrics, _ = agent.update(replay, 0)
        moved = {name for name, module in agent.modules.items() for key, p in module.state_dict().items() if not p.equal(before[name][key])}
        assert moved == {"encoder", "rssm", "decoder", "reward"} | ({"actor", "value"} if update == 2 else set())
        assert ("loss/actor" in metrics) == (update == 2)


def test_every_state_of_the_batch_starts_an_imagination():
    agent, config = make("dreamer", "dreamer.batch_size=50", "dreamer.length=50", "dreamer.horizon=15")
    paper = read_config(["method=dreamer"]).dreamer
    assert (paper.batch_size, paper.length, paper.horizon) == (50, 50, 15)
    draw = agent.draw()
    assert draw.action.shape == (15, 2500, 2) and draw.state.shape == (15, 1, 4) and draw.posterior.shape == (50, 1, 4)
    agent, config = make("dreamer", "quirks.shared_noise=false", "dreamer.horizon=3")
    _, start = agent.model_gradient(fill(agent, config).sample_chunks(3, 8), draw := agent.draw())
    assert len(start.stoch) == 24 and draw.posterior.shape == (8, 3, 4) and draw.state.shape == (3, 24, 4)
    imagined = agent.imagine(start, draw)
    assert imagined.features.shape == (3, 24, 12) and not torch.equal(imagined.features[0], start.features)  # the start is not among them
    returns = agent.returns(imagined)
    metrics = agent.behaviour_gradients(start, draw)
    assert metrics["loss/actor"] == pytest.approx(-((returns[0] + 0.99 * returns[1]).mean() / 2).item(), rel=1e-5)


def test_the_policy_at_its_start():
    agent, _ = make("dreamer", "dreamer.deter=100", "dreamer.hidden=100")
    agent.actor.requires_grad_(False)
    features = torch.randn(500, 104)
    policy = agent.policy_of(features)
    assert policy.std.mean() == pytest.approx(5, abs=0.3)
    assert agent.policy_of(1e4 * features).mean.abs().max() <= 5 and agent.policy_of(1e4 * features).mean.abs().max() > 4.9
    with torch.no_grad():
        agent.actor[-1].bias -= 1e3
    assert agent.policy_of(features).std.max() == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize("repeat", [2, 4, 8])
def test_when_it_updates(repeat):
    due, random = updates_of(read_config(["method=dreamer", f"action_repeat={repeat}", "env_steps=20000"]))
    at = [repeat * (step + 1) for step, count in enumerate(due) if count]
    assert set(due) == {0, 100} and at == [5000 + repeat, *range(6000, 20_001, 1000)]
    assert sum(random) * repeat == 5000 and not any(random[5000 // repeat :])


def test_noise_is_added_in_training_and_the_mode_taken_in_evaluation():
    agent, _ = make("dreamer")
    with torch.no_grad():
        agent.actor[-1].weight.zero_()
        agent.actor[-1].bias.copy_(torch.tensor([0.2, 0.2, -1e3, -1e3]))  # the policy does not vary
    obs, state = seen(agent, 1000), agent.begin(1000)
    before = agent.generator.get_state()
    calm, after = agent.act(obs, state, explore=False)
    assert torch.equal(agent.generator.get_state(), before), "an evaluation leaves the training's stream alone"
    assert calm.std(0).max() < 0.05 and after.shape == (1000, 4 + 8 + 2)
    wild, followed = agent.act(obs, state, explore=True)
    assert (wild - calm).std() == pytest.approx(0.3, abs=0.02) and abs(wild).max() <= 1
    assert torch.equal(followed[:, -2:], torch.from_numpy(wild)), "what was done is remembered, with its noise"
    assert not torch.equal(agent.generator.get_state(), before)
    agent.begin(1)
    assert (agent.act(obs, state, explore=False)[0] == calm).all(), "each evaluation episode draws the same"


def test_the_mode_is_each_rows_own_most_likely_sample():
    agent, _ = make("dreamer")
    policy, noise = agent.policy_of(some_state(agent, 4).features), torch.randn(100, 4, 2)
    samples = policy.sample(noise)
    likely = policy.log_prob(samples)
    for row, chosen in enumerate(policy.mode(noise)):
        assert torch.equal(chosen, samples[likely[:, row].argmax(), row])
    taken = agent.policy(some_state(agent, 4), False, torch.Generator().manual_seed(0))  # in an evaluation
    assert torch.equal(taken, policy.mode(torch.randn(100, 4, 2, generator=torch.Generator().manual_seed(0))))
    u = torch.atanh(samples.double().clamp(-0.9999, 0.9999))
    exact = torch.distributions.Normal(policy.mean.double(), policy.std.double()).log_prob(u) - torch.log(1 - samples.double() ** 2)
    inside = samples.abs().amax(-1) < 0.99
    torch.testing.assert_close(likely[inside].double(), exact.sum(-1)[inside], rtol=1e-3, atol=1e-3)


def test_a_prediction_does_not_look_ahead():
    agent, _ = make("dreamer")
    g = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (8, 2, 3, 64, 64), generator=g, dtype=torch.uint8)
    action = torch.rand(8, 2, 2, generator=g)
    other = frames.clone()
    other[3:] = 255 - other[3:]
    (r1, p1), (r2, p2) = (agent.dream(f, action, 3, torch.Generator().manual_seed(5)) for f in (frames, other))
    assert torch.equal(p1, p2) and torch.equal(r1[:3], p1[:3]) and not torch.equal(r1, r2)
    turned = action.clone()
    turned[5] *= -1
    _, p3 = agent.dream(frames, turned, 3, torch.Generator().manual_seed(5))
    assert torch.equal(p3[:5], p1[:5]) and not torch.equal(p3[5:], p1[5:])
