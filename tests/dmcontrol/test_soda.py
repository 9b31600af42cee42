"""SODA: its own batch, its loss and its slow copy."""

import copy

import torch
from small_agents import fill, grads, make, part_of


def test_soda_draws_a_batch_of_its_own_every_second_update():
    agent, config = make("soda")
    replay, drawn = fill(agent, config), []
    sample = replay.sample
    replay.sample = lambda n, *purpose: drawn.append(n) or sample(n, *purpose)
    kept = []
    for _ in range(4):
        agent.update(replay)
        kept.append({purpose: len(batch.action) for purpose, batch in replay.drawn.items()})  # for an inspection
    assert drawn == [8, 16, 8, 8, 16, 8]
    assert kept == [{"batch": 8, "auxiliary": 16}, {"batch": 8}] * 2


def test_soda_pulls_the_prediction_of_the_augmented_view_to_the_slow_copys_of_the_clean_one():
    agent, config = make("soda")
    loss, part = agent.critic_loss, part_of(agent, config)
    strong = loss.strong.view(part.obs, loss.strong.draw(6, agent.generator))
    unit = lambda x: x / x.norm(dim=1, keepdim=True)  # noqa: E731
    expected = (unit(loss.predictor(loss.projector(strong))) - unit(loss.target(part.obs))).square().mean()
    found = loss.distance(strong, part.obs)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(g is None for g in grads(loss.target))
    assert all(g is not None for m in (loss.projector, loss.predictor) for g in grads(m))


def test_soda_moves_the_convolutions_and_its_slow_copy_and_leaves_the_critics_loss_alone():
    agent, config = make("soda")
    replay = fill(agent, config)
    batch = replay.sample(8)
    old = {k: v.clone() for k, v in agent.critic_loss.target.state_dict().items()}
    convs = agent.critic.encoder.trunk.convs[0].weight.detach().clone()
    q = copy.deepcopy(agent.critic.q1.state_dict())
    agent.critic_loss.after_update(agent, batch, None, replay)
    assert not torch.equal(convs, agent.critic.encoder.trunk.convs[0].weight)
    assert all(torch.equal(v, q[k]) for k, v in agent.critic.q1.state_dict().items())
    for (k, new), online in zip(agent.critic_loss.target.named_parameters(), agent.critic_loss.projector.parameters(), strict=True):
        torch.testing.assert_close(new, old[k] + 0.005 * (online - old[k]))
    plain, _ = make("rad")
    part = part_of(agent, config)
    expected, _ = plain.critic_loss.loss(agent.critic, part, None)
    assert torch.equal(agent.critic_loss.loss(agent.critic, part, None)[0], expected)
