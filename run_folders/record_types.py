"""The content of the JSON files in run folders and sweep folders, and of history.csv.

`RunFolder` checks it. Keys that a type does not have are allowed. Those that version
0.1 or keras_bert does not write are not required.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired, TypedDict

from run_folders.value_types import LARGEST, OR_EMPTY

_MOST_DIGITS = 15  # of a whole number
_SHOWN = 40  # characters of a wrong cell in a message


class Status(TypedDict):
    """status.json."""

    state: str
    stage: str
    error: NotRequired[str | None]
    started: NotRequired[str]
    ended: NotRequired[str | None]


class Counts(TypedDict):
    """Numbers of parameters."""

    total: int
    trainable: int


class Stage(TypedDict):
    """The metrics of `val` or `test`; those of the kind of task are further keys."""

    n: int


class Best(TypedDict):
    """The epoch of the best checkpoint."""

    epoch: int
    monitor: str
    score: float


class Seconds(TypedDict):
    """Durations in seconds."""

    fit: float
    test: float | None
    epoch_mean: float | None
    features: NotRequired[float | None]
    total: NotRequired[float]
    steps: NotRequired[list[float]]


class Memory(TypedDict):
    """Peaks of memory and the size of checkpoints in bytes."""

    host: int
    device: int | None
    checkpoints: int


class Estimate(TypedDict):
    """What was measured before a run: seconds and bytes; see `engine.cost.estimate.Cost`."""

    epoch: float
    total: float
    host: int
    device: int | None
    cache: int
    checkpoints: int


class Metrics(TypedDict):
    """metrics.json."""

    kind: NotRequired[str]
    val: Annotated[Stage, OR_EMPTY]
    test: NotRequired[Annotated[Stage, OR_EMPTY]]
    best: Annotated[Best, OR_EMPTY]
    loss: NotRequired[str]
    parameters: Counts
    seconds: Seconds
    bytes: NotRequired[Memory]


class PlanRow(TypedDict):
    """A module in plan.json."""

    module: str
    depth: int
    parameters: int
    trainable: int
    mode: str
    lr: float | None
    first_epoch: int | None


class PlanStage(TypedDict):
    """A stage of unfreezing in plan.json."""

    epoch: int
    start_layer: str | None
    trainable: int
    lowest_lr: float | None
    highest_lr: float | None


class Features(TypedDict):
    """The feature cache in plan.json."""

    stored: NotRequired[str | None]
    reason: NotRequired[str]


class LargestClass(TypedDict):
    """The class of train with the most samples, in plan.json and provenance.json."""

    name: str
    share: float


class Plan(TypedDict):
    """plan.json."""

    rows: list[PlanRow]
    parameters: Counts
    stages: list[PlanStage]
    batches_per_epoch: int
    precision: str
    device: str
    padding_share: float | None
    truncated: NotRequired[dict[str, int]]
    max_length: NotRequired[int | None]
    features: NotRequired[Features]
    samples: NotRequired[dict[str, int]]
    formats: NotRequired[dict[str, str]]
    backbone: NotRequired[str | None]
    group_column: NotRequired[str | None]
    groups: NotRequired[dict[str, int]]
    largest_class: NotRequired[LargestClass | None]
    max_epochs: NotRequired[float | None]  # -1 for no limit, as for the steps
    max_steps: NotRequired[float | None]
    overfit_batches: NotRequired[float]
    accumulate_grad_batches: NotRequired[int]
    ended: NotRequired[str]
    estimate: NotRequired[Estimate]


class ProbedState(TypedDict):
    """A probed state in depth.json; see `engine.depth.advice.Probed`."""

    after: str
    start_layer: str | None
    pooling: str
    width: int
    hits: int
    acc: float
    interval: list[float]
    loss: float
    penalty: float
    p: float
    best: bool


class Advice(TypedDict):
    """The advice in depth.json."""

    start_layer: str | None
    after: str
    pooling: str
    why: str


class TrainedRung(TypedDict):
    """A rung in depth.json; see `reports.depth.rungs.TrainedRung`."""

    name: str
    start_layer: str | None
    folder: str
    trainable: int
    seconds: float
    hits: int
    n: int
    acc: float
    interval: list[float]
    compared_with: str | None
    p: float | None
    detectable: float | None
    better: bool


class LabelledPart(TypedDict):
    """Heads on a part of train in depth.json, one for each draw."""

    n: int
    acc: list[float]


class LabelLaw(TypedDict):
    """The power law of the accuracy in the number of labels, in depth.json."""

    fitted_to: int
    largest_error: float
    limit: float
    scale: float
    exponent: float


class MoreLabels(TypedDict):
    """What the law predicts for more labels, in depth.json."""

    n: int
    acc: float
    low: float
    high: float


class Depth(TypedDict):
    """depth.json: the answer of a study to how deep to thaw."""

    study: str
    samples: dict[str, int]
    seconds: dict[str, float]
    significance: NotRequired[float]
    states: NotRequired[list[ProbedState]]
    advice: NotRequired[Advice]
    rungs: NotRequired[list[TrainedRung]]
    chosen: NotRequired[str]
    stopped: NotRequired[str]
    warm_start: NotRequired[bool]
    test: NotRequired[dict[str, float] | None]
    pooling: NotRequired[str]
    parts: NotRequired[list[LabelledPart]]
    law: NotRequired[LabelLaw]
    twice: NotRequired[MoreLabels]


class Git(TypedDict):
    """The commit in provenance.json."""

    commit: str | None
    dirty: bool | None


class Hardware(TypedDict):
    """The machine in provenance.json."""

    cpu: str
    threads: int | None
    memory_gib: float
    gpus: list[str]


class Split(TypedDict):
    """A split in provenance.json."""

    rows: int
    sha256: str
    skipped_rows: NotRequired[int]
    truncated: NotRequired[int]
    max_length: NotRequired[int]
    tokens: NotRequired[int]
    unknown_tokens: NotRequired[int]
    padded_tokens: NotRequired[int]
    padding_share: NotRequired[float]
    group_column: NotRequired[str]
    groups: NotRequired[int]
    largest_class: NotRequired[LargestClass]


class Overlap(TypedDict):
    """Samples in two splits, in provenance.json."""

    splits: list[str]
    count: int
    what: str
    examples: list[str]


class Data(TypedDict):
    """The data in provenance.json."""

    train: NotRequired[Split]
    val: NotRequired[Split]
    test: NotRequired[Split]
    overlaps: NotRequired[list[Overlap]]


class Backbone(TypedDict):
    """The run that a backbone is from, in provenance.json."""

    run: str
    epoch: int
    checkpoint_sha256: str
    data: dict[str, dict[str, str | int | None]]
    backbone: NotRequired["Backbone"]  # that of the run itself


class Provenance(TypedDict):
    """provenance.json."""

    git: Git
    versions: dict[str, str]
    hardware: Hardware
    seed: int
    data: Data
    backbone: NotRequired[Backbone]
    resumed: NotRequired[list[dict[str, Any]]]


class Overrides(TypedDict):
    """overrides.json of a sweep's job."""

    words: list[str]
    number: NotRequired[int]


