"""PlaNet: what its loss is made of, how it plans, and when it updates."""

import pytest
import torch
from small_agents import fill, make
from small_world_models import seen, updates_of

from DMControl.agents.planet import five_bits, refit
from DMControl.agents.rssm import LOG_2PI, State, gaussian, image_log_prob
from DMControl.agents.rssm_agent import Fit
from DMControl.core.errors import UserError
from DMControl.settings import read_config


def test_free_nats_hold_in_each_step():
    """KLs of 1 and 5 nats cost (0 + 2) / 2 = 1."""
    agent, _ = make("planet")
    fit = Fit(None, torch.tensor(0.0), torch.tensor(0.0), torch.tensor([[1.0, 5.0]]))
    assert agent.loss(fit) == 1


def test_rewards_weigh_ten_times():
    agent, _ = make("planet")
    fit = Fit(None, torch.tensor(-2.0), torch.tensor(-3.0), torch.zeros(1, 2))
    assert agent.loss(fit) == 2 + 10 * 3


def test_the_likelihood_of_a_picture_is_summed_over_its_pixels():
    image = torch.zeros(2, 3, 64, 64)
    image[1] = 0.5
    torch.testing.assert_close(image_log_prob(torch.zeros(2, 3, 64, 64), image), -12288 * (0.5 * torch.tensor([0.0, 0.25]) + 0.5 * LOG_2PI))


def test_no_std_is_below_a_tenth():
    assert gaussian(torch.full((1, 4), -100.0)).std.min() == pytest.approx(0.1)


def test_planning_follows_the_prior_alone():
    """Its states are those of the prior, whatever was seen before the last state; a posterior sees the picture."""
    agent, _ = make("planet")
    state = State(torch.randn(3, 4), torch.randn(3, 8))
    action, noise = torch.rand(1, 3, 2), torch.randn(1, 3, 4)
    ahead = agent.rssm.foresee(state, action, noise)
    deter = agent.rssm.advance(state, action[0])
    torch.testing.assert_close(ahead.stoch[0], agent.rssm.prior(deter).sample(noise[0]))
    pictures = [agent.rssm.look(torch.randn(3, agent.encoder.features)) for _ in range(2)]
    one, two = (agent.rssm.follow(state, action[0], p, noise[0])[0] for p in pictures)
    assert torch.equal(one.deter, two.deter) and not torch.equal(one.stoch, two.stoch)


class Quadratic:
    """In place of the model: the return is highest where every action is `best`."""

    def __init__(self, best):
        self.best = best

    def __call__(self, start, actions, noise):
        return -(actions - self.best).square().sum((2, 3))


def test_the_planner_finds_the_best_actions(monkeypatch):
    agent, _ = make("planet", "planet.candidates=1000", "planet.elites=100", "planet.iterations=10", "planet.horizon=12")
    paper = read_config(["method=planet"]).planet
    assert (paper.candidates, paper.elites, paper.iterations, paper.horizon) == (1000, 100, 10, 12)
    best, asked = torch.tensor([0.7, -0.4]), []
    quadratic = Quadratic(best)
    monkeypatch.setattr(agent, "predicted_return", lambda *inputs: asked.append(inputs[1].shape) or quadratic(*inputs))
    state = State(torch.zeros(2, 4), torch.zeros(2, 8))
    actions = agent.policy(state, False, torch.Generator().manual_seed(0))
    assert actions.shape == (2, 2) and (actions - best).abs().max() < 0.05
    assert asked == [(2, 1000, 12, 2)] * 10
    quadratic.best = torch.tensor([3.0, 0.0])  # out of reach
    bounded = agent.policy(state, False, torch.Generator().manual_seed(0))
    assert bounded[:, 0].min() > 0.9 and bounded.max() <= 1


def test_the_refit_takes_the_variance_of_the_population():
    actions = torch.tensor([1.0, 2.0, 5.0, 100.0]).view(1, 4, 1, 1)
    mean, std = refit(actions, torch.tensor([[3.0, 2.0, 4.0, 1.0]]), 3)
    assert mean.item() == pytest.approx(8 / 3) and std.item() == pytest.approx((26 / 9 + 1e-6) ** 0.5)


def test_it_plans_at_every_step_and_carries_its_belief(monkeypatch):
    agent, _ = make("planet")
    starts = []
    plan = agent.plan
    monkeypatch.setattr(agent, "plan", lambda state, noises: starts.append(state) or plan(state, noises))
    state = agent.begin(1)
    assert not state.any()
    for step in range(3):
        before = state
        action, state = agent.act(seen(agent, 1, step), state, explore=False)
        deter = agent.rssm.advance(State(*before.split([4, 8, 2], -1)[:2]), before[:, -2:])
        assert torch.equal(state[:, 4:12], deter) and torch.equal(starts[step].deter, deter)
        assert torch.equal(state[:, -2:], torch.from_numpy(action))
    assert len(starts) == 3


def test_when_it_updates():
    due, random = updates_of(read_config(["method=planet", "action_repeat=8", "env_steps=20000"]))
    at = [step + 1 for step, count in enumerate(due) if count]
    assert set(due) == {0, 100} and at == [5 * 125 + 1, *range(6 * 125, 2501, 125)]
    assert sum(random) == 5 * 125 and not any(random[5 * 125 :])


def test_five_bits():
    image = torch.tensor([0, 7, 8, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    low, high = five_bits(image, torch.zeros(1, 1, 2, 2)), five_bits(image, torch.full((1, 1, 2, 2), 1 - 1e-6))
    assert low.flatten().tolist() == [-0.5, -0.5, -0.5 + 1 / 32, 0.5 - 1 / 32]
    assert high.max() < 0.5 and (high - low).max() <= 1 / 32
    agent, config = make("planet")
    chunk = fill(agent, config).sample_chunks(2, 8)
    noises = [agent.pixel_noise(16, agent.generator) for _ in range(2)]
    assert not torch.equal(*noises) and 0 <= noises[0].min() and noises[0].max() < 1
    pixels, target = agent.prepare(chunk.obs, noises[0])
    assert pixels is target
    assert torch.equal(agent.pictures(target), chunk.obs.whole() // 8 * 8)


def test_evaluation_adds_no_noise(monkeypatch):
    agent, _ = make("planet")
    monkeypatch.setattr(agent, "policy", lambda state, explore, generator: torch.full((len(state.stoch), 2), 0.9))
    obs, state = seen(agent, 500), agent.begin(500)
    calm, wild = (agent.act(obs, state, explore=explore)[0] for explore in (False, True))
    assert (calm == calm[0]).all() and wild.max() == 1 and wild[wild < 1].std() > 0.1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["planet.candidates=50"], "planet.candidates=50 must be at least planet.elites=100"),
        (["dreamer.horizon=3"], "no effect with method=planet"),
        (["train.unit=episodes"], "did you mean episode"),
        (["planet.length=1"], "between 2 and"),
    ],
)
def test_mistakes_are_named(arguments, says):
    with pytest.raises(UserError, match=says):
        read_config(["method=planet", *arguments])
