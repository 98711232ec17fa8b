"""The record of a sweep, and the message about its jobs."""

from run_folders.sweep import failures
from run_folders.sweep_job import Job


def test_names_of_jobs_and_values_cannot_add_lines() -> None:
    job = Job("0\nerror: x", 0, "failed", {"name": "a\nerror: all is well"}, "val/acc", {}, "bad")
    assert failures([job]).splitlines() == [
        "1 of 1 jobs failed",
        r"  job 0\nerror: x (name=a\nerror: all is well): bad",
    ]
