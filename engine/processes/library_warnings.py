"""Filters for messages of libraries about settings that are intended."""

import logging
import sys
import warnings

import transformers


def filter_known() -> None:
    """Silence only the messages listed here, and progress bars of libraries in log files."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # "Experiment ... not found. Creating it."
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)
    # Two lines for each retry; the error says that the Hub cannot be reached.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    # Batches of texts are slices of one tensor in memory, so worker processes only slow them down.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # If an epoch has few steps, `Curves` still logs the metrics of every epoch.
    warnings.filterwarnings("ignore", message=r".*smaller than the logging interval.*")
    # A resumed run writes to the folder that already has its checkpoints.
    warnings.filterwarnings("ignore", message=r".*exists and is not empty.*")
    # Lightning itself triggers this deprecation warning of torch.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # Metrics are reduced over all processes before they are logged.
    warnings.filterwarnings(
        "ignore", message=r".*sync_dist=True.* when logging on epoch level in distributed setting.*"
    )
    # The freezing plan sets frozen modules to eval mode; the printed plan shows it.
    warnings.filterwarnings(
        "ignore", message=r".*module\(s\) in eval mode at the start of training.*"
    )
    # data.max_pixels limits the size of images.
    warnings.filterwarnings("ignore", message=r"Image size .* exceeds limit")
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
