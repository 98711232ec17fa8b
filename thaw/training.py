"""Training from Python."""

from thaw.run import Run


def train(*overrides: str) -> Run:
    """Train, test and report one configuration in this process, as `thaw train` does.

    Data and weights are found as on the command line: `data/`, `configs/` and `runs/` in the
    working directory. A log of the run is written to its folder.

    Args:
        overrides: Overrides as on the command line, for example `experiment=minilm_feature` or
            `trainer.max_epochs=3`.

    Returns:
        The finished run.

    Raises:
        UserError: If the run cannot start or fails for a reason that a user can mend. The message
            is one line. What a run that failed has written stays in its folder.

    Example:
        `thaw.train("trainer.max_epochs=2", "seed=2").metrics["test"]["acc"]`
    """
    from engine.launch import train as run_job  # imports Hydra

    return Run(run_job(overrides))
