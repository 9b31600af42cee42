"""DER, OTR and DrQ: the parts of Rainbow that they exchange, from their YAML files to what an update does."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from Atari.core.errors import UserError
from Atari.core.machine import Precision
from Atari.core.method.frames import Frames
from Atari.core.run.config import flatten
from Atari.core.run.trainer import updates_until
from Atari.env import Step
from Atari.methods import make_agent
from Atari.settings import read_config
from Atari.train import make_replay

FP32 = Precision(torch.device("cpu"), torch.float32)
PAPER = {name: read_config([f"method={name}", "preset=paper"]) for name in ("der", "otr", "drq", "drq_eps", "curl", "baseline")}
ALL = pytest.mark.parametrize("method", ["der", "otr", "drq", "drq_eps", "curl"])


def make(*words):
    """An agent of preset debug, and a replay of noise."""
    config = read_config(["preset=debug", *words])
    agent = make_agent(config, 4, FP32)
    replay, rng, size = make_replay(config, agent), np.random.default_rng(0), config.env.size
    frame = lambda: rng.integers(0, 256, (size, size, 1), dtype=np.uint8)  # noqa: E731
    replay.start(frame())
    for t in range(100):
        over = t % 30 == 29
        replay.add(int(rng.integers(4)), Step(frame(), float(rng.integers(-1, 2)), 0.0, over, False, over))
        if over:
            replay.start(frame())
    return agent, replay, config


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize(
    "method, step, updates",
    [("der", 1600, 0), ("der", 1601, 1), ("der", 6100, 4500), ("otr", 20_100, 800), ("drq", 1700, 100), ("curl", 1600, 1)],
)
def test_number_of_updates(method, step, updates):
    assert updates_until(PAPER[method].train, step) == updates


@pytest.mark.parametrize("updates_per_step", [1, 3])
def test_target_is_copied_after_the_steps_that_are_multiples(updates_per_step):
    agent, replay, _ = make("method=otr", "rainbow.target_every=5")
    after = {0: flat(agent.network)}
    for step in range(1, 18):
        for _ in range(updates_per_step):
            agent.update(replay, step)
            last = (step - 1) // 5 * 5  # the newest multiple before this step
            assert torch.equal(flat(agent.target), after[last]), f"step {step}"
        after[step] = flat(agent.network)
    assert not torch.equal(after[5], after[10])


def test_der_and_otr_copy_as_published():
    assert [PAPER[m].rainbow.target_every for m in ("der", "otr", "drq", "curl")] == [2000, 500, 1, 2000]
    assert read_config(["method=der", "preset=paper", "dopamine_2021=true"]).rainbow.target_every == 8000
    assert read_config(["method=der", "preset=paper", "dopamine_2021=true", "rainbow.target_every=7"]).rainbow.target_every == 7


def test_drq_target_is_the_network_itself():
    agent, replay, _ = make("method=drq")
    for step in range(1, 4):
        seen = []
        update = agent.update_parts
        agent.update_parts = lambda r, u=update, s=seen: s.append(torch.equal(flat(agent.target), flat(agent.network))) or u(r)
        agent.update(replay, step)
        assert seen == [True]
        agent.update_parts = update


@pytest.mark.parametrize("method, features, count", [("der", 7744, 8_270_494), ("otr", 7744, 4_148_076), ("curl", 576, None)])
def test_sizes(method, features, count):
    agent = make_agent(PAPER[method], 4, FP32)
    assert agent.network.trunk.features == features and agent.target.trunk.features == features
    if count:  # convolutions 77,984; hidden 7744 x 512; outputs 4 x 51, and 51 of the value; twice in noisy layers
        hidden, outputs, value = 7745 * 512, 513 * 204, 513 * 51
        expected = 77_984 + (2 * (hidden + outputs + value) if method == "der" else hidden + outputs)
        assert sum(p.numel() for p in agent.network.parameters()) == expected == count, expected


def test_one_hidden_layer_serves_value_and_advantage():
    head = make_agent(PAPER["der"], 4, FP32).network.head
    assert {name for name, _ in head.named_children()} == {"hidden", "advantage", "value"}
    head.resample(torch.Generator().manual_seed(0))
    assert torch.equal(head.value.noise_in, head.advantage.noise_in) and head.value.noise_in.unique().numel() > 500
    assert head.hidden.sigma_bias.unique().item() == pytest.approx(0.1 / 7744**0.5)
    x = torch.rand(2, 7744)
    h = torch.relu(head.hidden(x, True))
    value, advantage = head.value(h, True)[:, None], head.advantage(h, True).view(2, 4, 51)
    torch.testing.assert_close(head(x, True), value + advantage - advantage.mean(1, keepdim=True))


def test_otr_has_no_noise_and_no_value():
    agent = make_agent(PAPER["otr"], 4, FP32)
    assert not [name for name, _ in agent.network.named_parameters() if "sigma" in name]
    assert agent.network.head.value is None and agent.network(torch.zeros(2, 4, 84, 84), True).shape == (2, 4, 51)
    assert (PAPER["otr"].rainbow.n_step, PAPER["otr"].rainbow.lr, PAPER["otr"].rainbow.adam_eps) == (3, 6.25e-5, 1.5e-4)
    assert PAPER["otr"].eval.epsilon == 0.001 and PAPER["otr"].train.epsilon[1] == 0.01


def test_otr_lets_the_target_network_choose():
    agent, replay, _ = make("method=otr")
    with torch.no_grad():
        for p in agent.target.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    batch = replay.sample(16, 0.5)
    seen = {}
    for double in (False, True):
        agent.settings = dataclasses.replace(agent.settings, double=double)
        with torch.no_grad():
            target = agent.target(batch.next_obs.whole(), True)
            chooser = agent.network(batch.next_obs.whole(), True) if double else target
            best = agent.value.q(chooser).argmax(1)
            wanted = agent.value.target(target[torch.arange(16), best], batch.return_n, batch.done_n, 0.99**3)
        seen[double] = agent.make_target(batch)
        torch.testing.assert_close(seen[double], wanted)
    assert not torch.equal(seen[False], seen[True])


def test_noise_of_der_and_of_curl():
    """Training acts with new noise each time, an evaluation with none. The target's noise is the choice's [DER] or its own [CURL]."""
    for method in ("der", "curl"):
        agent, replay, _ = make(f"method={method}", "rainbow.noisy_std=5")
        obs, heads = replay.newest(), (agent.network.head, agent.target.head)
        outputs = []
        hook = agent.network.register_forward_hook(lambda module, inputs, out, o=outputs: o.append(out.detach()))
        for explore in (True, True, False, False):
            agent.act(obs, agent.begin(1), explore=explore)
        hook.remove()
        assert torch.equal(outputs[2], agent.network(obs.whole(), False))
        rule = {"der": "shared", "curl": "own"}[method]
        if method == "curl":  # the preset paper has it so
            agent.settings = dataclasses.replace(agent.settings, target_noise=PAPER["curl"].rainbow.target_noise)
            agent.act(obs, agent.begin(1), explore=True)
        assert agent.settings.target_noise == rule
        assert torch.equal(outputs[2], outputs[3]) and (method == "curl" or not torch.equal(outputs[0], outputs[1]))
        drawn, read = [], agent.network.read
        agent.network.read = lambda *a, r=read, d=drawn, h=heads, **k: d.append([x.hidden_noise().clone() for x in h]) or r(*a, **k)
        for head in heads:
            first = head.hidden if method == "der" else head.value_hidden
            head.hidden_noise = lambda layer=first: layer.noise_in
        before = heads[0].hidden_noise().clone()
        agent.update(replay, 1)
        (choice, target), (loss, _) = drawn
        assert torch.equal(choice, target) == (method == "der")
        assert torch.equal(choice, loss) == torch.equal(loss, before) == (method == "curl")


def test_der_without_noise():
    agent, replay, _ = make("method=der", "rainbow.noisy=false")
    assert torch.isfinite(agent.update(replay, 1).metrics["loss/rl"])


def test_nothing_is_augmented_but_in_drq():
    frames = Frames.of_images(torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8))
    for method in ("der", "otr", "curl"):
        assert torch.equal(make_agent(PAPER[method], 4, FP32)._view(frames), frames.whole().float())
    agent = make_agent(PAPER["drq"], 4, FP32)
    assert not torch.equal(agent._view(frames), frames.whole().float())
    seen = []
    agent.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    agent.act(frames, agent.begin(3), explore=True)
    assert torch.equal(seen[0], frames.whole())  # acting sees the frames themselves


@pytest.mark.parametrize("words, alike", [([], False), (["dopamine_2021=true"], True)])
def test_shift_of_drq(words, alike):
    """Offsets 0 to 7 of 0 to 8, one per image or one per batch; factors of one stack are one, within 0.9 and 1.1."""
    agent = make_agent(read_config(["method=drq", "preset=paper", *words]), 4, FP32)
    views = [agent.augment.draw(400, 4, agent.generator).stages[0] for _ in range(40 if alike else 1)]
    for view in views:
        assert (view.rows.unique(dim=0).shape[0] == 1) == alike and view.factor.unique().numel() > 300
        assert view.factor.min() >= 0.9 and view.factor.max() <= 1.1
    offset = torch.cat([view.rows[:, 40] - 40 + 4 for view in views])
    assert set(offset.tolist()) == set(range(8))
    assert not torch.equal(views[0].rows, views[0].columns)


def test_drq_draws_once_for_an_observation_and_once_for_the_next():
    agent, replay, _ = make("method=drq")
    views, draw = [], agent.augment.draw
    agent.augment.draw = lambda *args: views.append(draw(*args).stages[0].rows) or draw(*args)
    agent.update(replay, 1)
    assert len(views) == 2 and not torch.equal(*views)


def test_drq_replay_draws_all_alike():
    _, replay, _ = make("method=drq")
    count = len(replay)
    replay.update_priorities(torch.arange(count), torch.linspace(0.01, 9, count))
    drawn = torch.cat([replay.sample(64, 0.5).slot for _ in range(100)])
    assert stats.chisquare(np.bincount(drawn.numpy(), minlength=count)[:count]).pvalue > 1e-4
    assert (replay.sample(64, 0.5).weight == 1).all()


def test_drq_eps_is_drq_but_for_two_numbers():
    one, two = dict(flatten(PAPER["drq"])), dict(flatten(PAPER["drq_eps"]))
    differing = {key for key in one if one[key] != two[key]} - {"method"}
    assert differing == {"train.epsilon", "eval.epsilon"} and one.keys() == two.keys()
    assert (PAPER["drq"].train.epsilon, PAPER["drq"].eval.epsilon) == ([1.0, 0.1], 0.05)
    assert (PAPER["drq_eps"].train.epsilon, PAPER["drq_eps"].eval.epsilon) == ([1.0, 0.01], 0.001)


def test_random_actions_are_as_frequent_as_epsilon_says():
    agent, _, _ = make("method=drq", "train.epsilon=[1.0,0.3]", "train.epsilon_decay=100")
    assert all(agent.explores(step) for step in range(61))
    assert 0.2 < np.mean([agent.explores(5000) for _ in range(400)]) < 0.4
    stream = make("method=baseline")[0]
    state = stream.dice.get_state()
    assert stream.explores(60) and not stream.explores(61) and torch.equal(stream.dice.get_state(), state)
    assert not make_agent(PAPER["der"], 4, FP32).explores(0)  # the noise alone explores
    assert read_config(["method=der", "preset=small"]).train.epsilon == read_config(["method=baseline", "preset=small"]).train.epsilon


@ALL
def test_saved_and_loaded(method):
    """A loaded agent goes on as the saved one; every key of the method is read."""
    one, replay, config = make(f"method={method}")
    for step in (1, 2):
        one.update(replay, step)
    blocks = ("curl", "rainbow", "encoder", "augment", "quirks")
    unread = [key for key in config.unread() if key.split(".")[0] in blocks]
    assert unread == []
    two, other, _ = make(f"method={method}", "seed=3")
    networks, state, memory = copy.deepcopy((one.networks(), one.state_dict(), replay.state_dict()))
    two.load_networks(networks)
    two.load_state_dict(state)
    other.load_state_dict(memory, [], None)
    other.store.frames.copy_(replay.store.frames)
    for step in (3, 4):
        a, b = one.update(replay, step).metrics, two.update(other, step).metrics
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert one.act(replay.newest(), one.begin(1), True)[0] == two.act(other.newest(), two.begin(1), True)[0]
    assert torch.equal(flat(one.network), flat(two.network)) and torch.equal(flat(one.target), flat(two.target))
    assert torch.equal(replay.largest, other.largest)


@pytest.mark.parametrize(
    "words, said",
    [
        (["method=mlr", "rainbow.head=dueling"], "leave rainbow.head=streams"),
        (["method=drq", "rainbow.atoms=11"], "no effect with rainbow.value=scalar"),
        (["method=otr", "rainbow.noisy_std=1"], "no effect with rainbow.noisy=false"),
        (["rainbow.head=trunk"], "rainbow.head=trunk is unknown"),
        (["encoder.padding=full"], "encoder.padding=full is unknown"),
        (["train.epsilon=[1]"], "must be two numbers"),
        (["train.epsilon=[1,2]"], "between 0 and 1"),
        (["env.fewest_noops=31"], "at most env.noops=30"),
        (["method=otr", "dopamine_2021=true"], "no effect with method=otr"),
        (["method=der", "curl.weight=1"], "no effect with method=der"),
        (["method=der", "augment.pad=3"], "no effect with augment.order=[]"),
        (["method=baseline", "baseline.window=0"], "between 1 and 256"),
        (["method=der", "preset=small", "dopamine_2021=true"], "do not suit preset=small"),
        (["method=der", "encoder.centre=true"], "encoder.centre=true and encoder.padding=same exclude each other"),
        (["method=madi", "masker.enabled=false", "masker.width=4"], "no effect with masker.enabled=false"),
        (["train.epsilon=[0.1,0.9]"], "must not rise"),
        (["augment.next_views=0"], "between 1 and 2"),
    ],
)
def test_mistakes(words, said):
    with pytest.raises(UserError, match=said.replace("[", r"\[")):
        read_config(["preset=paper", *words])
