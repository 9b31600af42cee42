"""SAC+AE: decoder, target, penalties, and the order of an update."""

from types import SimpleNamespace

import pytest
import torch
from small_agents import FP32, fill, grads, make

from DMControl.agents.planet import five_bits
from DMControl.methods import make_agent
from DMControl.settings import read_config
from DMControl.train import Trainer


def drawn_part(agent, replay):
    batch = replay.sample(agent.config.batch_size)
    view = agent.augment.draw(len(batch.action), batch.obs.channels, agent.generator)
    (part,) = agent.objective.parts(batch.as_sequence(), agent.generator, view)
    return batch, part


@pytest.mark.parametrize(("preset", "sides"), [("paper", [35, 37, 39, 41, 84]), ("small", [10, 12, 14, 29, 60]), ("debug", [6, 8, 17, 36])])
def test_the_decoder_is_the_encoder_in_reverse(preset, sides):
    agent = make_agent(read_config(["method=sac_ae", f"preset={preset}", "sac.hidden=8"]), 1, FP32)
    decoder, trunk, shapes = agent.objective.decoder, agent.critic.encoder.trunk, []
    for conv in decoder.convs:
        conv.register_forward_hook(lambda module, inputs, output: shapes.append(inputs[0].shape[2:]))
    image = decoder(torch.zeros(2, 50))
    assert [tuple(s) for s in shapes] == [(s, s) for s in sides[:-1]] and image.shape == (2, 9, sides[-1], sides[-1])
    if preset == "paper":
        assert sum(p.numel() for p in decoder.parameters()) == 50 * 39_200 + 39_200 + 3 * (32 * 32 * 9 + 32) + 32 * 9 * 9 + 9
        assert decoder.convs[1].weight[:, :, 0].abs().sum() == 0, "delta-orthogonal"
        middle = decoder.convs[1].weight[:, :, 1, 1]
        torch.testing.assert_close(middle @ middle.T, 2 * torch.eye(32), rtol=1e-4, atol=1e-4)
    assert trunk.side == sides[0]


