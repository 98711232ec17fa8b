"""`depth=ladder`: train the head, the last block, the last two, ... until it no longer helps."""

import copy
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.table import Table

from engine.depth.rungs import ALL, HEAD, rung_names, set_rung
from engine.depth.study import DEPTH, DepthStudy, StudyRequest, write_study_metrics
from engine.depth.testing import test_once
from engine.feature_cache.filling import fill_together
from engine.feature_cache.planning import plan_cache
from engine.feature_cache.store import StoreError
from engine.processes.terminal import console
from engine.results import count_parameters
from lightning_modules.base import Task
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.networks.backbones.features import FEATURES
from lightning_modules.networks.freezing.blocks import blocks_of
from lightning_modules.networks.freezing.plan import FreezingPlan
from reports.depth.rungs import Correct, TrainedRung, compare_rungs, read_rung
from run_folders.run_folder import RunFolder
from run_folders.signatures.checking import check_arguments

log = logging.getLogger(__name__)


@dataclass
class _Ladder:
    """What was climbed so far.

    Attributes:
        rungs: The trained rungs, from the head on, with what they predict correctly.
        rows: The same rungs, compared.
        chosen: Index of the chosen rung; see `reports.depth.rungs.compare_rungs`.
        stopped: Why no further rung was trained; empty while it goes on.
        features: Seconds of the pass that computed the features of all rungs.
    """

    rungs: list[tuple[TrainedRung, Correct]] = field(default_factory=list)
    rows: list[TrainedRung] = field(default_factory=list)
    chosen: int = 0
    stopped: str = ""
    features: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds spent on features and on all rungs."""
        return self.features + sum(row.seconds for row in self.rows)


class DepthLadder(DepthStudy):
    """Trains ever more of the backbone, each rung as a run of its own.

    It stops at the first rung that is not better than the one below, by McNemar's exact test on
    validation. This is gradual unfreezing (Howard & Ruder 2018, arXiv 1801.06146) between runs
    instead of within one.
    """

    def __init__(
        self,
        rung: str | int | None = None,
        warm_start: bool = False,  # noqa: FBT001, FBT002 - named in the config
        significance: Annotated[float, Interval(gt=0, lt=1)] = 0.05,
        seconds: Annotated[float, Gt(0)] | None = None,
        parameters: Annotated[int, Ge(1)] | None = None,
        every_rung: bool = False,  # noqa: FBT001, FBT002 - named in the config
    ) -> None:
        """Store the settings.

        Args:
            rung: Train only this rung, as a job of a sweep: `head`, a number of blocks, or `all`.
                The job is then an ordinary run. None climbs the ladder.
            warm_start: Whether a rung starts from the backbone of the best rung so far.
            significance: A rung is better if the p-value of the paired test is below it.
            seconds: No rung is started after so many seconds of features and training; None for no
                limit.
            parameters: Rungs with more trainable parameters are left out; None for no limit.
            every_rung: Whether to go on after a rung that is not better.
        """
        check_arguments(DepthLadder, locals())
        self.warm_start, self.significance = warm_start, significance
        self.seconds, self.parameters, self.every_rung = seconds, parameters, every_rung

    def run(self, request: StudyRequest) -> float:
        """Climb the ladder, write depth.json and metrics.json, and test the chosen rung once."""
        encoder = request.encoder
        if request.cfg.logger:
            log.info("depth: nothing is sent to loggers; each rung has its report")
        rungs = rung_names(len(blocks_of(encoder.model, encoder.record())))
        ladder = _Ladder()
        if not self.warm_start:
            request.folder.write_status("running", "features")
            before = request.folder.read_json(DEPTH).get("seconds", {}).get("features", 0.0)
            ladder.features = before + self._computed_together(request, rungs)
        for rung in rungs:
            ladder.stopped = self._spent(request, rung, ladder)
            if ladder.stopped:
                break
            self._climb(request, rung, ladder)
            if ladder.stopped:
                break
        ladder.stopped = ladder.stopped or "every rung was trained"
        chosen = ladder.rows[ladder.chosen]
        self._write(request, ladder)
        tested = test_once(RunFolder(request.folder.path / chosen.folder))
        test = {name: value for name, value in tested.items() if isinstance(value, int | float)}
        self._write(request, ladder, test)
        fit = ladder.seconds - ladder.features
        write_study_metrics(request, {"acc": chosen.acc}, features=ladder.features, fit=fit)
        _print(ladder, test)
        return chosen.acc

    def _computed_together(self, request: StudyRequest, rungs: Sequence[str]) -> float:
        """Compute the features that the rungs cache in one pass, and return its seconds.

        A rung that is never trained then has features in the cache for nothing, which costs disk
        but no time. If all do not fit there, each rung computes its own.
        """
        plans = []
        for rung in rungs[:-1]:  # the last one trains all layers
            with _freezing(request.objects.task, rung):
                count = count_parameters(request.objects.task)["trainable"]
                if self.parameters is not None and count > self.parameters:
                    break
                config = self._config(request, rung, _Ladder())
                plans.append(plan_cache(config, request.objects, None))
        try:
            return fill_together(plans, request.objects)
        except StoreError as error:
            log.warning("the features of all rungs are not computed together: %s", error)
            return 0.0

    def _spent(self, request: StudyRequest, rung: str, ladder: _Ladder) -> str:
        """Return which budget forbids training a rung; empty if none does."""
        if not ladder.rows:
            return ""
        if self.seconds is not None and ladder.seconds >= self.seconds:
            return f"the budget of depth.seconds={self.seconds:g} is spent"
        if self.parameters is None:
            return ""
        with _freezing(request.objects.task, rung):
            count = count_parameters(request.objects.task)["trainable"]
        if count > self.parameters:
            return f"rung {rung} trains {count:,} parameters, above depth.parameters"
        return ""

    def _climb(self, request: StudyRequest, rung: str, ladder: _Ladder) -> None:
        """Train a rung unless it was trained before, compare it, and decide whether to go on."""
        folder = RunFolder(request.folder.rungs / f"{len(ladder.rows)}_{rung}")
        if folder.state != "finished":
            _train(request, self._config(request, rung, ladder), folder)
        ladder.rungs.append(read_rung(rung, folder.path, request.folder.path))
        ladder.rows, ladder.chosen = compare_rungs(ladder.rungs, self.significance)
        row = ladder.rows[-1]
        if not row.better and not self.every_rung:
            ladder.stopped = why_stopped(row, ladder.rows[ladder.chosen])
        self._write(request, ladder)

    def _config(self, request: StudyRequest, rung: str, ladder: _Ladder) -> DictConfig:
        """Return the config of the run of a rung."""
        cfg = copy.deepcopy(request.cfg)
        set_rung(cfg, rung)
        with open_dict(cfg):
            # Loggers and the cost are those of the whole ladder.
            cfg.ckpt_path, cfg.estimate, cfg.logger = None, False, {}
            if self.warm_start and ladder.rows:
                below = str(request.folder.path / ladder.rows[ladder.chosen].folder)
                cfg.model.backbone = below
                if "weights" in cfg.model:
                    cfg.model.weights = None
                if isinstance(OmegaConf.select(cfg, "data.tokenizer"), str):
                    cfg.data.tokenizer = below
        return cfg

    def _write(
        self, request: StudyRequest, ladder: _Ladder, test: dict[str, Any] | None = None
    ) -> None:
        """Write depth.json; an interrupted ladder has the rungs that were trained."""
        chosen = ladder.rows[ladder.chosen]
        counts = {split: len(data) for split, data in request.objects.datamodule.splits.items()}
        record = {
            "study": "ladder",
            "samples": {split: counts[split] for split in ("train", "val")},
            "seconds": {
                "features": round(ladder.features, 3),
                "rungs": round(ladder.seconds - ladder.features, 3),
            },
            "significance": self.significance,
            "warm_start": self.warm_start,
            "rungs": [asdict(row) for row in ladder.rows],
            "chosen": chosen.name,
            "stopped": ladder.stopped,
            "test": test,
        }
        request.folder.write_json(DEPTH, record)


def why_stopped(row: TrainedRung, below: TrainedRung) -> str:
    """Return why a ladder stops at a rung, and whether more samples might have shown more."""
    why = f"rung {row.name} is not better than rung {row.compared_with}"
    gained = row.acc - below.acc
    if gained <= 0:
        return why
    needed = "no difference" if row.detectable is None else f"{row.detectable:.4f} or more"
    return (
        f"{why}: it gains {gained:.4f}, and the test finds {needed}; depth.every_rung=true trains "
        f"all rungs"
    )


@contextmanager
def _freezing(task: Task, rung: str) -> Iterator[None]:
    """Give a task the freezing plan of a rung for a while."""
    before = task.freezing
    plan = FreezingPlan({FEATURES: None})
    if rung == ALL:
        plan = FreezingPlan()
    elif rung != HEAD:
        plan = LayerUnfreezing(last_blocks=int(rung)).plan(task.network)
    task.set_freezing_plan(plan)
    try:
        yield
    finally:
        task.set_freezing_plan(before)


def _train(request: StudyRequest, cfg: DictConfig, folder: RunFolder) -> None:
    """Train a rung in its folder; a rung that was interrupted goes on."""
    resumes = folder.last_checkpoint.is_file() and folder.config.is_file()
    if not resumes and folder.path.exists():
        shutil.rmtree(folder.path)  # an attempt without a complete epoch
    with folder.locked():
        checkpoint = "last" if resumes else None
        folder.begin(checkpoint)
        log.info("rung %s", folder.path.name)
        request.train(cfg, folder, checkpoint)


def _print(ladder: _Ladder, test: dict[str, Any]) -> None:
    """Print the rungs, and the chosen one."""
    shown = console(width=None if sys.stdout.isatty() else 120)
    table = Table("rung", "train from", "trainable", "seconds", "val acc", "95 % interval", "p")
    for at, row in enumerate(ladder.rows):
        low, high = row.interval
        table.add_row(
            f"{row.name}{' (chosen)' * (at == ladder.chosen)}",
            row.start_layer or "-",
            f"{row.trainable:,}",
            f"{row.seconds:.1f}",
            f"{row.acc:.4f}",
            f"{low:.4f} to {high:.4f}",
            "-" if row.p is None else f"{row.p:.2g} against {row.compared_with}",
        )
    shown.print(table)
    chosen = ladder.rows[ladder.chosen]
    shown.print(f"stopped: {ladder.stopped}", highlight=False)
    shown.print(
        f"chosen rung: {chosen.name}; test acc {test['acc']:.4f} (n = {test['n']})", highlight=False
    )
