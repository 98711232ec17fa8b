"""The published recipe: it trains, its schedule and its lookahead are what they are said to be, its crops are windows."""

import copy
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import published_recipe, speedrun, turns
from tests.images import cifar_like


def test_recipe_learns_and_whitens(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(published_recipe, "BATCH", 32)
    labels = torch.arange(64) % 2
    images = 0.3 * torch.randn(64, 3, 32, 32) + (2 * labels - 1).view(-1, 1, 1, 1)
    model = published_recipe.network(images)
    published_recipe.train(model, images, labels, epochs=4)
    assert not any(module.training for module in model.modules())
    filters = published_recipe.network(images)[0].weight
    assert torch.equal(model[0].weight, filters)
    assert published_recipe.accuracy(model, images, labels, mirrored=True) > 0.9
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


class Fake(turns.Run):
    """A side that does nothing, to the row's end."""

    def __init__(self, given: Namespace) -> None:
        self.given = given

    def prepare(self, seed: int, steps: int | None = None) -> nn.Module:
        return nn.Identity()

    def train(self) -> float:
        return 0.91


def test_the_published_recipe_is_a_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_recipe, "BATCH", 32)
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    monkeypatch.setattr(speedrun, "read", lambda *_: (images, torch.arange(64) % 10))
    side = speedrun.Published(Namespace(data_dir=None, epochs=4))  # lookahead meets every fifth step
    network = side.prepare(1)
    before = [parameter.clone() for parameter in network.parameters()]
    assert 0 <= side.train() <= 1
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert side.more().endswith("without mirrored images")


def test_the_experiment_is_a_side(tmp_path: Path) -> None:
    cifar_like(tmp_path, 600, 20)
    side = speedrun.Thaw(Namespace(data_dir=tmp_path, device="cpu"))
    side.prepare(0, steps=2)
    assert 0 <= side.train() <= 1
    assert side.parts.trainer.global_step == 1
    assert side.more().count(", 0.") + side.more().count(", 1.") == 2


def test_row_holds_accuracies_and_seconds_against_their_goals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cifar_like(tmp_path, 40, 10)
    monkeypatch.setattr(turns, "_START", "fork")
    monkeypatch.setattr(speedrun, "Thaw", Fake)
    monkeypatch.setattr(speedrun, "Published", Fake)
    monkeypatch.setattr(speedrun, "operations_per_second", lambda *_: 1e12)
    (row,) = speedrun.measure(Namespace(data_dir=tmp_path, threads=1, epochs=0.5, repetitions=1, seed=3))
    assert row.sides["Thaw"].quality == "test acc 0.9100"
    assert "from seed 3;" in row.work
    assert [goal.what for goal in row.goals] == ["accuracy", "seconds, as a share of the peer's"]
    assert row.goals[0].reached
    assert row.limit is not None


def test_learning_rate_rises_and_falls_in_straight_lines() -> None:
    shares = [published_recipe.share_of_peak(step, 100) for step in (0, 23, 100)]
    assert shares == pytest.approx([0.2, 1.0, 0.07])
    assert published_recipe.share_of_peak(23 + 38, 100) == pytest.approx(1 - 0.93 * 38 / 77)


def test_lookahead_meets_between_slow_and_fast_weights() -> None:
    model = nn.Linear(3, 2)
    slow = copy.deepcopy(model)
    lookahead = published_recipe.Lookahead(model)
    with torch.no_grad():
        model.weight.add_(1)
    lookahead.meet(0.75)
    torch.testing.assert_close(model.weight, slow.weight + 0.25)
    with torch.no_grad():
        model.weight.add_(1)
    lookahead.meet(1.0)
    torch.testing.assert_close(model.weight, slow.weight + 0.25)


def test_crops_are_windows_of_the_mirrored_image() -> None:
    torch.manual_seed(0)
    images = torch.randn(60, 1, 6, 6)
    bordered = nn.functional.pad(images, (2, 2, 2, 2), mode="reflect")
    places = set()
    for image, window in zip(bordered, published_recipe.crops(images), strict=True):
        found = [(r, c) for r in range(5) for c in range(5) if torch.equal(image[:, r : r + 6, c : c + 6], window)]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 15
