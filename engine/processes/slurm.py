"""What a job does when SLURM takes its machine away: it asks to be started again, and then finds its run folder."""

import logging
import os
import signal
import subprocess

from engine.processes.ranks import is_first
from engine.processes.signals import InterruptedRunError

log = logging.getLogger(__name__)

_ANSWER = 60  # seconds that scontrol has


def requeue_after(error: InterruptedRunError) -> None:
    """Put the job back into the queue where SIGUSR1 stopped it, which `#SBATCH --signal=USR1@120` sends before the end.

    Args:
        error: What stopped the run.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if (
        error.signum != signal.SIGUSR1
        or job is None
        or "SLURM_STEP_ID" not in os.environ
        or not is_first()
    ):
        return
    try:
        subprocess.run(  # noqa: S603
            ["scontrol", "requeue", job],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
            timeout=_ANSWER,
        )
    except (OSError, subprocess.SubprocessError) as failure:
        said = str(getattr(failure, "stderr", None) or failure).strip()
        log.error(
            "scontrol could not requeue job %s: %s; submit it again, with ckpt_path=last and hydra.run.dir=RUN",
            job,
            said,
        )
    else:
        log.warning("job %s is in the queue again and will go on by itself", job)
