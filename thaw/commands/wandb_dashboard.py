"""Create a project's dashboard at W&B.

`--print` prints the dashboard's definition and creates nothing.
"""

import argparse
import importlib.util
import json
from collections.abc import Sequence

from engine.processes.outcome import report_failure
from run_folders.errors import UserError, brief
from run_folders.kinds import kind_named, kind_of_metric


class DashboardError(UserError, ValueError):
    """The dashboard cannot be created."""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Save the workspace and the report and print their URLs, or print the definition."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument(
        "project",
        metavar="ENTITY/PROJECT",
        help="the project of the runs; the entity is a user or a team",
    )
    parser.add_argument(
        "--kind",
        help="the kind of task of the runs (default: the first with the metric of --monitor)",
    )
    parser.add_argument(
        "--monitor",
        metavar="METRIC",
        help="the metric that selects the best epoch (default: that of the kind, such as val/acc)",
    )
    parser.add_argument(
        "--parameters",
        default="model.lr,model.backbone_lr,seed",
        metavar="KEYS",
        help="keys of the config, separated by commas, that are plotted against the metric",
    )
    parser.add_argument(
        "--print",
        action="store_true",
        help="print the definition as JSON, without account or network",
    )
    options = parser.parse_args(arguments)
    with report_failure() as outcome:
        _make(options)
    return outcome.code


def _make(options: argparse.Namespace) -> None:
    entity, _, project = options.project.partition("/")
    if not entity or not project or "/" in project:
        msg = f"received {options.project!r}; ENTITY/PROJECT is needed, such as my-team/thaw"
        raise DashboardError(msg)
    if importlib.util.find_spec("wandb_workspaces") is None:
        msg = (
            "the package wandb-workspaces is not installed; "
            "install the extra `dashboards`: pip install -e '.[dashboards]'"
        )
        raise DashboardError(msg)
    from reports.wandb_dashboard import Dashboard

    kind = options.kind or kind_of_metric(options.monitor or "val/acc")
    monitor = options.monitor or f"val/{kind_named(kind).headline}"
    parameters = tuple(filter(None, options.parameters.split(",")))
    dashboard = Dashboard(entity, project, kind, monitor, parameters)
    if options.print:
        print(json.dumps(dashboard.definition(), indent=2))
        return
    _log_in()
    for part in (dashboard.workspace(), dashboard.report()):
        try:
            part.save()
        except Exception as error:  # any error of the service
            msg = f"W&B did not accept the {type(part).__name__.lower()}: {brief(error)}"
            raise DashboardError(msg) from error
        print(part.url)


def _log_in() -> None:
    """Log in to W&B without asking for a key on the terminal.

    Raises:
        DashboardError: If there is no key.
    """
    import wandb
    from wandb.sdk.lib import wbauth

    host = wandb.setup().settings.base_url
    if wbauth.authenticate_session(host=host, source="thaw", prompt=False) is None:
        msg = (
            "no W&B API key was found; set WANDB_API_KEY, run wandb login, "
            "or print the definition with --print"
        )
        raise DashboardError(msg)
