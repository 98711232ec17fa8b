"""Records what a run trains: names of parameters, optimizer groups, and the learning rates of its first steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from lightning_modules.base import Task

STEPS = 20


class StopError(BaseException):
    """Enough steps were seen. Not an `Exception`: nothing may go on after it."""


@contextmanager
def recorded_training(facts: dict[str, Any]) -> Iterator[None]:
    """Record the next run of this process, and stop it after `STEPS` optimizer steps.

    Args:
        facts: Gets `parameters`, {name: [shape, optimizer group]} of the network, and `lrs`,
            {group: learning rate of each step}. Where nothing trains there are no groups.
    """
    tasks: list[Task] = []
    groups: dict[str, str] = {}  # parameter -> optimizer group
    lrs: dict[str, list[float]] = {}
    set_freezing_plan = Task.set_freezing_plan

    def spy(self: Task, *arguments: Any) -> None:
        tasks[:] = [self]
        set_freezing_plan(self, *arguments)

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        names = {id(parameter): name for name, parameter in tasks[0].network.named_parameters()}
        for group in optimizer.param_groups:
            groups.update({names[id(parameter)]: group["name"] for parameter in group["params"]})
            lrs.setdefault(group["name"], []).append(group["lr"])
        if all(len(steps) == STEPS for steps in lrs.values()):
            raise StopError

    handle = register_optimizer_step_post_hook(look)
    Task.set_freezing_plan = spy  # type: ignore[assignment,method-assign]
    try:
        yield
    except StopError:
        pass
    finally:
        handle.remove()
        Task.set_freezing_plan = set_freezing_plan  # type: ignore[method-assign]
    named = tasks[0].network.named_parameters()
    facts["parameters"] = {
        name: [list(parameter.shape), groups.get(name)] for name, parameter in named
    }
    facts["lrs"] = lrs
