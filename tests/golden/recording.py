"""Records the parameters, optimizer groups and first learning rates of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from lightning_modules.base import Task

STEPS = 20


class StopError(BaseException):
    """Enough steps were recorded. Not an `Exception`, so that nothing handles it."""


@contextmanager
def recorded_training(facts: dict[str, Any]) -> Iterator[None]:
    """Record the next run of this process, and stop it after `STEPS` optimizer steps.

    Args:
        facts: Gets `parameters`, {name: [shape, optimizer group]} of the network, and `lrs`,
            {group: learning rate of each step}. Without training there are no groups.
    """
    tasks: list[Task] = []
    groups: dict[str, str] = {}  # parameter -> optimizer group
    lrs: dict[str, list[float]] = {}
    set_freezing_plan = Task.set_freezing_plan

    def record_task(self: Task, *arguments: Any) -> None:
        tasks[:] = [self]
        set_freezing_plan(self, *arguments)

    def record_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
        names = {id(parameter): name for name, parameter in tasks[0].network.named_parameters()}
        for group in optimizer.param_groups:
            groups.update({names[id(parameter)]: group["name"] for parameter in group["params"]})
            lrs.setdefault(group["name"], []).append(group["lr"])
        if all(len(steps) == STEPS for steps in lrs.values()):
            raise StopError

    handle = register_optimizer_step_post_hook(record_step)
    Task.set_freezing_plan = record_task  # type: ignore[assignment,method-assign]
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
