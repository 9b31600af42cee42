"""DER, OTR and DrQ against the numbers of Dopamine's code. Every size is read from the arrays; the settings are those of preset=paper."""

import numpy as np
import pytest
import torch

from Atari.agents.values import Distribution, Scalar
from Atari.core.machine import Precision
from Atari.core.method.augment import Gather, View
from Atari.core.method.frames import Frames
from Atari.env import Step
from Atari.memory import new_replay
from Atari.methods import make_agent
from Atari.replay import Batch
from Atari.settings import read_config
from tests.given import Given, assert_close

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]
NOISY = {"weight_mu": "mean.weight", "bias_mu": "mean.bias", "weight_sigma": "sigma_weight", "bias_sigma": "sigma_bias"}
PLAIN = {"weight": "mean.weight", "bias": "mean.bias"}


@pytest.fixture
def g(golden):
    return Given(golden("atari_dopamine"))


class Case:
    """The agent of a method's YAML, with the given weights, inputs, noise and crops."""

    def __init__(self, g, method):
        self.g, self.method = g, method
        b, _, size, _ = g["states"].shape
        hidden, self.n_actions = (
            g.shape(f"{method}/online/hidden.bias{'_mu' if method == 'der' else ''}")[0],
            g[f"{method}/q_values"].shape[1],
        )
        words = [f"method={method}", "preset=paper", f"rainbow.batch_size={b}", f"rainbow.hidden={hidden}", f"env.size={size}"]
        self.config = read_config([*words, f"rainbow.lr={g.number(f'{method}/lr')}"])
        assert self.config.rainbow.n_step == int(g.number(f"{method}/n_step"))
        self.agent = make_agent(self.config, self.n_actions, Precision(torch.get_default_device(), torch.float32))
        self.load()
        agent, views = self.agent, iter(("state", "next_state") if method == "drq" else ())
        # the target's views come first
        order = {"state": "next_state", "next_state": "state"}
        agent.augment.draw = lambda n, channels, generator: self.view(order[next(views)]) if method == "drq" else self.whole(n)
        self.noises = iter(("noise_target", "noise_loss"))
        agent.network.head.resample = lambda generator: self.load_noise(next(self.noises)) if method == "der" else None
        obs, following = (Frames.of_images(g[name]) for name in ("states", "next_states"))
        one = torch.ones(b)
        done = g["terminals"].float()
        self.batch = Batch(obs, g["actions"], g[f"{method}/rewards"], done, following, one, torch.arange(b), None)

    def named(self):
        """(official name, our parameter) of the online network and of the target network."""
        head = {"advantage": "output"} if self.method == "otr" else {}
        for prefix, network in (("online", self.agent.network), ("target", self.agent.target)):
            for i, conv in enumerate(network.trunk.convs, 1):
                yield f"{prefix}/conv{i}.weight", conv.weight
                yield f"{prefix}/conv{i}.bias", conv.bias
            for name, layer in network.head.named_children():
                for theirs, ours in (NOISY if layer.noisy else PLAIN).items():
                    yield f"{prefix}/{head.get(name, name)}.{theirs}", layer.get_parameter(ours)

    @torch.no_grad()
    def load(self):
        names = []
        for name, parameter in self.named():
            names.append(f"{self.method}/{name}")
            parameter.copy_(self.g.weight(names[-1]))
        given = {n for n in self.g.row if n.startswith(f"{self.method}/")}
        assert given == set(names)

    def load_noise(self, which):
        for name, layer in self.agent.network.head.named_children():
            for side in ("in", "out"):
                getattr(layer, f"noise_{side}").copy_(self.g[f"der/{which}/{name}_{side}"])

    def view(self, which):
        """The given crop and intensity."""
        size = self.agent.augment.size
        crop, draw = self.g[f"drq/crop/{which}"].long(), self.g[f"drq/intensity/{which}"]
        rows, columns = ((torch.arange(size) + crop[:, i : i + 1] - self.agent.augment.pad).clamp(0, size - 1) for i in (0, 1))
        return View((Gather(rows, columns, 1 + self.agent.augment.strength * draw.clamp(-2, 2)),))

    def whole(self, n):
        along = torch.arange(self.agent.augment.size).expand(n, -1)
        return View((Gather(along, along, None, run=True),))

    def get(self, name):
        return self.g[f"{self.method}/{name}"]


