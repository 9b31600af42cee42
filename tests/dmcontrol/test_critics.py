"""MaDi, SVEA, SODA, SGQN, RAD, DrQ, SAC, and MLR behind a Masker: what makes each of them that method."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from DMControl.agents.critic_loss import Part, squared
from DMControl.core.errors import UserError
from DMControl.core.machine import Precision
from DMControl.core.method.frames import Frames
from DMControl.methods import METHODS, make_agent, sgqn
from DMControl.methods.madi import Masker
from DMControl.methods.strong_augmentation import Strong
from DMControl.replay import Replay
from DMControl.settings import CONFIGS, read_config

CPU = torch.device("cpu")
FP32 = Precision(CPU, torch.float32)
FAMILY = ("sac", "drq", "rad", "svea", "soda", "sgqn", "madi", "mlr_madi")


def make(method, *arguments, action_dim=2):
    config = read_config(["preset=debug", f"method={method}", "task=walker_walk", *arguments])
    return make_agent(config, action_dim, FP32), config


def fill(agent, config, steps=60, seed=0):
    size, rng = config.image.size, np.random.default_rng(seed)
    replay = Replay(500, 20, 3, size, 2, CPU, agent.generator)
    for t in range(steps):
        if t % 20 == 0:
            replay.start(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        frame = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        replay.add(rng.uniform(-1, 1, 2).astype(np.float32), float(rng.random()), False, t % 20 == 19, frame)
    return replay


def part_of(agent, config, n=6):
    g = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (n, 9, config.image.crop, config.image.crop), generator=g, dtype=torch.uint8)
    return Part(image, torch.rand(n, 2, generator=g) * 2 - 1, torch.randn(n, 1, generator=g), slice(0, n))


def grads(module):
    return [p.grad for p in module.parameters()]


def state(agent):
    modules = (agent.critic, agent.actor, agent.target, agent.critic_loss)
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])


def test_every_method_has_a_file_and_an_entry():
    assert {p.stem for p in (CONFIGS / "method").glob("*.yaml")} == METHODS


@pytest.mark.parametrize("method", FAMILY)
def test_methods_update_save_and_load(method):
    """Same seed, same updates; a loaded agent goes on as the saved one."""
    (one, config), (two, _) = make(method), make(method)
    replays = [fill(a, config) for a in (one, two)]
    before = state(one)
    for agent, replay in zip((one, two), replays, strict=True):
        for _ in range(2):
            metrics = agent.update(replay)
    assert torch.equal(state(one), state(two)) and not torch.equal(state(one), before)
    assert all(torch.isfinite(v).all() for v in metrics.values())
    other, _ = make(method, "seed=5")
    blocks = ("strong", "svea", "soda", "sgqn", "masker")
    assert [k for k in config.unread() if k.split(".")[0] in blocks] == []  # no dead switches
    saved = copy.deepcopy((one.networks(), one.state_dict()))
    other.load_networks(saved[0])
    other.load_state_dict(saved[1])
    assert torch.equal(state(other), state(one))
    again = fill(other, config)
    other.generator.set_state(one.generator.get_state())
    one.update(replays[0])
    other.update(again)
    assert torch.equal(state(other), state(one))


@pytest.mark.parametrize("method", ["svea", "sgqn", "madi"])
def test_chunks_change_rounding_only(method):
    agents = [make(method, f"chunk={c}", "sac.lr=1e-4") for c in (3, 1000)]
    for agent, config in agents:
        replay = fill(agent, config)
        for _ in range(2):
            agent.update(replay)
    torch.testing.assert_close(state(agents[0][0]), state(agents[1][0]), rtol=1e-2, atol=2e-3)


# --- the encoder of DMControl-GB, and MaDi's sizes


def test_sizes_of_the_published_agent():
    agent, _ = make_agent(read_config(["method=madi", "preset=madi", "task=walker_walk", "strong.images=2"]), 6, FP32), None
    count = lambda *ms: sum(p.numel() for m in ms for p in m.parameters())  # noqa: E731
    masker, trunk = agent.critic_loss.front, agent.critic.encoder.trunk
    assert count(masker) == 10_433 and count(trunk) == 95_104
    assert (len(trunk.convs), trunk.channels, trunk.side) == (11, 32, 21)
    assert count(agent.actor, agent.critic) == 6_403_814
    assert count(masker) / (count(masker) + 6_403_814) == pytest.approx(0.0016, abs=5e-5)
    image = torch.randint(0, 256, (2, 9, 84, 84), dtype=torch.uint8)
    with torch.no_grad():
        features, described = trunk(image), agent.critic.encoder(image)
    assert (features < 0).any()  # no ReLU after the last convolution
    assert described.shape == (2, 100) and described.abs().max() < 1


def test_the_published_protocol():
    for task, repeat in (("walker_walk", 4), ("walker_stand", 4), ("cartpole_swingup", 8), ("cartpole_balance", 8), ("finger_spin", 2)):
        c = read_config([f"task={task}", "method=madi", "preset=madi"])
        assert (c.action_repeat, c.env_steps, c.sac.batch_size, c.image.size, c.sac.lr) == (repeat, 500_000 * repeat, 64, 84, 1e-3)
    assert read_config(["method=madi", "preset=madi", "action_repeat=3", "env_steps=9000"]).env_steps == 9000
    high = ("walker_stand", "walker_run", "finger_spin", "finger_turn_easy", "hopper_hop", "humanoid_run", "cheetah_run")
    for task, quantile in (*((task, 0.95) for task in high), ("ball_in_cup_catch", 0.98), ("pendulum_swingup", 0.98)):
        c = read_config([f"task={task}", "method=sgqn", "preset=madi"])
        assert (c.sgqn.quantile, c.sac.weight_decay) == (quantile, 1e-5)
    assert read_config(["method=rad", "preset=madi"]).image.size == 100 and read_config(["method=soda", "preset=madi"]).image.size == 100
    assert read_config(["method=svea"]).sac.weight_decay == 0


def test_catch_up_updates():
    from DMControl.train import Trainer

    config = read_config(["method=sac", "preset=madi"])
    trainer = Trainer.__new__(Trainer)
    trainer.config = config
    due = []
    for trainer.step in (1001, 1002):
        due.append(trainer.updates_due())
    assert due == [1000, 1]


# --- the Masker


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
    agent.critic_loss.front.convs[0].register_forward_hook(lambda m, i, o: calls.append(("mask", len(i[0]))))
    agent.critic.encoder.trunk.register_forward_hook(lambda m, i, o: calls.append(("encode", len(i[0]))))
    agent.critic_loss.loss(agent.critic, part, agent.critic_loss.strong.draw(6, agent.generator))
    assert calls == [("mask", 2 * 6 * 3), ("encode", 2 * 6)]


def test_the_masker_learns_from_the_critics_loss_alone():
    """The critic's loss reaches it; target, actor and temperature do not, and scaling them changes nothing."""
    agent, config = make("madi")
    front, part = agent.critic_loss.front, part_of(agent, config)
    losses, _ = agent.critic_loss.loss(agent.critic, part, agent.critic_loss.strong.draw(6, agent.generator))
    losses.sum().backward()
    assert all(g is not None and g.abs().sum() > 0 for g in grads(front))
    for p in front.parameters():
        p.grad = None
    actor_loss, alpha_loss, _ = agent.actor_losses(part.obs, torch.randn(6, 2))
    (actor_loss + alpha_loss).backward()
    target = agent.target_value(part.obs, torch.zeros(6, 1), torch.ones(6, 1), torch.randn(6, 2))
    assert not target.requires_grad and all(g is None for g in grads(front))

    def step_with(scale):
        torch.manual_seed(0)
        one, c = make("madi")
        inner = one.actor_losses
        one.actor_losses = lambda *a: (scale * inner(*a)[0], scale * inner(*a)[1], inner(*a)[2])
        one.update(fill(one, c))
        return torch.cat([p.detach().flatten() for p in one.critic_loss.front.parameters()])

    assert torch.equal(step_with(1.0), step_with(100.0))


