"""Test a finished run that ran with `test=false`, and record it like a test of its own."""

from typing import Any

from engine.evaluation import open_checkpoint, test_checkpoint
from engine.kinds.base import results_of
from engine.results import write_parquet
from engine.trained_run import TrainedRun, data_from_checkpoint
from reports.page import write_report
from run_folders.run_folder import RunFolder


def test_once(folder: RunFolder) -> dict[str, Any]:
    """Test the best checkpoint of a run, unless it was tested, and return the metrics.

    Predictions, pictures, metrics.json, provenance.json and the report are written as if the run
    had been tested at its end.

    Args:
        folder: The run folder.
    """
    metrics = folder.read_json("metrics.json")
    if metrics.get("test"):
        recorded: dict[str, Any] = metrics["test"]
        return recorded
    cfg, checkpoint = open_checkpoint(folder, None)
    datamodule = data_from_checkpoint(cfg, checkpoint, folder.best_checkpoint)
    task, _, seconds = test_checkpoint(cfg, folder, checkpoint, datamodule)
    results, result = results_of(task.kind), task.results["test"]
    write_parquet(results.predictions(result, datamodule, "test"), folder.predictions)
    run = TrainedRun(cfg, task.eval(), datamodule.state_dict(), task.device)
    write_parquet(results.pictures(result, datamodule, run), folder.test_images)
    origin = folder.read_json("provenance.json")
    data = {**origin["data"], "test": datamodule.describe()["test"]}
    folder.write_json("provenance.json", {**origin, "data": data})
    test = results.record(result, datamodule)
    times = {**metrics["seconds"], "test": round(seconds, 3)}
    folder.write_json("metrics.json", {**metrics, "test": test, "seconds": times})
    write_report(folder.path)
    return test