def test_the_target_has_32_levels_and_fresh_noise_below_one_level():
    agent, config = make("sac_ae")
    replay = fill(agent, config)
    _, part = drawn_part(agent, replay)
    wanted = five_bits(part.obs, part.noise)
    assert wanted.min() >= -0.5 and wanted.max() < 0.5
    levels = (wanted + 0.5) * 32 - part.noise
    torch.testing.assert_close(levels, (part.obs // 8).float(), rtol=0, atol=1e-5)
    assert levels.round().unique().numel() == 32 and part.noise.min() < 0.01 and 0.99 < part.noise.max() < 1
    assert not torch.equal(part.noise[0], part.noise[1])
    assert part.noise.shape == part.obs.shape and not torch.equal(part.noise[:, 0], part.noise[:, 8])
    _, again = drawn_part(agent, replay)
    assert not torch.equal(part.noise, again.noise)


def test_the_encoder_sees_the_stored_frames_of_the_observation_alone():
    """Neither augmented nor quantised, and in the objective never the next observation."""
    agent, config = make("sac_ae")
    trunk, images = agent.critic.encoder.trunk, []
    trunk.register_forward_pre_hook(lambda module, inputs: images.append(inputs[0].clone()))
    batch = agent.update(fill(agent, config), 0).drawn["batch"]
    following, critic, actor, objective = images
    obs = batch.obs.whole()
    assert config.image.size == config.image.crop == obs.shape[-1]
    assert torch.equal(following, batch.next_obs.whole()) and not torch.equal(following, obs)
    assert all(torch.equal(image, obs) for image in (critic, actor, objective)) and (obs % 8 > 0).any()


def test_the_loss_by_hand():
    agent, config = make("sac_ae", "sac_ae.latent_weight=0.3", "sac_ae.weight=2")
    _, part = drawn_part(agent, fill(agent, config))
    loss, metrics = agent.objective.loss(part)
    description = agent.critic.encoder(part.obs)
    wanted, restored = five_bits(part.obs, part.noise), agent.objective.decoder(description)
    error = [(wanted[n] - restored[n]).square().mean() for n in range(len(loss))]
    penalty = torch.stack([0.5 * (d * d).sum() for d in description])
    torch.testing.assert_close(loss, 2 * (torch.stack(error) + 0.3 * penalty))
    torch.testing.assert_close(metrics["loss/latent"], penalty.mean())
    assert read_config(["method=sac_ae"]).sac_ae.latent_weight == 1e-6


def test_the_encoder_moves_under_both_losses_and_the_convolutions_not_under_the_actors():
    agent, config = make("sac_ae")
    replay, encoder = fill(agent, config), agent.critic.encoder
    batch = replay.sample(8)
    view = agent.augment.draw(8, 9, agent.generator)
    for step in (lambda: agent.update_critic(batch, view), lambda: agent.update_objective(batch.as_sequence(), view)):
        before = [p.detach().clone() for p in encoder.parameters()]
        step()
        assert all(not torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))
    before = [p.detach().clone() for p in agent.critic.parameters()]
    agent.update_actor(batch.obs, view)
    assert all(torch.equal(a, b) for a, b in zip(before, agent.critic.parameters(), strict=True))


def test_only_the_decoders_weights_decay():
    agent, config = make("sac_ae")
    encoder, decoder = agent.objective_optimizers
    settings = [(o.inner.param_groups[0]["weight_decay"], o.lr) for o in (encoder, decoder)]
    assert settings == [(0, config.sac_ae.encoder_lr), (1e-7, config.sac_ae.decoder_lr)] and config.sac_ae.decoder_lr == 1e-3
    assert {id(p) for p in encoder.parameters} == {id(p) for p in agent.critic.encoder.parameters()}
    assert {id(p) for p in decoder.parameters} == {id(p) for p in agent.objective.decoder.parameters()}


def test_the_published_description_is_squashed():
    agent = make_agent(read_config(["method=sac_ae", "preset=paper", "sac.hidden=8"]), 1, FP32)
    image = torch.randint(0, 256, (4, 9, 84, 84), dtype=torch.uint8)
    with torch.no_grad():
        described = agent.critic.encoder(image)
        agent.critic.encoder.head.ln.weight.mul_(50)
        assert described.abs().max() < 1 and agent.critic.encoder(image).abs().max() <= 1


def test_the_reconstruction_comes_last():
    """It moves neither target nor actor in its own update, and reads the encoder that the critic's step left."""
    agent, config = make("sac_ae")
    replay, inner, snapshots = fill(agent, config), agent.objective.loss, []

    def loss(part):
        snapshots.append([p.detach().clone() for m in (agent.target, agent.actor) for p in m.parameters()])
        return inner(part)

    before = [p.clone() for m in (agent.target, agent.actor) for p in m.parameters()]
    agent.objective.loss = loss
    agent.update(replay, 0)
    now = [p for m in (agent.target, agent.actor) for p in m.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(snapshots[0], now, strict=True))
    assert sum(not torch.equal(a, b) for a, b in zip(before, now, strict=True)) > len(now) - 4  # some biases of targets may stay 0


@pytest.mark.parametrize("whole", [True, False])
def test_a_thousand_updates_at_once_count_as_one(whole):
    """Actor and targets move in each of them; then every second update, the next one without."""
    published = read_config(["method=sac_ae", "preset=paper"])
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.agent, due = published, SimpleNamespace(updates=0), []
    for trainer.step in (1000, 1001, 1002):
        due.append(trainer.updates_due())
        trainer.agent.updates += due[-1]
    assert due == [0, 1000, 1] and published.quirks.whole_catch_up
    agent, config = make("sac_ae", "train.catch_up=7", f"quirks.whole_catch_up={whole}")
    replay, moved = fill(agent, config), []
    for _ in range(11):
        before = agent.target.q1[0].weight.clone()
        metrics = agent.update(replay, 0).metrics
        assert ("loss/actor" in metrics) == (not torch.equal(before, agent.target.q1[0].weight)) and "loss/reconstruction" in metrics
        moved.append("loss/actor" in metrics)
    assert moved == ([True] * 7 + [False, True, False, True] if whole else [n % 2 == 0 for n in range(11)])


def test_one_batch_is_soon_restored():
    sizes = "image.crop=37", "encoder.strides=[2,1]"  # no row without a kernel at this size
    agent, config = make("sac_ae", "encoder.filters=16", "sac.batch_size=4", *sizes)
    replay = fill(agent, config)
    y, x = torch.meshgrid(*[torch.arange(config.image.size)] * 2, indexing="ij")
    for n in range(len(replay.store.frames)):  # smooth pictures, each with its own slope
        replay.store.frames[n] = torch.stack([y * (n % 5) + x, 3 * x, y + 7 * (n % 20)]).to(torch.uint8)
    batch = replay.sample(4)
    view = agent.augment.draw(4, 9, agent.generator)
    losses = [float(agent.update_objective(batch.as_sequence(), view)["loss/reconstruction"]) for _ in range(600)]
    assert losses[0] > 0.05 and min(losses[-20:]) < 1e-3


def test_reconstructions_stand_beside_the_frames():
    agent, config = make("sac_ae")
    replay = fill(agent, config)
    numbers, pictures = agent.diagnose(replay, 5)
    assert list(pictures) == ["frames", "reconstructions"] and set(numbers) == set(agent.diagnostics)
    shapes = {(p.shape, p.dtype) for p in pictures.values()}
    assert shapes == {((16, 3, config.image.size, config.image.size), torch.uint8)}
    known = {bytes(f.numpy().tobytes()) for f in replay.store.frames}
    assert all(f.numpy().tobytes() in known for f in pictures["frames"].contiguous())
    with torch.no_grad():  # a decoder that says one colour: the middle of level 20
        for p in agent.objective.decoder.parameters():
            p.zero_()
        agent.objective.decoder.convs[-1].bias.fill_((20 * 8 + 4) / 256 - 0.5)
    numbers, pictures = agent.diagnose(replay, 5)
    assert (pictures["reconstructions"] == 164).all() and grads(agent.objective.decoder)[0] is None
    generator = torch.Generator().manual_seed(5)
    whole = replay.sample_sequences(16, 1, generator).obs.whole().float()
    assert numbers["sac_ae/pixel_error"] == pytest.approx(float((whole - 164).square().mean().sqrt()), rel=1e-5)
