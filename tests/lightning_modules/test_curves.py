"""Which steps are logged, one at a time and where several are taken together."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.callbacks.curves import Curves


@pytest.mark.parametrize(
    ("together", "every", "seen"),
    [
        (1, 3, [0, 3, 6, 9]),
        (3, 3, [2, 5, 8, 11]),  # the last of each group stands for it
        (3, 5, [2, 5, 11]),  # of steps 0, 5 and 10
        (4, 0, []),
    ],
)
def test_the_steps_that_are_logged(together: int, every: int, seen: list[int]) -> None:
    network: Any = nn.Linear(2, 1)
    network(torch.ones(1, 2)).sum().backward()
    optimizer = torch.optim.SGD([{"name": "head", "params": list(network.parameters())}], lr=0.1)
    curves, found = Curves(SimpleNamespace(rows=[])), []  # type: ignore[arg-type]
    for step in range(together - 1, 12, together):
        trainer: Any = SimpleNamespace(
            global_step=step, log_every_n_steps=every, datamodule=SimpleNamespace(steps_at_once=together), strategy=None
        )
        curves.norm = None
        curves.on_before_optimizer_step(trainer, network, optimizer)
        if curves.norm is not None:
            found.append(step)
    assert found == seen
