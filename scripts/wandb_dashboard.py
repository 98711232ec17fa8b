"""Make a project's dashboard at W&B: `python scripts/wandb_dashboard.py ENTITY/PROJECT`; `--print` only shows its parts."""

import argparse
import importlib.util
import json
import sys

from engine.processes.outcome import report_failure
from run_folders.errors import UserError, brief


class DashboardError(UserError, ValueError):
    """The dashboard cannot be made."""


def main() -> int:
    """Save workspace and report and print their addresses, or print the definition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "project",
        metavar="ENTITY/PROJECT",
        help="where the runs are; the entity is a user or a team",
    )
    parser.add_argument(
        "--monitor",
        default="val/acc",
        metavar="METRIC",
        help="that chose the best epoch (default: val/acc)",
    )
    parser.add_argument(
        "--parameters",
        default="model.lr,model.backbone_lr,seed",
        metavar="KEYS",
        help="of the config, held against the metric",
    )
    parser.add_argument(
        "--print",
        action="store_true",
        help="print the definition as JSON; needs neither account nor network",
    )
    arguments = parser.parse_args()
    with report_failure() as outcome:
        _make(arguments)
    return outcome.code


def _make(arguments: argparse.Namespace) -> None:
    entity, _, project = arguments.project.partition("/")
    if not entity or not project or "/" in project:
        msg = f"received {arguments.project!r}; ENTITY/PROJECT is needed, such as my-team/thaw"
        raise DashboardError(msg)
    if importlib.util.find_spec("wandb_workspaces") is None:
        msg = "a dashboard as code needs the package wandb-workspaces, which is not installed: pip install -e '.[dashboards]'"
        raise DashboardError(msg)
    from reports.wandb_dashboard import Dashboard

    dashboard = Dashboard(
        entity, project, arguments.monitor, tuple(filter(None, arguments.parameters.split(",")))
    )
    if arguments.print:
        print(json.dumps(dashboard.definition(), indent=2))
        return
    _log_in()
    for made in (dashboard.workspace(), dashboard.report()):
        try:
            made.save()
        except Exception as error:  # whatever the service says
            msg = f"W&B did not take the {type(made).__name__.lower()}: {brief(error)}"
            raise DashboardError(msg) from error
        print(made.url)


def _log_in() -> None:
    """Raise `DashboardError` where there is no key; W&B itself would ask for one."""
    import wandb
    from wandb.sdk.lib import wbauth

    host = wandb.setup().settings.base_url
    if wbauth.authenticate_session(host=host, source="thaw", prompt=False) is None:
        msg = "no key of W&B was found; set WANDB_API_KEY or run wandb login, or see the definition with --print"
        raise DashboardError(msg)


if __name__ == "__main__":
    sys.exit(main())
