"""The kind of task `regression`: one number for each sample. Reports read it without torch."""

from run_folders.kinds import Kind
from run_folders.metrics import LOSS, Metric, Place

_SHOWN: tuple[Place, ...] = ("console", "curves", "sweep", "dashboard")
# Errors are in the unit of the labels, whose size is not known here: four significant digits.
_DIGITS = ".4g"

REGRESSION = (
    Metric("mae", "MAE", "min", ("log", "comparison", *_SHOWN), _DIGITS),
    Metric("rmse", "RMSE", "min", _SHOWN, _DIGITS),
    Metric("r2", "R²", "max", _SHOWN),
    LOSS,
)

KINDS = {
    "regression": Kind(
        REGRESSION,
        headline="mae",
        results="thaw_birds.regression_results.RegressionResults",
        page="thaw_birds.regression_page.RegressionPage",
    )
}
