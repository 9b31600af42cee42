"""One learning step of CURL on Rainbow against the official code's numbers. The settings are those of preset=paper."""

import numpy as np
import pytest
import torch

from Atari.core.machine import Precision
from Atari.core.method.augment import Gather, View
from Atari.core.method.frames import Frames
from Atari.core.method.sequence import Sequence
from Atari.env import Step
from Atari.memory import new_replay
from Atari.methods import make_agent
from Atari.replay import Batch
from Atari.settings import read_config
from tests.given import Given, assert_close

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]
NOISY = {"weight_mu": "mean.weight", "bias_mu": "mean.bias", "weight_sigma": "sigma_weight", "bias_sigma": "sigma_bias"}
HEAD = {"fc_h_v": "value_hidden", "fc_z_v": "value", "fc_h_a": "advantage_hidden", "fc_z_a": "advantage"}


@pytest.fixture
def g(golden):
    return Given(golden("atari_curl"))


class Case:
    def __init__(self, g, *words):
        self.g = g
        b, _, size, _ = g["states"].shape
        words = [f"rainbow.batch_size={b}", f"rainbow.clip={g.number('clip_limit')}", f"env.size={size}", *words]
        self.config = read_config(["method=curl", "game=alien", "preset=paper", f"curl.hidden={g.shape('W_h')[1]}", *words])
        assert self.config.rainbow.n_step == int(g.number("n_step"))
        n_actions = g["log_ps"].shape[1]
        self.agent = make_agent(self.config, n_actions, Precision(torch.get_default_device(), torch.float32))
        self.objective = self.agent.objective
        self.load()
        obs, following = (Frames.of_images(g[name]) for name in ("states", "next_states"))
        done, zero = 1 - g["nonterminals"], torch.zeros(b, 1)
        sequence = Sequence(obs, g["actions"][:, None], zero, zero, torch.ones(b), g["weights"])
        self.batch = Batch(obs, g["actions"], g["returns"], done, following, g["weights"], torch.arange(b), sequence)
        crops = iter((self.crop("anchor"), self.crop("key")))
        self.objective.draw = lambda n, generator: next(crops)
        self.agent.target.head.resample = lambda generator: None  # the given noise stays

    def crop(self, which):
        size, pad, cut = self.objective.size, self.objective.pad, self.objective.cut
        first, second = self.g[f"crop80_{which}"], self.g[f"crop84_{which}"]
        along = [first[:, i : i + 1] + (torch.arange(size) + second[:, i : i + 1] - pad).clamp(0, size - cut - 1) for i in (0, 1)]
        return View((Gather(*along, None),))

    def named(self):
        """(official name, our parameter)."""
        network, objective = self.agent.network, self.objective
        trunks = (("", network.trunk), ("target/", self.agent.target.trunk), ("momentum/", objective.target_encoder.trunk))
        for prefix, trunk in trunks:
            for i, conv in enumerate(trunk.convs):
                yield f"{prefix}convs.{2 * i}.weight", conv.weight
                yield f"{prefix}convs.{2 * i}.bias", conv.bias
        for prefix, head in (("", network.head), ("target/", self.agent.target.head)):
            for theirs, layer in HEAD.items():
                for name, ours in NOISY.items():
                    yield f"{prefix}{theirs}.{name}", getattr(head, layer).get_parameter(ours)
        for prefix, part in (("", objective.describe), ("momentum/", objective.target_describe)):
            for i, which in enumerate("hc"):
                yield f"{prefix}W_{which}", part.weights[i]
                yield f"{prefix}b_{which}", part.biases[i]
        yield "W", objective.similarity

    @torch.no_grad()
    def load(self):
        names = {"momentum/W"}  # of the momentum network, which never uses it
        for name, parameter in self.named():
            names.add(name)
            parameter.copy_(self.g.weight(name))
        for prefix, head in (("online", self.agent.network.head), ("target", self.agent.target.head)):
            for theirs, layer in HEAD.items():
                for side in ("in", "out"):
                    names.add(f"noise/{prefix}/{theirs}_{side}")
                    getattr(getattr(head, layer), f"noise_{side}").copy_(self.g.weight(f"noise/{prefix}/{theirs}_{side}"))
        assert set(self.g.row) == names

    def step(self):
        """The update, as the agent makes it."""
        agent, seen = self.agent, {}
        loss, priority, _ = agent.rl_loss(self.batch, agent.make_target(self.batch), agent.encode(self.batch))
        (self.batch.weight * loss).mean().backward()
        metrics = agent.objective_gradient(self.batch)
        seen["priority"] = priority + self.objective.priority(metrics)
        seen["gradient"] = {name: p.grad.clone() for name, p in self.named() if p.grad is not None}
        seen["norms"] = agent.take_step()
        return seen | {"loss": loss, "metrics": metrics}


