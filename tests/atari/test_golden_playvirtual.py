"""PlayVirtual's cycle against the official code's numbers. What it shares with SPR: test_golden_spr.py."""

import pytest
import torch

from Atari.core.method.reconstruction import distance
from Atari.methods.playvirtual import ramp
from tests.atari.official_spr import Official
from tests.atari.test_golden_spr import assert_gradients
from tests.given import assert_close

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("device")]


@pytest.fixture(scope="module")
def g(golden):
    return golden("atari_playvirtual")


@pytest.fixture(scope="module")
def case(g, device):
    case = Official(g, "playvirtual")
    case.agent.objective.at_step(int(g["ramp_step"]) + 1)
    return case


def test_cycle(g, case):
    o, sequence = case.agent.objective, case.batch.sequence
    with torch.no_grad():
        state = case.agent.network.encoder(case.agent.augment.view(case.batch.obs, case.view("rl")))
        part = case.windows(sequence)
        # the official copies are copy-first, ours window-first: (C, B * M, d) -> (C, M, B, d)
        ours = lambda rolled: torch.stack(rolled).unflatten(1, (case.b, o.copies)).transpose(1, 2)  # noqa: E731
        chosen = o.one_hot(part.actions.flatten(0, 1))
        o.dynamics.roll(state, o.one_hot(sequence.action[:, : case.k]))  # moves the running statistics first, as in an update
        away = o.dynamics.roll(state.repeat_interleave(o.copies, 0), chosen)
        back = o.reverse.roll(away[-1], chosen.flip(1))
        for name, rolled in (("forward", ours(away)), ("backward", ours(back))):
            assert_close(rolled[..., :16], g[f"virtual_{name}_first16"])
            assert_close(rolled.double().sum(-1), g[f"virtual_{name}_sum"])
        targets = o.target(part)[:, case.k :]  # (B, M, p)
        answers = ours([o.answer(back[-1])])[0]
        assert_close(answers[..., :16], g["cycle_prediction_first16"])
        assert_close(targets.transpose(0, 1)[..., :16], g["cycle_target_projection_first16"])
        assert_close(distance(answers, targets.transpose(0, 1)), g["cycle_loss_per_copy"])
        apart = o.cycle_distance(state, part.actions, targets)
        assert_close(apart.T, g["cycle_loss_per_copy"])
        weighted = apart.mean(1) * o.counted(sequence.done)[:, 0] * case.batch.weight
        assert_close(weighted, g["cycle_loss_weighted_per_sample"])
        assert_close(weighted.mean(), g["cycle_loss"])
        assert_close(o.weight, g["ramp_weight"], 1e-6)


def test_gradients_of_the_cycle_alone(g, case):
    agent = case.agent
    agent.objective.scale = 0.0  # of the loss that it shares with SPR
    state = agent.network.encoder(agent.augment.view(case.batch.obs, case.view("rl")))
    agent.optimizer.zero_grad()
    metrics = agent.objective_gradient(case.batch, state)
    assert_gradients(g, "grad_cycle", {n: p.grad for n, p in case.labelled().items() if getattr(p, "grad", None) is not None})
    assert_close(metrics["loss/cycle"], g["cycle_loss_per_copy"].mean(0)[g["nonterminal"][0] > 0].mean())


def test_the_ramp(g):
    for step, weight in zip(g["schedule_ramp_step"], g["schedule_ramp_weight"], strict=True):
        assert ramp(int(step), 50_000) == pytest.approx(float(weight), rel=1e-6)