METHODS = pytest.mark.parametrize("method", ["der", "otr", "drq"])


@METHODS
def test_network(g, method):
    case = Case(g, method)
    agent, network = case.agent, case.agent.network
    if method == "der":
        case.load_noise("noise_loss")
    view = case.view("state") if method == "drq" else case.whole(len(case.batch.obs))
    images = agent.augment.view(case.batch.obs, view)
    with torch.no_grad():
        features = network.encoder(images)
        output = network(images, noisy=True)
        hidden = network.head.hidden(features, noisy=True)
    assert_close(features[:, :121], case.get("features_first121"))
    assert_close(features.sum(1), case.get("features_sum"))
    assert_close(hidden[:, :32], case.get("hidden_preact_first32"))
    assert_close(agent.value.q(output), case.get("q_values"))
    if method != "drq":
        assert_close(output.exp(), case.get("probabilities"))
    if method == "der":
        with torch.no_grad():
            assert_close(agent.value.q(network(images, noisy=False)), g["der/q_values_no_noise"])


@METHODS
def test_update(g, method):
    """Target, loss, priorities, gradients, and the step of Adam."""
    case = Case(g, method)
    agent = case.agent
    target = agent.make_target(case.batch)
    loss, priority, _ = agent.rl_loss(case.batch, target, agent.encode(case.batch))
    assert_close(target, case.get("target"))
    assert_close(loss, case.get("loss_per_sample"))
    if method != "drq":
        assert_close(priority**case.config.replay.alpha, case.get("priorities"))
    weight = case.get("loss_weights")
    (weight * loss).mean().backward()
    assert_close((weight * loss).mean(), case.get("loss"))
    before = {}
    for name, parameter in case.named():
        if name.startswith("online/"):
            short = name.removeprefix("online/")
            assert_close(parameter.grad.norm(), case.get(f"gradnorm/{short}"), 1e-3)
            if f"{method}/index8/{short}" in g:
                at = case.get(f"index8/{short}")
                assert_close(parameter.grad.flatten()[at], case.get(f"grad_at8/{short}"), 1e-3)
                before[short] = parameter, at, parameter.detach().flatten()[at].clone()
    agent.take_step()
    assert len(before) >= 6
    for short, (parameter, at, old) in before.items():
        assert_close(parameter.detach().flatten()[at] - old, case.get(f"after_step_at8/{short}") - old, 2e-3)


def test_action_choice(g):
    """DER chooses by the online network with the target's noise, OTR by the target network."""
    for method in ("der", "otr"):
        case = Case(g, method)
        if method == "der":
            case.load_noise("noise_target")
            torch._foreach_copy_(list(case.agent.target.head.buffers()), list(case.agent.network.head.buffers()))
        with torch.no_grad():
            target = case.agent.value.q(case.agent.target(case.batch.next_obs.whole(), True))
        assert_close(target, case.get("next_q_target_net"))
        if method == "der":
            with torch.no_grad():
                online = case.agent.value.q(case.agent.network(case.batch.next_obs.whole(), True))
            assert_close(online, case.get("next_q_online_net"))
            assert online.argmax(1).tolist() != target.argmax(1).tolist()
        assert (online if method == "der" else target).argmax(1).tolist() == case.get("next_action").tolist()


def test_augmentation(g):
    case = Case(g, "drq")
    for which, frames in (("state", case.batch.obs), ("next_state", case.batch.next_obs)):
        image = case.agent.augment.view(frames, case.view(which)) / 255
        assert_close(image.sum((1, 2, 3)), g[f"drq/augmented_sum/{which}"])
        assert_close(image[:, -1, 0], g[f"drq/augmented_row0/{which}"])


