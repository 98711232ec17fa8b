"""The plan of a run lists each module with its parameters and its first training epoch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import lightning
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from datamodules.inferring.findings import Finding
from lightning_modules.base import Task
from lightning_modules.networks.backbones.features import FEATURES
from lightning_modules.networks.dividing.counting import BlockCost
from run_folders.errors import shortened, truncation


@dataclass(frozen=True)
class PlanRow:
    """One module of the network.

    Attributes:
        module: Its name in the network.
        depth: 0 for `features` and `head`, 1 for their children, which are printed indented.
        parameters: Number of parameters.
        trainable: Number of parameters that train in some epoch.
        mode: train or eval in the first epoch.
        lr: Peak learning rate, the highest if layers differ; None if the module never trains.
        first_epoch: First epoch, from 0, in which a parameter trains; None if none ever does.
    """

    module: str
    depth: int
    parameters: int
    trainable: int
    mode: str
    lr: float | None
    first_epoch: int | None


@dataclass(frozen=True)
class Stage:
    """A stage of unfreezing.

    Attributes:
        epoch: Its first epoch, from 0.
        start_layer: The first layer of the backbone that trains; None if the head trains, perhaps
            with new parts.
        trainable: Number of parameters that train, including the head's.
        lowest_lr, highest_lr: Peak learning rates in the backbone, new parts included; None if only
            the head trains.
    """

    epoch: int
    start_layer: str | None
    trainable: int
    lowest_lr: float | None
    highest_lr: float | None


def make_plan(
    task: Task,
    trainer: lightning.Trainer,
    train_batches: int,
    data: dict[str, Any],
    backbone: str | None,
) -> dict[str, Any]:
    """Describe what a run would do.

    Args:
        task: The built task.
        trainer: The built trainer.
        train_batches: Batches per epoch; 0 if nothing is trained.
        data: The datamodule's description of its splits.
        backbone: The backbone and where its weights are from.

    Returns:
        Plain values for plan.json: rows, totals, stages of unfreezing, batches per epoch, limits of
        epochs and steps, precision, device, samples, share of padding, truncated texts,
        backbone, groups, largest class of train, tokens and multiplications of blocks.
    """
    costs: list[BlockCost] = getattr(task.features, "block_costs", list)()
    task.train()
    splits = {split: data[split] for split in ("train", "val", "test") if split in data}
    rows = [row for name in task.lrs for row in _rows(task, name)]
    top = [row for row in rows if row.depth == 0]
    nodes = f"{trainer.num_nodes} nodes of " if trainer.num_nodes > 1 else ""
    train = data.get("train", {})
    return {
        "backbone": backbone,
        "rows": [asdict(row) for row in rows],
        "blocks": [asdict(cost) for cost in costs],
        "parameters": {
            "total": sum(r.parameters for r in top),
            "trainable": sum(r.trainable for r in top),
        },
        "stages": [asdict(stage) for stage in _stages(task)],
        "batches_per_epoch": train_batches,
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "overfit_batches": trainer.overfit_batches,  # type: ignore[attr-defined]
        "precision": str(trainer.precision),
        "device": f"{nodes}{trainer.num_devices} x {trainer.strategy.root_device.type}",
        "samples": {split: facts["rows"] for split, facts in splits.items()},
        "formats": {
            split: facts["format"]
            for split, facts in data.items()
            if isinstance(facts, dict) and "format" in facts
        },
        "group_column": train.get("group_column"),
        "groups": {s: facts["groups"] for s, facts in splits.items() if "groups" in facts},
        "largest_class": train.get("largest_class"),
        "padding_share": train.get("padding_share"),
        "truncated": {
            split: facts["truncated"] for split, facts in splits.items() if "truncated" in facts
        },
        "max_length": next((facts.get("max_length") for facts in splits.values()), None),
    }


def _stages(task: Task) -> list[Stage]:
    """Return a stage for each epoch at which further parameters start to train."""
    sizes = {name: parameter.numel() for name, parameter in task.network.named_parameters()}
    plan, stages = task.freezing, []
    for epoch, layer in plan.stages.items():
        trained = [name for name in sizes if plan.trains(name, epoch)]
        lrs = [
            task.lrs[FEATURES] * plan.group(name)[1]
            for name in trained
            if name.startswith(f"{FEATURES}.")
        ]
        span = (min(lrs), max(lrs)) if lrs else (None, None)
        stages.append(Stage(epoch, layer, sum(sizes[name] for name in trained), *span))
    return stages


def _rows(task: Task, name: str) -> list[PlanRow]:
    module = task.network.get_submodule(name)
    rows = [_row(task, name, name, module, 0)]
    prefix, children = name, _children_with_parameters(module)
    # A module whose parameters are all in one child is a wrapper: list that child's children.
    if len(children) == 1 and not any(True for _ in module.parameters(recurse=False)):
        wrapped, inside = children[0]
        if _children_with_parameters(inside):
            prefix, children = f"{name}.{wrapped}", _children_with_parameters(inside)
    rows += [_row(task, name, f"{prefix}.{child_name}", child, 1) for child_name, child in children]
    return rows


def _children_with_parameters(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (name, child)
        for name, child in module.named_children()
        if any(True for _ in child.parameters())
    ]


def _row(task: Task, group: str, name: str, module: nn.Module, depth: int) -> PlanRow:
    parameters = [(f"{name}.{key}", p.numel()) for key, p in module.named_parameters()]
    starts = {key: task.freezing.first_epoch(key) for key, _ in parameters}
    trained = [(key, count) for key, count in parameters if starts[key] is not None]
    epochs = [start for start in starts.values() if start is not None]
    return PlanRow(
        module=name,
        depth=depth,
        parameters=sum(count for _, count in parameters),
        trainable=sum(count for _, count in trained),
        mode="train" if module.training else "eval",
        lr=max(task.lrs[group] * task.freezing.group(key)[1] for key, _ in trained)
        if trained
        else None,
        first_epoch=min(epochs) if epochs else None,
    )


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """Print the settings that were inferred from the data, as a table."""
    shown_findings = [finding for finding in findings if finding.why]
    if not shown_findings:
        return
    table = Table("inferred from the data", "value", "found in")
    for finding in shown_findings:
        value = finding.value
        text = shortened(map(str, value)) if isinstance(value, list) else str(value)
        text = "null" if value is None else text
        table.add_row(f"data.{finding.key}", escape(finding.shown or text), escape(finding.why))
    console.print(table)


def print_plan(plan: dict[str, Any], console: Console) -> None:
    """Print the plan as a table."""
    table = Table("module", "parameters", "trainable", "mode", "learning rate", "trains from epoch")
    for column in (1, 2, 4, 5):
        table.columns[column].justify = "right"
    for row in plan["rows"]:
        label = row["module"] if row["depth"] == 0 else "  " + row["module"].rpartition(".")[2]
        lr = "-" if row["lr"] is None else f"{row['lr']:g}"
        start = "never" if row["first_epoch"] is None else str(row["first_epoch"])
        table.add_row(
            label, f"{row['parameters']:,}", f"{row['trainable']:,}", row["mode"], lr, start
        )
    totals = plan["parameters"]
    table.add_section()
    table.add_row("total", f"{totals['total']:,}", f"{totals['trainable']:,}", "", "", "")
    console.print(table)
    if plan["stages"]:
        _print_stages(plan["stages"], console)
    if plan["blocks"]:
        _print_blocks(plan["blocks"], console)
    frozen = totals["total"] - totals["trainable"]
    console.print(f"never trained: {frozen:,} parameters", highlight=False)
    if plan["backbone"]:
        console.print(f"backbone: {plan['backbone']}", highlight=False, markup=False)
    _print_samples(plan, console)
    padding = plan["padding_share"]
    padding_text = "" if padding is None else f", {padding:.1%} of the tokens padding"
    by_format: dict[str, list[str]] = {}
    for split, found in plan["formats"].items():
        by_format.setdefault(found, []).append(split)
    for found, splits in by_format.items():
        console.print(f"read as: {found} ({', '.join(splits)})", highlight=False, markup=False)
    for split, count in plan["truncated"].items():
        if count:
            text = truncation(count, plan["samples"][split], plan["max_length"])
            console.print(f"{split}: {text} and cut off there", highlight=False)
    batches = f"batches per epoch: {plan['batches_per_epoch']:,}{padding_text}"
    training = f"{batches}; epochs: {_epochs(plan)}"
    console.print(training if plan["batches_per_epoch"] else "nothing is trained", highlight=False)
    if plan["overfit_batches"]:
        console.print(
            f"trainer.overfit_batches={plan['overfit_batches']}: every epoch trains on the same "
            f"batches, the first ones, and validates on as many",
            highlight=False,
        )
    console.print(f"precision: {plan['precision']}; device: {plan['device']}", highlight=False)


def _print_samples(plan: dict[str, Any], console: Console) -> None:
    """Print the samples and groups of each split, and the largest class."""
    samples = ", ".join(f"{split} {count:,}" for split, count in plan["samples"].items())
    largest = plan["largest_class"]
    if largest:
        samples += f"; largest class of train: {largest['name']} {largest['share']:.1%}"
    console.print(f"samples: {samples}", highlight=False, markup=False)
    if plan["groups"]:
        groups = ", ".join(f"{split} {count:,}" for split, count in plan["groups"].items())
        text = f"grouped by {plan['group_column']}: {groups} groups"
        console.print(text, highlight=False, markup=False)


def _epochs(plan: dict[str, Any]) -> str:
    """Return how long training lasts."""
    epochs, steps = plan["max_epochs"], plan["max_steps"]
    if epochs in (None, -1):
        return f"unlimited (ends by trainer.max_steps={steps})"
    return f"{epochs}, or {steps} steps" if steps > 0 else str(epochs)


def _print_blocks(blocks: list[dict[str, Any]], console: Console) -> None:
    """Print tokens and multiplications of each block."""
    table = Table("block", "tokens", "multiplications per image")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for block in blocks:
        table.add_row(block["block"], str(block["tokens"]), f"{block['multiplications']:,}")
    table.add_section()
    table.add_row("total", "", f"{sum(block['multiplications'] for block in blocks):,}")
    console.print(table)


def _print_stages(stages: list[dict[str, Any]], console: Console) -> None:
    table = Table("from epoch", "first trainable layer", "trainable", "backbone learning rates")
    for column in (0, 2, 3):
        table.columns[column].justify = "right"
    for stage in stages:
        low, high = stage["lowest_lr"], stage["highest_lr"]
        others = "trains" if low is None else "and new parts train"
        lrs = "-" if low is None else f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        table.add_row(
            str(stage["epoch"]),
            stage["start_layer"] or f"none: only the head {others}",
            f"{stage['trainable']:,}",
            lrs,
        )
    console.print(table)
