"""SODA: its own batch, its loss and its slow copy."""

import copy

import torch
from small_agents import fill, grads, make, part_of


def test_soda_draws_a_batch_of_its_own_every_second_update():
    agent, config = make("soda")
    replay = fill(agent, config)
    drawn = [{name: len(read.action) for name, read in agent.update(replay, 0).drawn.items()} for _ in range(4)]
    assert drawn == [{"batch": 8, "sequence": 16}, {"batch": 8}] * 2


def test_soda_pulls_the_prediction_of_the_augmented_view_to_the_slow_copys_of_the_clean_one():
    agent, config = make("soda")
    soda, part = agent.objective, part_of(agent, config)
    strong = soda.strong.view(part.obs, soda.strong.draw(6, agent.generator))
    unit = lambda x: x / x.norm(dim=1, keepdim=True)  # noqa: E731
    expected = (unit(soda.predictor(soda.projector(strong))) - unit(soda.target(part.obs))).square().mean()
    found = soda.distance(strong, part.obs)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(g is None for g in grads(soda.target))
    assert all(g is not None for m in (soda.projector, soda.predictor) for g in grads(m))


def test_soda_moves_the_convolutions_and_its_slow_copy_and_leaves_the_critics_loss_alone():
    agent, config = make("soda")
    replay = fill(agent, config)
    old = {k: v.clone() for k, v in agent.objective.target.state_dict().items()}
    convs = agent.critic.encoder.trunk.convs[0].weight.detach().clone()
    q = copy.deepcopy(agent.critic.q1.state_dict())
    agent.update_objective(replay.sample_sequences(config.soda.batch_size, 1))
    agent.objective.move_targets()
    assert not torch.equal(convs, agent.critic.encoder.trunk.convs[0].weight)
    assert all(torch.equal(v, q[k]) for k, v in agent.critic.q1.state_dict().items())
    for (k, new), online in zip(agent.objective.target.named_parameters(), agent.objective.projector.parameters(), strict=True):
        torch.testing.assert_close(new, old[k] + 0.005 * (online - old[k]))
    plain, _ = make("rad")
    part = part_of(agent, config)
    expected, _ = plain.critic_loss.loss(agent.critic, part, None)
    assert torch.equal(agent.critic_loss.loss(agent.critic, part, None)[0], expected)