def test_the_masker_has_no_target_copy_and_moves_with_every_critic_update():
    agent, config = make("madi")
    replay, front = fill(agent, config), agent.critic_loss.front
    names = {id(p) for p in front.parameters()}
    assert not names & {id(p) for m in (agent.target, agent.critic, agent.actor) for p in m.parameters()}
    assert sum(k.startswith("front.") for k in agent.critic_loss.state_dict()) == len(agent.critic_loss.state_dict()) == 6
    for _ in range(3):
        before = [p.detach().clone() for p in front.parameters()]
        agent.update(replay)
        assert all(not torch.equal(a, b) for a, b in zip(before, front.parameters(), strict=True))


def test_the_mask_is_in_front_of_everything():
    """With a mask of zero, the agent is blind: acting, target, actor and critic see the same whatever is there."""
    agent, config = make("madi", "augment=none")
    front = agent.critic_loss.front
    with torch.no_grad():
        front.convs[-1].bias.fill_(-1e4)
    a, b = part_of(agent, config), part_of(agent, config)
    b = Part(255 - b.obs, b.action, b.target, b.rows)
    noise = torch.randn(6, 2)

    def seen(part):
        store = part.obs[0].reshape(3, 3, *part.obs.shape[2:])
        with torch.no_grad():
            acted = agent.act(Frames(store, torch.arange(3)[None]), sample=False)
            return [
                torch.from_numpy(acted),
                agent.target_value(part.obs, part.target, torch.ones(6, 1), noise),
                agent.actor_losses(part.obs, noise)[0],
                agent.critic_loss.loss(agent.critic, part, None)[0],
            ]

    assert all(torch.equal(x, y) for x, y in zip(seen(a), seen(b), strict=True))
    with torch.no_grad():
        front.convs[-1].bias.fill_(0.0)
    assert not any(torch.equal(x, y) for x, y in zip(seen(a), seen(b), strict=True))


