"""CURL: anchors, positives, logits, and what moves when."""

import math

import pytest
import torch
from small_agents import FP32, fill, grads, make, state

from DMControl.core.errors import UserError
from DMControl.core.method.frames import Frames
from DMControl.core.method.optim import Adam
from DMControl.methods import make_agent
from DMControl.settings import read_config


def seen(encoder):
    """Collects the images that go into this encoder's convolutions, pass by pass."""
    images = []
    encoder.trunk.register_forward_pre_hook(lambda module, inputs: images.append(inputs[0].clone()))
    return images


def drawn_part(agent, replay):
    """The only part of an update, and the batch it is from."""
    batch = replay.sample(agent.config.batch_size)
    view = agent.augment.draw(len(batch.action), batch.obs.channels, agent.generator)
    (part,) = agent.objective.parts(batch.as_sequence(), agent.generator, view)
    return part


def test_the_anchor_is_the_critics_crop_and_the_positive_another_one_of_the_same_frame():
    agent, config = make("curl")
    online, target = seen(agent.critic.encoder), seen(agent.target.encoder)
    update = agent.update(fill(agent, config), 0)
    of_next, critics, actors, anchor = online  # the target's policy, the critic, the actor, the anchor
    _, positive = target  # the next observation, the positive
    assert torch.equal(anchor, critics) and torch.equal(actors, critics)
    whole, n = update.drawn["batch"].obs.whole(), config.image.crop
    spans = range(config.image.size - n)
    for frame, crop in zip(whole, positive, strict=True):
        places = [(y, x) for y in spans for x in spans if torch.equal(frame[:, y : y + n, x : x + n], crop)]
        assert len(places) == 1, "a positive is a crop of its anchor's own observation"
    assert any(not torch.equal(a, p) for a, p in zip(anchor, positive, strict=True)) and not torch.equal(of_next, positive)


def test_keys_come_from_the_target_encoder_without_gradient():
    agent, config = make("curl")
    part = drawn_part(agent, fill(agent, config))
    loss, _ = agent.objective.loss(part)
    loss.sum().backward()
    assert all(g is None for m in (agent.target, agent.actor, agent.critic.q1, agent.critic.q2) for g in grads(m))
    assert all(g is not None and g.abs().sum() > 0 for g in grads(agent.critic.encoder))
    with torch.no_grad():
        agent.target.encoder.head.ln.weight.mul_(3)
    changed, _ = agent.objective.loss(part)
    assert not torch.allclose(loss, changed)
    with torch.no_grad():
        agent.target.encoder.load_state_dict(agent.critic.encoder.state_dict())
        queries, keys = (agent.objective.describe(encoder, *part[:2]) for encoder in (agent.critic.encoder, agent.target.encoder))
    assert torch.equal(queries, keys)


def test_identical_observations_give_the_logarithm_of_the_batch():
    agent, config = make("curl")
    replay = fill(agent, config)
    replay.store.frames.fill_(100)
    loss, metrics = agent.objective.loss(drawn_part(agent, replay))
    torch.testing.assert_close(loss, torch.full((config.sac.batch_size,), math.log(config.sac.batch_size)))
    assert metrics["curl/accuracy"] <= 1 / config.sac.batch_size


def test_logits_are_anchor_w_positive():
    """W is not symmetric, so that neither the transposed W nor the transposed logits pass."""
    agent, config = make("curl")
    obs, anchor, positive = drawn_part(agent, fill(agent, config))
    queries = agent.objective.describe(agent.critic.encoder, obs, anchor)
    keys = agent.objective.describe(agent.target.encoder, obs, positive)
    weight = agent.objective.similarity.detach()
    assert weight.min() >= 0 and weight.max() < 1 and weight.mean() == pytest.approx(0.5, abs=0.05)
    by_hand = torch.stack([torch.stack([q @ weight @ k for k in keys]) for q in queries.detach()])
    torch.testing.assert_close(agent.objective.logits(obs, anchor, positive), by_hand)
    loss, metrics = agent.objective.loss((obs, anchor, positive))
    torch.testing.assert_close(loss, by_hand.logsumexp(1) - by_hand.diagonal())
    assert metrics["curl/accuracy"] == (by_hand.argmax(1) == torch.arange(len(by_hand))).float().mean()


@pytest.mark.parametrize("steps", [2, 1])
def test_the_encoder_takes_two_steps_of_adam_with_one_gradient_and_w_one(steps):
    agent, config = make("curl", f"quirks.two_encoder_steps={steps == 2}")
    objective, replay = agent.objective, fill(agent, config)
    before = [p.detach().clone() for p in objective.trained()]
    agent.update_objective(*agent.draw_sequences(replay, batch := replay.sample(8), agent.augment.draw(8, 9, agent.generator), {}))
    assert len(batch.action) == 8
    once = [p.clone().requires_grad_() for p in before]
    for p, trained in zip(once, objective.trained(), strict=True):
        p.grad = trained.grad
    Adam(once, config.curl.lr).step()
    for name, old, one in zip((n for n, p in objective.named_parameters() if p.requires_grad), before, once, strict=True):
        moved = dict(objective.named_parameters())[name] - old
        torch.testing.assert_close(moved, (1 if name == "similarity" else steps) * (one - old), rtol=1e-4, atol=1e-8)