def test_contrastive_loss(g):
    case = Case(g)
    objective = case.objective
    anchor, key = case.crop("anchor"), case.crop("key")
    obs = case.batch.obs
    image = case.agent.augment.view(obs, anchor) / 255
    assert_close(image.sum((1, 2, 3)), g["aug_anchor_sum"])
    assert_close(image[:, -1, 0], g["aug_anchor_row0"])
    assert_close(case.agent.augment.view(obs, key).sum((1, 2, 3)) / 255, g["aug_key_sum"])
    with torch.no_grad():
        features = case.agent.network.encoder(case.agent.augment.view(obs, anchor))
        assert_close(features[:, :32], g["features_anchor_first32"])
        assert_close(objective.describe(features), g["z_anchor"])
        assert_close(objective.target_describe(objective.target_encoder(case.agent.augment.view(obs, key))), g["z_key"])
        plain = case.agent.network.encoder(obs.whole())
        assert_close(plain[:, :32], g["features_first32"])
        assert_close(plain.sum(1), g["features_sum"])
    assert_close(objective.logits(obs, anchor, key), g["logits"])
    loss, _ = objective.loss((obs, anchor, key))
    assert_close(loss, g["contrastive_loss"].expand(len(loss)))
    loss.mean().backward()
    for name, parameter in case.named():
        if f"contrastive_only_gradnorm/{name}" in g:
            assert_close(parameter.grad.norm(), g[f"contrastive_only_gradnorm/{name}"], 1e-3)
    assert all(p.grad is None for p in (*objective.target_encoder.parameters(), *objective.target_describe.parameters()))


@pytest.mark.parametrize("prefix, weight", [("", 1.0), ("coeff001/", 0.01)])
def test_update(g, prefix, weight):
    case = Case(g, f"rainbow.lr={g.number('lr')}", f"curl.weight={weight}")
    old = {name: p.detach().clone() for name, p in case.named()}
    with torch.no_grad():
        assert_close(case.agent.network(case.batch.obs.whole(), True), g["log_ps"])
    seen = case.step()
    assert_close(seen["loss"], g["c51_loss"])
    assert_close(seen["priority"] ** case.config.replay.alpha, g[f"{prefix}priorities"])
    total = ((seen["loss"] + weight * seen["metrics"]["loss/curl"]) * case.batch.weight).mean()
    assert_close(total, g[f"{prefix}total_loss"])
    assert_close(seen["norms"]["grad/network"], g[f"{prefix}grad_norm_total"], 1e-3)
    parameters, compared = dict(case.named()), 0
    for name, gradient in seen["gradient"].items():
        assert_close(gradient.norm(), g[f"{prefix}gradnorm/{name}"], 1e-3)
        if f"{prefix}index8/{name}" in g:
            at = g[f"{prefix}index8/{name}"]
            assert_close(gradient.flatten()[at], g[f"{prefix}grad_at8/{name}"], 1e-3)
            moved = parameters[name].detach().flatten()[at] - old[name].flatten()[at]
            assert_close(moved, g[f"{prefix}after_step_at8/{name}"] - old[name].flatten()[at], 2e-3)
            compared += 1
    assert compared >= 8
    if not prefix:
        for name, parameter in parameters.items():
            if name.startswith("momentum/") and f"momentum_after_first8/{name.removeprefix('momentum/')}" in g:
                assert_close(parameter.detach().flatten()[:8], g[f"momentum_after_first8/{name.removeprefix('momentum/')}"])


def test_momentum_follows_the_stepped_weights(g):
    case = Case(g, f"rainbow.lr={g.number('big_step/lr')}", f"curl.tau={1 - g.number('big_step/momentum')}")
    case.step()
    parameters, compared = dict(case.named()), 0
    for name in g.arrays:
        if name.startswith("big_step/momentum_after_at8/"):
            short = name.rpartition("at8/")[2]
            if short != "W":  # which the momentum network never uses
                assert_close(parameters[f"momentum/{short}"].detach().flatten()[g[f"index8/{short}"]], g[name], 1e-3)
                compared += 1
    assert compared >= 3


def test_replay(g):
    """Returns, ends, priorities and weights."""
    n, terminal = int(g.number("memory_n")), g["memory_terminal"]
    config = read_config(["method=curl", "game=alien", "preset=paper", f"rainbow.n_step={n}", "env.size=36"])
    agent = make_agent(config, 3, Precision(torch.get_default_device(), torch.float32))
    replay = new_replay(config, 60, 1, agent)
    frame = lambda i: np.full((36, 36, 1), i, np.uint8)  # noqa: E731
    replay.start(frame(1))
    for i, (reward, end) in enumerate(zip(g["memory_reward"].tolist(), terminal.tolist(), strict=True)):
        replay.add(0, Step(frame(i + 2), reward, reward, end, False, end))
        if end:
            replay.start(frame(i + 2))
    index = g["memory_index"].long()
    replay.leaf.view(-1)[: len(terminal)] = 1
    replay._draw = lambda count: (index, torch.ones(count, dtype=torch.float64))
    batch = replay.sample(len(index), 0.4)
    assert_close(batch.return_n, g["memory_return"])
    assert_close(1 - batch.done_n, g["memory_nonterminal"])
    assert batch.obs.whole()[:, :, 0, 0].long().tolist() == g["memory_state_frames"].tolist()
    replay.update_priorities(g["memory_updated_index"].long(), g["memory_loss_given"])
    assert_close(replay.leaf.flatten()[: len(terminal)], g["memory_priority_after"])
    assert_close(replay.largest[0], g["memory_next_new_priority"])
    sampled = g["memory_sampled_index"].long()
    replay._draw = lambda count: (sampled, replay.leaf.flatten()[sampled])
    assert_close(replay.sample(len(sampled), g.number("memory_beta")).weight, g["memory_is_weights"])


def test_beta(g):
    agent = Case(g).agent
    assert [agent.beta(int(step)) for step in g["schedule_beta_step"]] == pytest.approx(g["schedule_beta"].tolist(), rel=1e-4)
