"""The Masker, MaDi, and MLR behind a Masker."""

import copy

import numpy as np
import pytest
import torch
from small_agents import CPU, FP32, fill, grads, make, part_of, state

from DMControl import evaluate as evaluation
from DMControl.agents.critic_loss import Transitions
from DMControl.core.method.frames import Frames
from DMControl.core.method.masker import Masker
from DMControl.replay import Replay
from DMControl.settings import read_config
from DMControl.train import make_trainer
from scripts.media.masks import look


def test_masks_begin_near_a_half():
    frames = torch.randint(0, 256, (2, 3, 84, 84), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    means = []
    for seed in range(10):
        torch.manual_seed(seed)
        with torch.no_grad():
            mask = Masker(3, 32, "soft", 0.5, FP32).masks(frames)
        assert mask.shape == (2, 1, 84, 84) and 0 < mask.std() < 0.06
        assert 0.3 < mask.min() and mask.max() < 0.7
        means.append(float(mask.mean()))
    assert abs(np.mean(means) - 0.5) < 0.02 and np.abs(np.array(means) - 0.5).max() < 0.1


def test_each_frame_is_masked_on_its_own_in_one_pass():
    masker = Masker(3, 8, "soft", 0.5, FP32)
    for p in masker.parameters():
        torch.nn.init.normal_(p, std=0.3)
    image = torch.randint(0, 256, (4, 9, 12, 12), dtype=torch.uint8)
    calls = []
    masker.convs[0].register_forward_hook(lambda m, i, o: calls.append(len(i[0])))
    with torch.no_grad():
        seen = masker(image)
        assert calls == [12]
        for s in range(3):
            frame = image[:, 3 * s : 3 * s + 3]
            torch.testing.assert_close(seen[:, 3 * s : 3 * s + 3], frame * masker.masks(frame))
        changed = image.clone()
        changed[:, 3:6] = 0
        assert torch.equal(masker(changed)[:, :3], seen[:, :3])


def test_one_masker_pass_and_one_encoder_pass_for_both_halves():
    agent, config = make("madi", "augment=conv")
    part, calls = part_of(agent, config), []
    agent.pixels.convs[0].register_forward_hook(lambda m, i, o: calls.append(("mask", len(i[0]))))
    agent.critic.encoder.trunk.register_forward_hook(lambda m, i, o: calls.append(("encode", len(i[0]))))
    agent.critic_loss.loss(agent.critic, part, agent.critic_loss.strong.draw(6, agent.generator))
    assert calls == [("mask", 2 * 6 * 3), ("encode", 2 * 6)]


def test_the_masker_learns_from_the_critics_loss_alone():
    """The critic's loss reaches it; target, actor and temperature do not, and scaling them changes nothing."""
    agent, config = make("madi")
    masker, part = agent.pixels, part_of(agent, config)
    losses, _ = agent.critic_loss.loss(agent.critic, part, agent.critic_loss.strong.draw(6, agent.generator))
    losses.sum().backward()
    assert all(g is not None and g.abs().sum() > 0 for g in grads(masker))
    for p in masker.parameters():
        p.grad = None
    actor_loss, alpha_loss, _ = agent.actor_losses(part.obs, torch.randn(6, 2))
    (actor_loss + alpha_loss).backward()
    target = agent.target_value(part.obs, torch.zeros(6, 1), torch.ones(6, 1), torch.randn(6, 2))
    assert not target.requires_grad and all(g is None for g in grads(masker))

    def step_with(scale):
        torch.manual_seed(0)
        one, c = make("madi")
        inner = one.actor_losses
        one.actor_losses = lambda *a: (scale * inner(*a)[0], scale * inner(*a)[1], inner(*a)[2])
        one.update(fill(one, c), 0)
        return torch.cat([p.detach().flatten() for p in one.pixels.parameters()])

    assert torch.equal(step_with(1.0), step_with(100.0))


def test_the_masker_has_no_target_copy_and_moves_with_every_critic_update():
    agent, config = make("madi")
    replay, masker = fill(agent, config), agent.pixels
    names = {id(p) for p in masker.parameters()}
    assert not names & {id(p) for m in (agent.target, agent.critic, agent.actor) for p in m.parameters()}
    assert len(agent.networks()["pixels"]) == 6
    for _ in range(3):
        before = [p.detach().clone() for p in masker.parameters()]
        agent.update(replay, 0)
        assert all(not torch.equal(a, b) for a, b in zip(before, masker.parameters(), strict=True))


def test_the_mask_is_in_front_of_everything():
    """With a mask of zero, the agent is blind: acting, target, actor and critic see the same whatever is there."""
    agent, config = make("madi", "augment=none")
    masker = agent.pixels
    with torch.no_grad():
        masker.convs[-1].bias.fill_(-1e4)
    a, b = part_of(agent, config), part_of(agent, config)
    b = Transitions(255 - b.obs, b.action, b.target, b.rows)
    noise = torch.randn(6, 2)

    def seen(part):
        store = part.obs[0].reshape(3, 3, *part.obs.shape[2:])
        with torch.no_grad():
            acted, _ = agent.act(Frames(store, torch.arange(3)[None]), agent.begin(1), explore=False)
            return [
                torch.from_numpy(acted),
                agent.target_value(part.obs, part.target, torch.ones(6, 1), noise),
                agent.actor_losses(part.obs, noise)[0],
                agent.critic_loss.loss(agent.critic, part, None)[0],
            ]

    assert all(torch.equal(x, y) for x, y in zip(seen(a), seen(b), strict=True))
    with torch.no_grad():
        masker.convs[-1].bias.fill_(0.0)
    assert not any(torch.equal(x, y) for x, y in zip(seen(a), seen(b), strict=True))


def test_kinds_of_masks():
    image = torch.randint(0, 256, (2, 9, 12, 12), dtype=torch.uint8)
    masks = {kind: Masker(3, 8, kind, 0.5, FP32) for kind in ("soft", "hard", "mixed")}
    for m in masks.values():
        m.load_state_dict(masks["soft"].state_dict())
    binary = lambda m: set(m.unique().tolist()) <= {0.0, 1.0}  # noqa: E731
    frames = image[:, :3]
    assert not binary(masks["soft"].masks(frames, True)) and binary(masks["hard"].masks(frames))
    assert not binary(masks["mixed"].masks(frames)) and binary(masks["mixed"].masks(frames, elsewhere=True))
    assert torch.equal(masks["hard"].masks(frames).bool(), masks["soft"].masks(frames) > 0.5)
    agent, config = make("madi", "masker.type=hard")
    before = copy.deepcopy(agent.pixels.state_dict())
    agent.update(fill(agent, config), 0)
    assert all(torch.equal(v, before[k]) for k, v in agent.pixels.state_dict().items())  # no gradient through a threshold


def test_mixed_masks_are_hard_in_other_worlds_only(tmp_path, monkeypatch):
    """Soft where the agent was trained, also when it is judged there: by a run, afterwards, and in pictures of its masks."""
    typed = ["preset=debug", "method=madi", "masker.type=mixed", f"runs={tmp_path}", "eval.video=false", "action_repeat=100"]
    config = read_config([*typed, "world=color_hard", "eval.worlds=[clean]", "eval.episodes=1", "env_steps=10000"])
    trainer, hard, masks = make_trainer(config, "test"), [], Masker.masks

    def watched(*arguments):
        mask = masks(*arguments)
        hard.append(set(mask.unique().tolist()) <= {0.0, 1.0})
        return mask

    monkeypatch.setattr(Masker, "masks", watched)
    trainer.evaluate()  # 10 steps in each world; then a picture of each
    assert hard == [False] * 11 + [True] * 11
    trainer.save()
    trainer.folder.lock.close()
    hard.clear()
    evaluation.main([f"run={trainer.folder.path}", "episodes=1", "worlds=color_hard,clean", "threads=1"])
    for world in trainer.judges:
        look(trainer.agent, config, world, 5, CPU)
    assert hard == [False] * 10 + [True] * 10 + [False] * 10 + [True] * 10


def test_depth_and_width():
    agent, _ = make("madi", "masker.depth=5", "masker.width=4")
    assert [tuple(c.weight.shape[:2]) for c in agent.pixels.convs] == [(4, 3), (4, 4), (4, 4), (4, 4), (1, 4)]


@pytest.mark.slow
def test_the_mask_finds_the_corner_that_the_reward_depends_on():
    """Noise everywhere but in one corner, whose colour is the reward: the mask ends brighter there."""
    side, corner = 24, 10
    arguments = [f"image.crop={side}", "encoder.strides=[2,2]", "encoder.filters=8", "encoder.dim=16", "encoder.init=kaiming"]
    agent, _ = make("madi", "augment.order=[]", "sac.batch_size=32", *arguments, action_dim=1)
    rng, replay = np.random.default_rng(0), Replay(3000, 1, 3, side, 1, CPU, agent.generator)

    def frame(value):
        out = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        out[:corner, :corner] = value, value // 2, 0
        return out

    for value in rng.integers(0, 256, 500):
        replay.start(frame(value))
        replay.add(rng.uniform(-1, 1, 1).astype(np.float32), value / 64 - 2, True, True, frame(value))
    seen = torch.from_numpy(np.stack([frame(v) for v in range(0, 256, 8)]).transpose(0, 3, 1, 2).copy())

    def brightness():
        with torch.no_grad():
            mask = agent.pixels.masks(seen)
        outside = torch.ones(side, side, dtype=torch.bool)
        outside[: corner + 1, : corner + 1] = False
        return float(mask[:, :, 1 : corner - 2, 1 : corner - 2].mean()), float(mask[:, :, outside].mean())

    inside, outside = brightness()
    assert abs(inside - outside) < 0.02
    for _ in range(400):
        agent.update(replay, 0)
    inside, outside = brightness()
    assert inside > outside + 0.1, (inside, outside)


def test_mlr_madi_is_mlr_with_its_key_off():
    one, config = make("mlr_madi", "masker.enabled=false")
    two, _ = make("mlr")
    for agent in (one, two):
        agent.update(fill(agent, config), 0)
    assert torch.equal(state(one), state(two))


def test_mlrs_encoders_stand_behind_the_masker_and_do_not_move_it():
    agent, config = make("mlr_madi", "mlr.warmup=0")
    replay, masker, o = fill(agent, config), agent.pixels, agent.objective
    calls = []
    masker.register_forward_hook(lambda m, i, out: calls.append(len(out)))
    before, encoder = copy.deepcopy(masker.state_dict()), copy.deepcopy(agent.critic.encoder.state_dict())
    agent.update_objective(replay.sample_sequences(o.batch_size, o.window))
    assert sum(calls) == 2 * config.mlr.batch_size * config.mlr.window  # the masked branch and the targets
    assert all(torch.equal(v, before[k]) for k, v in masker.state_dict().items()) and all(g is None for g in grads(masker))
    assert any(not torch.equal(v, encoder[k]) for k, v in agent.critic.encoder.state_dict().items())
    assert not {id(p) for p in masker.parameters()} & {id(p) for p in o.trained()}
    assert {id(p) for p in agent.critic.encoder.parameters()} <= {id(p) for p in o.trained()}
    agent.update(replay, 0)
    assert any(not torch.equal(v, before[k]) for k, v in masker.state_dict().items())  # the critic's loss does