def test_the_keys_encoder_has_already_moved_in_this_update():
    agent, config = make("curl")
    replay, inner, snapshots = fill(agent, config), agent.objective.loss, []

    def loss(part):
        snapshots.append([p.detach().clone() for m in (agent.target.encoder, agent.critic.encoder) for p in m.parameters()])
        return inner(part)

    before = [p.clone() for p in agent.target.encoder.parameters()]
    agent.objective.loss = loss
    agent.update(replay, 0)
    half = len(before)
    target, online = snapshots[0][:half], snapshots[0][half:]
    assert all(torch.equal(a, b) for a, b in zip(target, agent.target.encoder.parameters(), strict=True))
    for old, now, critic in zip(before, target, online, strict=True):  # towards the encoder that the critic's step left
        torch.testing.assert_close(now, old + config.sac.encoder_tau * (critic - old))
    assert any(not torch.equal(a, b) for a, b in zip(online, agent.critic.encoder.parameters(), strict=True))


def test_the_description_is_taken_before_a_tanh():
    agent, config = make("curl", "encoder.tanh=true")
    obs, anchor, _ = drawn_part(agent, fill(agent, config))
    described = agent.objective.describe(agent.critic.encoder, obs, anchor)
    assert described.abs().max() > 1
    torch.testing.assert_close(described.tanh(), agent.critic.encoder(agent.augment.view(obs, anchor)))


def test_no_crop_lies_at_the_far_edge():
    agent, _ = make("curl", "image.size=100", "image.crop=84")
    (_, _, positive), *_ = agent.objective.parts(Sequences(20_000), agent.generator, None)
    for view in (positive, agent.augment.draw(20_000, 9, agent.generator)):
        stage = view.stages[0]
        assert [(offsets.min(), offsets.max()) for offsets in (stage.rows[:, 0], stage.columns[:, 0])] == [(0, 15)] * 2


class Sequences:
    """n observations, for what looks at their number alone."""

    def __init__(self, n):
        self.obs = Frames(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(n, 3, dtype=torch.int64))


def test_it_steps_in_every_update():
    agent, config = make("curl")
    replay = fill(agent, config)
    metrics = [agent.update(replay, 0).metrics for _ in range(4)]
    assert ["loss/actor" in m for m in metrics] == [True, False, True, False] and all("loss/curl" in m for m in metrics)
    assert agent.objective_optimizers[0].updates == 4


@pytest.mark.parametrize(("settings", "size"), [((), 1_990_518), (("encoder.filters=64",), 4_036_182)])
def test_parameters_of_the_published_encoder(settings, size):
    agent = make_agent(read_config(["method=curl", "preset=paper", "sac.hidden=8", *settings]), 1, FP32)
    assert sum(p.numel() for p in agent.critic.encoder.parameters()) == size


def test_it_learns_to_tell_its_own_positives():
    agent, config = make("curl", "encoder.filters=16")
    replay = fill(agent, config)
    colours = torch.randint(0, 256, (len(replay.store.frames), 3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    replay.store.frames.copy_(colours.repeat_interleave(8, 2).repeat_interleave(8, 3))  # squares, so that crops are alike
    accuracy = [float(agent.update(replay, 0).metrics["curl/accuracy"]) for _ in range(200)]
    assert sum(accuracy[-10:]) / 10 > 0.7 > 0.4 > sum(accuracy[:3]) / 3


@pytest.mark.parametrize(("method", "settings"), [("curl", ("curl.weight=0",)), ("sac_ae", ("sac_ae.weight=0",))])
def test_without_its_weight_it_is_the_baseline(method, settings):
    """To the bit."""
    agents = [make(method, *settings), make("baseline", f"augment.order={'[crop]' if method == 'curl' else '[]'}")]
    for agent, config in agents:
        replay = fill(agent, config)
        for _ in range(3):
            agent.update(replay, 0)
    (ours, _), (base, _) = agents
    assert ours.objective is None and base.updates == 3
    assert torch.equal(state(ours), state(base)) and torch.equal(ours.log_alpha, base.log_alpha)


@pytest.mark.parametrize("words", [["augment.order=[intensity]"], ["image.size=36"], ["augment.order=[shift]", "augment.pad=0"]])
def test_views_that_could_not_differ_are_refused(words):
    with pytest.raises(UserError, match="which must differ"):
        make("curl", *words)
