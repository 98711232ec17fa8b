"""What libraries say of settings that the config states on purpose is left out, and nothing else."""

import logging
import sys
import warnings

import transformers


def filter_known() -> None:
    """Silence the named messages, and bars of other libraries in log files."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(
        logging.ERROR
    )  # "Experiment ... not found. Creating it."
    # Batches of texts are slices of one tensor in memory: worker processes would only slow them
    # down.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=r".*exists and is not empty.*")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance\(treespec, LeafSpec\).*"
    )  # Lightning's own use of torch
    # Metrics are put together over all processes before they are logged.
    warnings.filterwarnings(
        "ignore", message=r".*sync_dist=True.* when logging on epoch level in distributed setting.*"
    )
    # Frozen modules are in eval mode because the freezing plan put them there; the printed plan
    # shows it.
    warnings.filterwarnings(
        "ignore", message=r".*module\(s\) in eval mode at the start of training.*"
    )
    warnings.filterwarnings(
        "ignore", message=r"Image size .* exceeds limit"
    )  # data.max_pixels says what is too large
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
