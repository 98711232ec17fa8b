"""Curves are logged at every n-th step."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.callbacks.curves import Curves


@pytest.mark.parametrize(("every", "expected"), [(3, [0, 3, 6, 9]), (5, [0, 5, 10]), (0, [])])
def test_every_nth_step_is_logged(every: int, expected: list[int]) -> None:
    network: Any = nn.Linear(2, 1)
    network(torch.ones(1, 2)).sum().backward()
    optimizer = torch.optim.SGD([{"name": "head", "params": list(network.parameters())}], lr=0.1)
    curves, found = Curves(SimpleNamespace(rows=[])), []  # type: ignore[arg-type]
    for step in range(12):
        trainer: Any = SimpleNamespace(global_step=step, log_every_n_steps=every, strategy=None)
        curves.norm = None
        curves.on_before_optimizer_step(trainer, network, optimizer)
        if curves.norm is not None:
            found.append(step)
    assert found == expected