class SweepRecord(TypedDict):
    """sweep.json. A sweep of version 0.1 may lack the id."""

    words: list[str]
    flags: NotRequired[list[str]]
    id: NotRequired[str]
    started: NotRequired[str]
    ended: NotRequired[str | None]
    jobs: NotRequired[list[dict[str, Any]]]


class Trial(TypedDict):
    """A trial of a search."""

    number: int
    state: str
    params: dict[str, str | float | bool | None]
    values: list[float] | None
    reported: dict[str, float]


class SearchRecord(TypedDict):
    """search.json."""

    sampler: str
    pruner: str
    n_trials: int
    objectives: dict[str, str]
    log: list[str]
    best: list[int]
    importance: dict[str, dict[str, float]]
    trials: list[Trial]


RECORD_TYPES: Mapping[str, Any] = {
    "status.json": Status,
    "metrics.json": Metrics,
    "plan.json": Plan,
    "provenance.json": Provenance,
    "depth.json": Depth,
    "overrides.json": Overrides,
    "sweep.json": SweepRecord,
    "search.json": SearchRecord,
    "loggers.json": dict[str, str | int | None],
}


def history_fault(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return why a table is no history, or an empty string.

    Args:
        header: The names of the columns.
        lines: The cells of each further line.
    """
    if len(set(header)) < len(header) or "epoch" not in header:
        return "its header has no column epoch, or a column twice"
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            return f"line {number} has {len(line)} cells, and the header {len(header)}"
        for name, cell in zip(header, line, strict=True):
            needed = _needed(name, cell)
            if needed:
                return f"line {number}: {name} is {cell[:_SHOWN]!r}, where {needed} is needed"
    return ""


def _needed(name: str, cell: str) -> str:
    """Return what is needed in place of a cell of the history, or an empty string."""
    if not cell and name != "epoch":  # the metric of an epoch without validation
        return ""
    if name == "epoch" or name.endswith("/n"):
        whole = cell.isascii() and cell.isdecimal() and len(cell) <= _MOST_DIGITS
        return "" if whole else "a whole number"
    try:
        # NaN is allowed.
        return "a smaller number" if abs(float(cell)) > LARGEST else ""
    except ValueError:
        return "a number"