def test_projection_and_huber(g):
    value = Distribution(-10.0, 10.0, g["projection_weights"].shape[1], torch.get_default_device())
    for i, discount in enumerate(g["projection_discount"].tolist()):
        row = slice(i, i + 1)
        got = value.target(g["projection_weights"][row].log(), g["projection_return"][row], torch.zeros(1), discount)
        assert_close(got, g["projection_result"][row])
    error = g["huber_error"]
    loss, _ = Scalar().loss(error[:, None], torch.zeros(len(error), dtype=torch.int64), torch.zeros_like(error))
    assert_close(loss, g["huber"])


@pytest.mark.parametrize(
    "method, words, column",
    [
        ("der", [], "der_head"), ("der", ["dopamine_2021=true"], "der_2021"),
        ("otr", [], "otr"), ("drq", [], "drq"), ("drq_eps", [], "drq_eps"),
    ],
)  # fmt: skip
def test_epsilon(g, method, words, column):
    agent = make_agent(read_config([f"method={method}", "preset=paper", *words]), 3, Precision(torch.get_default_device(), torch.float32))
    ours = [agent.epsilon(int(step)) for step in g["schedule_eps_step"]]
    assert ours == pytest.approx(g[f"schedule_eps_{column}"].tolist(), abs=2e-7)


def test_priorities(g):
    """New transitions enter at the largest priority so far; weights are p^-0.5 over the batch's largest."""
    config = read_config(["method=der", "preset=paper", "rainbow.n_step=1"])
    agent = make_agent(config, 3, Precision(torch.get_default_device(), torch.float32))
    replay = new_replay(config, 20, 1, agent)
    replay.start(np.zeros((84, 84, 1), np.uint8))

    def add(n):
        for _ in range(n):
            replay.add(0, Step(np.zeros((84, 84, 1), np.uint8), 0.0, 0.0, False, False, False))

    add(replay.reserve + 6)
    updated = g["priority_updated_items"].long()
    replay.update_priorities(updated, g["priority_loss"] + 1e-10)
    add(1)
    priorities = replay.leaf.flatten()[:7]
    assert_close(priorities, g["priority_of_items"])
    sampled = g["priority_sampled_items"].long()
    assert_close(priorities[sampled] / priorities.sum(), g["priority_probabilities"])
    replay._draw = lambda n: (sampled, priorities[sampled])
    assert_close(replay.sample(len(sampled), agent.exponent.fill_(agent.beta(5000))).weight, g["priority_loss_weights"])


def test_n_step_returns(g):
    """The items of the replay of 2021: return, end, and no bootstrap once the episode ends within n steps."""
    n, reward, terminal = int(g.number("nstep_n")), g["nstep_reward"], g["nstep_terminal"]
    config = read_config(["method=der", "preset=paper", f"rainbow.n_step={n}", "env.size=36"])
    agent = make_agent(config, 3, Precision(torch.get_default_device(), torch.float32))
    replay = new_replay(config, 60, 1, agent)
    frame = lambda i: np.full((36, 36, 1), i, np.uint8)  # noqa: E731
    replay.start(frame(1))
    for i, (r, end, cut) in enumerate(zip(reward.tolist(), terminal.tolist(), g["nstep_truncated"].tolist(), strict=True)):
        replay.add(0, Step(frame(i + 2), r, r, end, False, end or cut))
        if end or cut:
            replay.start(frame(i + 2))
    start = g["nstep_2021/start_step"].long()
    replay._draw = lambda count: (start, torch.ones(count, dtype=torch.float64))
    replay.leaf.fill_(1)
    replay.reserve = 0
    batch = replay.sample(len(start), 0.5)
    assert_close(batch.return_n, g["nstep_2021/return"])
    assert batch.done_n.bool().tolist() == g["nstep_2021/terminal"].tolist()
    stacks = lambda frames: frames.whole()[:, :, 0, 0].long().tolist()  # noqa: E731
    assert stacks(batch.obs) == g["nstep_2021/state_frames"].tolist()
    going = batch.done_n == 0
    assert stacks(batch.next_obs[going]) == g["nstep_2021/next_state_frames"][going].tolist()
