"""SAC, DrQ and RAD: which views of an observation the agent learns from."""

import torch
from small_agents import fill, make


def views_of(agent, config):
    replay, out = fill(agent, config), []
    batch = replay.sample(8)
    loss, value = agent.critic_loss.loss, agent.target_value
    agent.critic_loss.loss = lambda c, part, choices: out.append(part.obs) or loss(c, part, choices)
    agent.target_value = lambda obs, *rest: out.append(obs) or value(obs, *rest)
    agent.update_critic(batch, agent.augment.draw(8, 9, agent.generator))
    return batch, out[1], out[0]  # batch, observations, next observations


def test_sac_sees_frames_as_they_are():
    agent, config = make("sac")
    batch, obs, next_obs = views_of(agent, config)
    assert torch.equal(obs, batch.obs.whole()) and torch.equal(next_obs, batch.next_obs.whole())


def test_drq_shifts_both_each_by_its_own_draw():
    agent, config = make("drq", "drq.views=1", "drq.target_views=1")
    batch, obs, next_obs = views_of(agent, config)

    def offset(view, whole):  # the shift that explains the middle of the picture, for each observation
        pad, n = config.augment.pad, view.shape[-1]
        inner = slice(pad, n - pad)
        found = []
        for v, w in zip(view, whole, strict=True):
            fits = [
                (y, x) for y in range(-pad, pad + 1) for x in range(-pad, pad + 1)
                if torch.equal(v[:, inner, inner], w[:, pad + y : n - pad + y, pad + x : n - pad + x])
            ]  # fmt: skip
            assert len(fits) == 1  # all nine channels move together
            found.append(fits[0])
        return found

    first, second = offset(obs, batch.obs.whole()), offset(next_obs, batch.next_obs.whole())
    assert first != second and len(set(first)) > 1
    shifted_down = next(i for i, (y, _) in enumerate(first) if y < 0)
    assert torch.equal(obs[shifted_down][:, 0, :], obs[shifted_down][:, 1, :]) or first[shifted_down][0] == -1  # the edge is repeated


def test_rad_crops_both_and_acts_on_the_middle():
    agent, config = make("rad")
    assert (config.image.size, config.image.crop) == (40, 36)
    batch, obs, next_obs = views_of(agent, config)
    corners = []
    for view, whole in ((obs, batch.obs.whole()), (next_obs, batch.next_obs.whole())):
        assert view.shape[-1] == 36
        for v, w in zip(view, whole, strict=True):
            fits = [(y, x) for y in range(5) for x in range(5) if torch.equal(v, w[:, y : y + 36, x : x + 36])]
            assert len(fits) == 1 and max(fits[0]) < 4  # never the last offset
            corners.append(fits[0])
    assert corners[:8] != corners[8:]
