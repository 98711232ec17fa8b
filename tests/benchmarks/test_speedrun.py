"""The published recipe: it trains, its schedule and its lookahead are what they are said to be, its crops are windows."""

import copy
from argparse import Namespace

import pytest
import torch
from torch import nn

from benchmarks import speedrun


def test_recipe_learns_and_whitens(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(speedrun, "_BATCH", 32)
    labels = torch.arange(64) % 2
    images = 0.3 * torch.randn(64, 3, 32, 32) + (2 * labels - 1).view(-1, 1, 1, 1)
    model, seconds = speedrun.train(images, labels, epochs=4)
    assert seconds > 0
    assert not any(module.training for module in model.modules())
    filters = speedrun.network(images)[0].weight
    assert torch.equal(model[0].weight, filters)
    assert speedrun.accuracy(model, images, labels, mirrored=True) > 0.9
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_row_holds_both_accuracies_and_the_seconds_against_their_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedrun, "_BATCH", 32)
    monkeypatch.setattr(speedrun, "thaw", lambda *_: {"test": {"acc": 0.91}, "seconds": {"fit": 1e4}, "epochs": 12})
    monkeypatch.setattr(speedrun, "of_fewer_views", lambda *_: (0.89, 0.9))
    monkeypatch.setattr(speedrun, "operations_per_second", lambda *_: 1e12)
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    monkeypatch.setattr(speedrun, "read", lambda *_: (images, torch.arange(64) % 10))
    (row,) = speedrun.measure(Namespace(data_dir=None, threads=1, epochs=0.5))
    assert row.sides["Thaw"].seconds == (1e4,)
    assert row.sides["Thaw"].quality == "accuracy 0.8900, with mirrored test images 0.9000, with shifted ones too 0.9100"
    assert row.sides["tuned"].quality.startswith("published recipe: accuracy 0.")
    assert [goal.reached for goal in row.goals] == [True, False]


def test_learning_rate_rises_and_falls_in_straight_lines() -> None:
    shares = [speedrun.share_of_peak(step, 100) for step in (0, 23, 100)]
    assert shares == pytest.approx([0.2, 1.0, 0.07])
    assert speedrun.share_of_peak(23 + 38, 100) == pytest.approx(1 - 0.93 * 38 / 77)


def test_lookahead_meets_between_slow_and_fast_weights() -> None:
    model = nn.Linear(3, 2)
    slow = copy.deepcopy(model)
    lookahead = speedrun.Lookahead(model)
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
    for image, window in zip(bordered, speedrun.crops(images), strict=True):
        found = [(r, c) for r in range(5) for c in range(5) if torch.equal(image[:, r : r + 6, c : c + 6], window)]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 15
