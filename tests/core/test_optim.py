"""The optimiser against torch's plain one, given the schedule and the clip by hand."""

import pytest
import torch

from DMControl.core.method.optim import Adam

WARMUP = 4
RATES = {
    "inverse_sqrt": [5e-4, 0.250375, 0.50025, 0.750125, 1.0, (4 / 5) ** 0.5, (4 / 6) ** 0.5, (4 / 7) ** 0.5],
    "constant": [5e-4, 0.250375, 0.50025, 0.750125, 1.0, 1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("decay", RATES)
def test_each_step_has_its_rate_and_its_clip(decay):
    weights = [torch.nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(1))) for _ in range(2)]
    fast = Adam([weights[0]], 0.1, betas=(0.8, 0.99), eps=1e-6, clip=1.0, warmup=WARMUP, decay=decay)
    slow = torch.optim.Adam([weights[1]], 0.1, betas=(0.8, 0.99), eps=1e-6, foreach=False, fused=False)
    draws = torch.Generator().manual_seed(2)
    for number, rate in enumerate(RATES[decay]):
        gradient = torch.randn(5, 3, generator=draws)
        weights[0].grad = gradient.clone()
        norm = gradient.norm()
        weights[1].grad = gradient * min(1.0, 1.0 / (norm + 1e-6))
        slow.param_groups[0]["lr"] = 0.1 * rate
        slow.step()
        assert fast.step().item() == pytest.approx(norm.item()) and norm > 1
        assert fast.updates == number + 1
        assert torch.allclose(*weights, rtol=0, atol=1e-6)


def test_a_save_goes_on_with_the_schedule():
    def make():
        weight = torch.nn.Parameter(torch.ones(4))
        return weight, Adam([weight], 0.1, warmup=3, decay="inverse_sqrt")

    def steps(weight, adam, count):
        for _ in range(count):
            weight.grad = weight.detach() * 0.5
            adam.step()

    whole, adam = make()
    steps(whole, adam, 8)
    first, adam = make()
    steps(first, adam, 3)
    second, other = make()
    other.load_state_dict(adam.state_dict())
    with torch.no_grad():
        second.copy_(first)
    steps(second, other, 5)
    assert torch.equal(second, whole) and other.updates == 8