def test_kinds_of_masks():
    image = torch.randint(0, 256, (2, 9, 12, 12), dtype=torch.uint8)
    masks = {kind: Masker(3, 8, kind, 0.5, FP32) for kind in ("soft", "hard", "mixed")}
    for m in masks.values():
        m.load_state_dict(masks["soft"].state_dict())
    binary = lambda m: set(m.unique().tolist()) <= {0.0, 1.0}  # noqa: E731
    frames = image[:, :3]
    assert not binary(masks["soft"].masks(frames, True)) and binary(masks["hard"].masks(frames))
    assert not binary(masks["mixed"].masks(frames)) and binary(masks["mixed"].masks(frames, judging=True))
    assert torch.equal(masks["hard"].masks(frames).bool(), masks["soft"].masks(frames) > 0.5)
    agent, config = make("madi", "masker.type=hard")
    before = copy.deepcopy(agent.critic_loss.front.state_dict())
    agent.update(fill(agent, config))
    assert all(torch.equal(v, before[k]) for k, v in agent.critic_loss.front.state_dict().items())  # no gradient through a threshold


def test_depth_and_width():
    agent, _ = make("madi", "masker.depth=5", "masker.width=4")
    assert [tuple(c.weight.shape[:2]) for c in agent.critic_loss.front.convs] == [(4, 3), (4, 4), (4, 4), (4, 4), (1, 4)]


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
            mask = agent.critic_loss.front.masks(seen)
        outside = torch.ones(side, side, dtype=torch.bool)
        outside[: corner + 1, : corner + 1] = False
        return float(mask[:, :, 1 : corner - 2, 1 : corner - 2].mean()), float(mask[:, :, outside].mean())

    inside, outside = brightness()
    assert abs(inside - outside) < 0.02
    for _ in range(400):
        agent.update(replay)
    inside, outside = brightness()
    assert inside > outside + 0.1, (inside, outside)


# --- SVEA and its strong views


