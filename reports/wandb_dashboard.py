"""The dashboard of a W&B project as code: a workspace and a report of its runs.

The metric names are those that every run logs, see `lightning_modules.loggers`. The tests compare
them with the names that real runs logged.
"""

from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from reports.kinds.base import page_of
from run_folders.kinds import shown_in

_STEPS = ("step/loss", "step/grad_norm", "step/samples_per_second")
_CONFUSION = {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"}


@dataclass(frozen=True)
class Dashboard:
    """The workspace and the report of a W&B project.

    Attributes:
        entity, project: The W&B project; the entity is a user or a team.
        kind: The kind of task; see `run_folders.kinds`.
        monitor: The metric that chooses the best epoch, such as `val/acc` or `val/miou`.
        parameters: Config keys whose effect on the monitored metric is shown.
    """

    entity: str
    project: str
    kind: str
    monitor: str
    parameters: tuple[str, ...]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics of a stage, without the stage."""
        return [metric.name for metric in shown_in("dashboard", self.kind)]

    def curves(self) -> list[Any]:
        """Return line plots over epochs: metrics of training and validation, and learning rates."""
        pairs = [
            wr.LinePlot(title=metric, x="epoch", y=[f"train/{metric}", f"val/{metric}"])
            for metric in self.metrics
        ]
        return [*pairs, wr.LinePlot(title="learning rates", x="epoch", metric_regex="^lr/.*", y=[])]

    def steps(self) -> list[Any]:
        """Return line plots over steps: loss, gradient norm and samples per second."""
        return [
            wr.LinePlot(title=key.removeprefix("step/"), x="trainer/global_step", y=[key])
            for key in _STEPS
        ]

    def results(self) -> list[Any]:
        """Return bar plots that compare the test metrics of the runs."""
        return [
            wr.BarPlot(title=f"test {metric}", metrics=[f"test/{metric}"])
            for metric in self.metrics
        ]

    def samples(self) -> list[Any]:
        """Return the tables of classes and of test samples, the pictures, the confusion matrix.

        The samples are the mistakes, or the images of segmentation.
        """
        page = page_of(self.kind)
        chart = wr.CustomChart(
            query={"summaryTable": {"tableKey": "test/confusion_table"}},
            chart_name="wandb/confusion_matrix/v1",
            chart_fields=_CONFUSION,
            chart_strings={"title": "confusion matrix"},
        )
        tables = [wr.WeavePanelSummaryTable(table_name=name) for name in page.tables]
        pictures = [wr.MediaBrowser(title="pictures", media_keys=["test/pictures"])]
        return [*([chart] if page.has_confusion else []), *tables, *pictures]

    def search(self) -> list[Any]:
        """Return panels that show the effect of the parameters on the monitored metric."""
        best = f"best/{self.monitor}"
        columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key)) for key in self.parameters]
        return [
            wr.ParameterImportancePlot(with_respect_to=best),
            wr.ParallelCoordinatesPlot(
                columns=[*columns, wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(best))]
            ),
            wr.ScalarChart(title=best, metric=wr.SummaryMetric(best), groupby_aggfunc="mean"),
        ]

    def workspace(self) -> ws.Workspace:
        """Return the workspace: runs grouped by sweep, with a section for each kind of panel."""
        parts = {
            "Curves": self.curves(),
            "Steps": self.steps(),
            "Test": self.results(),
            "Samples": self.samples(),
        }
        return ws.Workspace(
            entity=self.entity,
            project=self.project,
            name="Thaw",
            sections=[
                ws.Section(name=name, panels=panels, is_open=True)
                for name, panels in {**parts, "Search": self.search()}.items()
            ],
            settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=20),
            runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group")]),
        )

    def report(self) -> wr.Report:
        """Return the report: curves by group, table of runs, confusion matrices, parameter effects.

        The sets of runs name no project, so they use the report's own. A named project would be
        requested from W&B immediately.
        """
        columns = [f"summary:test/{metric}" for metric in self.metrics]
        columns = [
            "run:displayName",
            "run:state",
            *columns,
            f"summary:best/{self.monitor}",
            "summary:best/epoch",
        ]
        columns += [
            f"config:{key.replace('.', '.value.', 1)}" if "." in key else f"config:{key}.value"
            for key in self.parameters
        ]
        grouped = wr.Runset(name="runs by group", groupby=["Group"])
        every = wr.Runset(name="runs", visible_columns=columns, column_order=columns)
        return wr.Report(
            entity=self.entity,
            project=self.project,
            title=f"{self.project}: curves, runs and mistakes",
            description=(
                f"The best epoch is chosen by {self.monitor}; "
                "test metrics are those of the weights of the best epoch."
            ),
            blocks=[
                wr.TableOfContents(),
                wr.H1("Curves by group"),
                wr.PanelGrid(runsets=[grouped], panels=[*self.curves(), *self.steps()]),
                wr.H1("Runs"),
                wr.PanelGrid(
                    runsets=[every], panels=[*self.results(), wr.RunComparer(diff_only="split")]
                ),
                wr.H1("Samples"),
                wr.PanelGrid(runsets=[wr.Runset(name="runs")], panels=self.samples()),
                wr.H1("Parameters"),
                wr.PanelGrid(runsets=[wr.Runset(name="runs")], panels=self.search()),
            ],
            width="fluid",
        )

    def definition(self) -> dict[str, Any]:
        """Return workspace and report as the plain values that are sent to W&B."""
        # The public API can only save them, so the values come from a private method.
        workspace = self.workspace()._to_model()  # noqa: SLF001
        report = self.report()._to_model()  # noqa: SLF001
        parts = {"workspace": workspace, "report": report}
        return {
            name: part.model_dump(mode="json", by_alias=True, exclude_none=True)
            for name, part in parts.items()
        }
