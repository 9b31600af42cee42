"""All methods: updates, saves, sizes and settings, and mistakes in them."""

import copy
from types import SimpleNamespace

import pytest
import torch
from small_agents import FP32, fill, make, state

from DMControl.core.errors import UserError
from DMControl.methods import METHODS, make_agent
from DMControl.settings import CONFIGS, read_config
from DMControl.train import Trainer

FAMILY = ("sac", "drq", "rad", "svea", "soda", "sgqn", "madi", "mlr_madi", "curl", "sac_ae", "spr", "playvirtual")


def test_every_method_has_a_file_and_an_entry():
    assert {p.stem for p in (CONFIGS / "method").glob("*.yaml")} == set(METHODS)


@pytest.mark.parametrize("method", FAMILY)
def test_methods_update_save_and_load(method):
    """Same seed, same updates; a loaded agent goes on as the saved one."""
    (one, config), (two, _) = make(method), make(method)
    replays = [fill(a, config) for a in (one, two)]
    before = state(one)
    for agent, replay in zip((one, two), replays, strict=True):
        for _ in range(2):
            metrics = agent.update(replay, 0).metrics
    assert torch.equal(state(one), state(two)) and not torch.equal(state(one), before)
    assert all(torch.isfinite(v).all() for v in metrics.values())
    other, _ = make(method, "seed=5")
    blocks = ("strong_augmentation", "svea", "soda", "sgqn", "masker", "drq", "curl", "sac_ae", "spr", "playvirtual", "quirks")
    assert [k for k in config.unread() if k.split(".")[0] in blocks] == []  # no dead switches
    saved = copy.deepcopy((one.networks(), one.state_dict()))
    other.load_networks(saved[0])
    other.load_state_dict(saved[1])
    assert torch.equal(state(other), state(one))
    again = fill(other, config)
    other.generator.set_state(one.generator.get_state())
    one.update(replays[0], 0)
    other.update(again, 0)
    assert torch.equal(state(other), state(one))


@pytest.mark.parametrize("method", ["svea", "sgqn", "madi", "drq", "curl", "sac_ae"])
def test_chunks_change_rounding_only(method):
    agents = [make(method, f"chunk={c}", "sac.lr=1e-4") for c in (3, 1000)]
    for agent, config in agents:
        replay = fill(agent, config)
        for _ in range(2):
            agent.update(replay, 0)
    torch.testing.assert_close(state(agents[0][0]), state(agents[1][0]), rtol=1e-2, atol=2e-3)


def test_sizes_of_the_published_agent():
    agent, _ = make_agent(read_config(["method=madi", "preset=madi", "task=walker_walk", "strong_augmentation.images=2"]), 6, FP32), None
    count = lambda *ms: sum(p.numel() for m in ms for p in m.parameters())  # noqa: E731
    masker, trunk = agent.pixels, agent.critic.encoder.trunk
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
    config = read_config(["method=sac", "preset=madi"])
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.agent = config, SimpleNamespace(updates=0)
    due = []
    for trainer.step in (1000, 1001, 1002):
        due.append(trainer.updates_due())
        trainer.agent.updates += due[-1]
    assert due == [0, 1000, 1]


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
        (["method=curl", "drq.views=2"], "no effect with method=curl"),
        (["method=drq", "sac_ae.decoder_lr=0.1"], "no effect with method=drq"),
        (["method=baseline", "quirks.two_encoder_steps=false"], "no effect with method=baseline"),
        (["method=drq", "drq.views=0"], "drq.views=0 must be between 1"),
        (["method=drq", "drq.target_views=-1"], "drq.target_views=-1 must be between 1"),
        (["method=drq", "drq.views=1.5"], "must be a whole number"),
        (["method=curl", "augment.order=[]"], "which must differ"),
        (["method=sac_ae", "augment.order=[shift]"], "augments nothing"),
        (["method=sac_ae", "sac_ae.weight=-1"], "at least 0"),
        (["sac.alpha_betas=[0.5]"], "two numbers"),
        (["sac.alpha_betas=[0.5,1]"], "between 0 and"),
        (["encoder.init=ortogonal"], "did you mean orthogonal"),
    ],
)
def test_mistakes_are_named(arguments, says):
    with pytest.raises(UserError, match=says):
        make_agent(read_config(["preset=debug", *arguments]), 2, FP32)