def test_svea_is_half_clean_and_half_augmented():
    agent, config = make("svea")
    part = part_of(agent, config)
    choices = agent.critic_loss.strong.draw(6, agent.generator)
    loss, metrics = agent.critic_loss.loss(agent.critic, part, choices)
    q = lambda image: agent.critic(image, part.action)  # noqa: E731
    clean, augmented = squared(*q(part.obs), part.target), squared(*q(agent.critic_loss.strong.view(part.obs, choices)), part.target)
    torch.testing.assert_close(loss, 0.5 * clean + 0.5 * augmented)
    assert not torch.allclose(clean, augmented, rtol=1e-4)
    torch.testing.assert_close(metrics["agent/q"], q(part.obs)[0].sum())
    uneven, _ = make("svea", "svea.alpha=0.2", "svea.beta=0.7")
    uneven.critic_loss.strong = agent.critic_loss.strong
    torch.testing.assert_close(uneven.critic_loss.loss(agent.critic, part, choices)[0], 0.2 * clean + 0.7 * augmented)


def test_svea_augments_neither_next_observations_nor_the_actors():
    agent, config = make("svea")
    strong, seen = agent.critic_loss.strong, []
    inner = strong.view
    strong.view = lambda obs, choices: seen.append(obs) or inner(obs, choices)
    watched = []
    value = agent.target_value
    agent.target_value = lambda next_obs, *rest: watched.append(next_obs) or value(next_obs, *rest)
    replay = fill(agent, config)
    batches = []
    sample = replay.sample
    replay.sample = lambda *a: batches.append(sample(*a)) or batches[-1]
    agent.update(replay)
    assert len(seen) == 1  # the critic's images alone
    assert torch.equal(watched[0], batches[0].next_obs.whole())  # not even shifted
    assert not torch.equal(seen[0], batches[0].obs.whole())  # shifted


def test_without_strong_views_svea_is_drq_without_the_second_shift():
    """augment=none with weights that sum to 1 is the plain loss, not the same batch twice."""
    one, config = make("svea", "augment=none", "augment.next_obs=true")
    two, _ = make("drq")
    for agent in (one, two):
        agent.update(fill(agent, config))
    assert torch.equal(state(one), state(two))


def test_overlay_is_half_of_an_image_the_same_for_all_frames():
    bank = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    strong, g = Strong("overlay", 0.5, bank), torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (64, 9, 20, 20), dtype=torch.uint8)
    choices = strong.draw(64, g)
    out = strong.view(obs, choices)
    image = 2 * out - obs  # (64, 9, 20, 20): three times the same image
    torch.testing.assert_close(image[:, :3], image[:, 3:6], atol=1e-3, rtol=0)
    torch.testing.assert_close(image[:, :3], strong.cut(choices, 20, 20), atol=1e-3, rtol=0)
    assert len({tuple(i.flatten().round().tolist()) for i in image[:, :3]}) == 64  # another piece for each observation
    assert (choices.extent[:, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.2)
    area = choices.extent.abs().prod(1)
    assert 0.07 < area.min() < 0.3 and 0.7 < area.max() <= 1
    many = strong.draw(20_000, g)
    sides = many.extent.abs()
    assert sides.max() <= 1 and (many.centre.abs() + sides).max() <= 1 + 1e-6, "within the image"
    ratio = sides[:, 0] / sides[:, 1]
    assert 3 / 4 - 1e-5 < ratio.min() and ratio.max() < 4 / 3 + 1e-5, "a side that does not fit is drawn anew, not cut"
    assert (sides == 1).all(1).float().mean() < 1e-3
    half = choices[10:20]
    assert torch.equal(strong.view(obs[10:20], half), out[10:20])
    assert torch.equal(Strong("overlay", 0.0, bank).view(obs, choices), obs.float())
    whole = strong.cut(type(choices)(torch.tensor([2]), torch.zeros(1, 2), torch.ones(1, 2)), 32, 32)
    torch.testing.assert_close(whole[0], bank[2].permute(2, 0, 1).float(), atol=1e-3, rtol=0)


def test_random_convolutions():
    strong, g = Strong("conv", 0.5), torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (3, 9, 10, 10), generator=g, dtype=torch.uint8)
    kernels = strong.draw(3, g)
    out = strong.view(obs, kernels)
    for n in range(3):
        for s in range(3):
            padded = F.pad(obs[n : n + 1, 3 * s : 3 * s + 3].float() / 255, (1, 1, 1, 1), mode="replicate")
            expected = torch.sigmoid(F.conv2d(padded, kernels[n])) * 255
            torch.testing.assert_close(out[n, 3 * s : 3 * s + 3], expected[0])


