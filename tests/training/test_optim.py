"""Schedules against values by hand; a resumed optimizer against an uninterrupted one."""

import pytest
import torch
from torch import nn

from pvt_bench.config.schedules import Decay, Optimizer, Schedule
from pvt_bench.errors import InputError
from pvt_bench.training.optim import build_optimizer, count_steps, learning_rate, rate_factor


def schedule(**fields: object) -> Schedule:
    return Schedule(**({"name": "test", "batch_size": 4, "lr": 0.1} | fields))  # type: ignore[arg-type]


def test_the_1x_schedule_by_hand() -> None:
    """12 epochs of 100 steps, ten times less after 8 and after 11, warm-up of 50 steps."""
    one_x = schedule(epochs=12, milestones=[8, 11], warmup_steps=50, warmup_ratio=0.001)
    factors = {step: rate_factor(step, one_x, 1200, 100) for step in range(1201)}
    assert factors[0] == pytest.approx(0.001)
    assert factors[25] == pytest.approx((0.001 + 1) / 2)
    assert factors[50] == factors[799] == 1
    assert factors[800] == factors[1099] == pytest.approx(0.1)
    assert factors[1100] == factors[1199] == pytest.approx(0.01)


def test_the_cosine_by_hand() -> None:
    cosine = schedule(steps=110, decay=Decay.cosine, warmup_steps=10, warmup_ratio=0.0)
    assert rate_factor(5, cosine, 110, 10) == pytest.approx(0.5)
    assert rate_factor(10, cosine, 110, 10) == pytest.approx(1)
    assert rate_factor(60, cosine, 110, 10) == pytest.approx(0.5)
    assert rate_factor(110, cosine, 110, 10) == pytest.approx(0, abs=1e-12)


def test_steps_are_whole_batches() -> None:
    assert count_steps(schedule(epochs=3, batch_size=4), 18) == (12, 4)
    assert count_steps(schedule(steps=7, batch_size=4), 18) == (7, 4)
    assert count_steps(schedule(steps=0), 18) == (0, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 1, "steps": 1}, "either epochs or steps"),
        ({}, "either epochs or steps"),
        ({"epochs": 1, "batch_size": 19}, "at most 18"),
        ({"epochs": 1, "batch_size": 0}, "at least 1"),
        ({"steps": -1}, "not be negative"),
    ],
)
def test_impossible_lengths_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        count_steps(schedule(**fields), 18)


@pytest.mark.parametrize("kind", [Optimizer.adamw, Optimizer.sgd])
def test_a_resumed_optimizer_goes_on_as_if_nothing_had_happened(kind: Optimizer) -> None:
    plan = schedule(steps=20, optimizer=kind, decay=Decay.cosine, warmup_steps=3, weight_decay=0.1)

    def advance(weight: nn.Module, optimizer: object, rates: object, first: int, stop: int) -> None:
        for step in range(first, stop):
            torch.manual_seed(step)
            loss = weight(torch.rand(4, 5)).square().sum()
            optimizer.zero_grad()  # type: ignore[attr-defined]
            loss.backward()
            optimizer.step()  # type: ignore[attr-defined]
            rates.step()  # type: ignore[attr-defined]

    torch.manual_seed(0)
    whole = nn.Linear(5, 3)
    parts = nn.Linear(5, 3)
    parts.load_state_dict(whole.state_dict())
    advance(whole, *build_optimizer(whole, plan, 20, 5), 0, 20)
    first = build_optimizer(parts, plan, 20, 5)
    advance(parts, *first, 0, 8)
    second = build_optimizer(parts, plan, 20, 5, start=8, state=first[0].state_dict())
    advance(parts, *second, 8, 20)
    assert torch.equal(whole.weight, parts.weight)


def test_frozen_parameters_are_left_out() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    optimizer, _ = build_optimizer(network, schedule(steps=1), 1, 1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_the_polynomial_by_hand() -> None:
    poly = schedule(steps=100, decay=Decay.poly, power=0.9, min_lr=0.01)
    assert rate_factor(0, poly, 100, 10) == pytest.approx(1)
    assert rate_factor(50, poly, 100, 10) == pytest.approx(0.1 + 0.9 * 0.5**0.9)
    assert rate_factor(100, poly, 100, 10) == pytest.approx(0.1)


def test_the_imagenet_recipe_by_hand() -> None:
    """300 epochs of 10 steps, cosine from 1e-3 to 1e-5, 5 epochs of warm-up from 1e-6."""
    recipe = schedule(
        epochs=300, lr=1e-3, min_lr=1e-5, decay=Decay.cosine, warmup_epochs=5, warmup_ratio=1e-3
    )
    rates = [1e-3 * rate_factor(step, recipe, 3000, 10) for step in (0, 25, 50, 3000)]
    assert rates == pytest.approx([1e-6, (1e-6 + 1e-3) / 2, 1e-3, 1e-5])
    halfway = 50 + 2950 // 2
    assert 1e-3 * rate_factor(halfway, recipe, 3000, 10) == pytest.approx((1e-3 + 1e-5) / 2)


def test_the_rate_follows_the_batch() -> None:
    assert learning_rate(schedule(batch_size=8)) == 0.1
    assert learning_rate(schedule(batch_size=8, reference_batch=16)) == pytest.approx(0.05)
    assert learning_rate(schedule(batch_size=16, reference_batch=16)) == 0.1


def test_groups_of_parameters() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Linear(3, 4)
            self.backbone.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
            self.head = nn.Linear(4, 2)
            self.head.bias.requires_grad = False

    asked = schedule(steps=1, weight_decay=0.05, backbone_lr=0.1, no_decay_vectors=True)
    optimizer, _ = build_optimizer(Network(), asked, steps=1, epoch_steps=1)
    found = {
        (round(group["initial_lr"], 9), group["weight_decay"]): [p.numel() for p in group["params"]]
        for group in optimizer.param_groups
    }
    assert found == {(0.01, 0.05): [12], (0.01, 0.0): [4, 20], (0.1, 0.05): [8]}
