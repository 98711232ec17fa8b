"""Requeueing of a SLURM job before its time limit; the requeued job resumes in its run folder."""

import logging
import os
import signal
import subprocess

from engine.processes.ranks import is_rank_zero
from engine.processes.signals import InterruptedRunError

log = logging.getLogger(__name__)

_SCONTROL_TIMEOUT = 60  # seconds


def requeue_after(error: InterruptedRunError) -> None:
    """Requeue the SLURM job where SIGUSR1 stopped it.

    `#SBATCH --signal=USR1@120` makes SLURM send this signal 120 seconds before the time limit.

    Args:
        error: The error that stopped the run.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if (
        error.signum != signal.SIGUSR1
        or job is None
        or "SLURM_STEP_ID" not in os.environ
        or not is_rank_zero()
    ):
        return
    try:
        subprocess.run(  # noqa: S603
            ["scontrol", "requeue", job],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
            timeout=_SCONTROL_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError) as failure:
        reason = str(getattr(failure, "stderr", None) or failure).strip()
        log.error(
            "scontrol could not requeue job %s: %s; "
            "submit it again with ckpt_path=last and hydra.run.dir=RUN",
            job,
            reason,
        )
    else:
        log.warning("job %s was requeued and will resume by itself", job)