# --- SAC, DrQ, RAD: which views


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
    agent, config = make("drq")
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
    places = []
    for view, whole in ((obs, batch.obs.whole()), (next_obs, batch.next_obs.whole())):
        assert view.shape[-1] == 36
        for v, w in zip(view, whole, strict=True):
            fits = [(y, x) for y in range(5) for x in range(5) if torch.equal(v, w[:, y : y + 36, x : x + 36])]
            assert len(fits) == 1 and max(fits[0]) < 4  # never the last offset
            places.append(fits[0])
    assert places[:8] != places[8:]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["method=sac", "augment.order=[shift]"], "method=drq"),
        (["method=drq", "augment.next_obs=false"], "shifts observations and next"),
        (["method=rad", "augment.order=[shift]"], "method=rad crops"),
        (["method=madi", "augment=overly"], "did you mean overlay"),
        (["method=madi", "masker.type=sotf"], "did you mean soft"),
        (["method=madi", "masker.depth=0"], "at least 1|between 1"),
        (["method=mlr", "augment=conv"], "no effect with method=mlr"),
        (["method=madi", "masker.enabled=false"], "no effect with method=madi"),
        (["method=drq", "masker.width=8"], "no effect with method=drq"),
        (["method=madi", "svea.alfa=1"], "did you mean svea.alpha"),
    ],
)
def test_mistakes_are_named(arguments, says):
    with pytest.raises(UserError, match=says):
        make_agent(read_config(["preset=debug", *arguments]), 2, FP32)


# --- SODA


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


# --- SGQN


def test_guided_gradients_pass_only_what_is_positive():
    x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
    y = sgqn.GuidedReLU.apply(x)
    (g,) = torch.autograd.grad(y, x, torch.tensor([1.0, -1.0, 1.0]))
    assert y.tolist() == [0, 2, 3] and g.tolist() == [0, 0, 1]


def test_salient_pixels_are_those_at_or_above_the_quantile_of_their_frame():
    values = torch.rand(3, 2, 10, 10, generator=torch.Generator().manual_seed(0))
    for quantile in (0.0, 0.5, 0.9, 0.95, 0.98):
        kept = sgqn.salient(values, quantile)
        threshold = torch.quantile(values.flatten(2), quantile, dim=2)[..., None, None]
        assert torch.equal(kept[:, ::3].bool(), values >= threshold)
        assert kept.shape == (3, 6, 10, 10) and torch.equal(kept[:, 0], kept[:, 2])


def test_saliency_is_guided_backpropagation_of_the_networks_q1():
    """Against torch's own ReLUs, each with a hook that cuts what is negative; and not the plain gradient."""
    agent, config = make("sgqn", "encoder.init=kaiming")
    part, critic = part_of(agent, config, 2), agent.critic
    relus = []

    def relu():
        relus.append(torch.nn.ReLU())
        return relus[-1]

    convs = [layer for conv in critic.encoder.trunk.convs for layer in (conv, relu())]
    q1 = torch.nn.Sequential(*(relu() if isinstance(layer, torch.nn.ReLU) else layer for layer in critic.q1))

    def gradient():
        image = part.obs.float().requires_grad_()
        features = torch.nn.Sequential(*convs)(image / 255)
        value = q1(torch.cat([critic.encoder.head(features), part.action], 1))
        torch.testing.assert_close(value, critic(part.obs, part.action)[0], rtol=1e-4, atol=1e-5)  # the very network
        (out,) = torch.autograd.grad(value.sum(), image)
        return out.abs().view(2, 3, 3, 36, 36).amax(2)

    plain = gradient()
    for module in relus:
        module.register_full_backward_hook(lambda m, inner, outer: (inner[0].clamp_min(0),))
    found = sgqn.saliency(critic, part.obs, part.action)
    torch.testing.assert_close(found, gradient(), rtol=1e-4, atol=1e-9)
    assert not torch.allclose(found, plain, rtol=0.1) and not any(p.grad is not None for p in critic.parameters())


def test_sgqn_adds_the_consistency_with_the_masked_observation():
    agent, config = make("sgqn", "encoder.init=kaiming")  # delta-orthogonal strides leave most pixels without a gradient at first
    part = part_of(agent, config)
    fill_in = sgqn.Fill(torch.tensor(77.0))
    loss, _ = agent.critic_loss.loss(agent.critic, part, fill_in)
    kept = sgqn.salient(sgqn.saliency(agent.critic, part.obs, part.action), config.sgqn.quantile)
    masked = torch.where(kept.bool(), part.obs.float(), torch.tensor(77.0))
    one, two = agent.critic(part.obs, part.action), agent.critic(masked, part.action)
    torch.testing.assert_close(loss, squared(*one, part.target) + 0.5 * squared(one[0] - two[0], one[1] - two[1], torch.zeros(6, 1)))
    assert kept.mean() == pytest.approx(1 - config.sgqn.quantile, abs=0.01)


def test_sgqns_decoder_learns_every_second_update_with_the_encoder():
    agent, config = make("sgqn")
    replay, decoder = fill(agent, config), agent.critic_loss.decoder
    batch = replay.sample(8)
    moved = []
    for agent.updates in range(4):
        encoder, own, q = (copy.deepcopy(m.state_dict()) for m in (agent.critic.encoder, decoder, agent.critic.q1))
        metrics = agent.critic_loss.after_update(agent, batch, agent.augment.draw(8, 9, agent.generator), replay)
        changed = [
            any(not torch.equal(v, old[k]) for k, v in m.state_dict().items())
            for m, old in ((agent.critic.encoder, encoder), (decoder, own), (agent.critic.q1, q))
        ]
        moved.append(changed)
        assert bool(metrics) == changed[0]
    assert moved == [[True, True, False], [False] * 3, [True, True, False], [False] * 3]
    assert decoder(torch.zeros(2, config.encoder.dim), torch.zeros(2, 2)).shape == (2, 9, 36, 36)


def test_sgqn_decays_the_critics_weights_and_no_others():
    agent, _ = make("sgqn")
    decay = {n: o.inner.param_groups[0]["weight_decay"] for n, o in agent._optimizers().items()}
    assert decay == {"critic": 1e-5, "actor": 0, "alpha": 0, "sgqn": 0}


# --- MLR behind a Masker


def test_mlr_madi_is_mlr_with_its_key_off():
    one, config = make("mlr_madi", "masker.enabled=false")
    two, _ = make("mlr")
    for agent in (one, two):
        agent.update(fill(agent, config))
    assert torch.equal(state(one), state(two))


def test_mlrs_encoders_stand_behind_the_masker_and_do_not_move_it():
    agent, config = make("mlr_madi", "mlr.warmup=0")
    replay, front, o = fill(agent, config), agent.critic_loss.front, agent.objective
    calls = []
    front.register_forward_hook(lambda m, i, out: calls.append(len(out)))
    before, encoder = copy.deepcopy(front.state_dict()), copy.deepcopy(agent.critic.encoder.state_dict())
    agent.update_objective(replay)
    assert sum(calls) == 2 * config.mlr.batch_size * config.mlr.window  # the masked branch and the targets
    assert all(torch.equal(v, before[k]) for k, v in front.state_dict().items()) and all(g is None for g in grads(front))
    assert any(not torch.equal(v, encoder[k]) for k, v in agent.critic.encoder.state_dict().items())
    assert not {id(p) for p in front.parameters()} & {id(p) for p in o.trained()}
    assert {id(p) for p in agent.critic.encoder.parameters()} <= {id(p) for p in o.trained()}
    agent.update(replay)
    assert any(not torch.equal(v, before[k]) for k, v in front.state_dict().items())  # the critic's loss does
