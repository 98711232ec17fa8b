"""The cross-entropy of upsampled logits by upsampled_cross_entropy.cpp, where there is a compiler for it.

One piece of machine code for all sizes: nothing is compiled again when images differ. It is built in about two seconds, for the
processor at hand, when a process first needs it, and kept nowhere.
"""

import ctypes
import functools
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from datamodules.batches import IGNORE_INDEX

log = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("upsampled_cross_entropy.cpp")
# The last two allow lanes that are not needed to be computed too; neither changes a result.
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math")

_PATIENCE = 120  # seconds for the compiler, which takes two

Axis = tuple[Tensor, Tensor]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The machine code; None, and one line in the log, where it cannot be had."""
    try:
        command = shlex.split(os.environ.get("CXX", "c++"))
        if not command or shutil.which(command[0]) is None:
            log.warning("no C++ compiler (c++, or what CXX names): the segmentation loss is computed by torch, more slowly")
            return None
        with tempfile.TemporaryDirectory() as folder:
            built = str(Path(folder) / "loss.so")
            build = [*command, *_FLAGS, str(_SOURCE), "-o", built]
            subprocess.run(build, capture_output=True, text=True, check=True, timeout=_PATIENCE)  # noqa: S603
            return ctypes.CDLL(built)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or f"exit code {error.returncode}").splitlines()[0]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:  # ValueError: a quote in CXX that is not closed
        reason = str(error)
    log.warning("the segmentation loss did not compile (%s): it is computed by torch, more slowly", reason)
    return None


def compiled_cross_entropy(
    code: ctypes.CDLL, logits: Tensor, labels: Tensor, axes: tuple[Axis, Axis], label_smoothing: float, *, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, predictions and gradient in one pass, on as many threads as torch has; their number changes no bit.

    Args:
        code: Of `library`.
        logits: [B, K, h, w] float32, on the CPU, in any memory format.
        labels: [B, H, W] uint8, 0..K-1, or 255 where nothing is labelled.
        axes: Downwards and across: [H] or [W] int32, the lower one of the two positions between which each lies, and float32,
            the share of the upper one, 0 where there is none.
        label_smoothing: Share of each label that is spread evenly over all classes.
        differentiable: Whether the gradient is wanted.

    Returns:
        The loss in nats, 0 where no pixel is labelled; [B, H, W] uint8; and [B, K, h, w] float32, or empty.

    Raises:
        IndexError: If a label is no class.
        MemoryError: If there is not enough of it.
    """
    labels, labelled = labels.contiguous(), labels != IGNORE_INDEX
    highest = int(torch.where(labelled, labels, 0).max())
    if highest >= logits.shape[1]:
        msg = f"a label is {highest}, but the logits are of {logits.shape[1]} classes"
        raise IndexError(msg)
    count = max(1, int(labelled.sum()))
    losses = torch.zeros(labels.shape[:2], dtype=torch.float64)
    predictions = torch.empty_like(labels)
    gradient = torch.zeros(logits.shape if differentiable else (0,))
    failed = code.thaw_upsampled_cross_entropy(
        _address(logits),
        (ctypes.c_int64 * 4)(*logits.stride()),
        _address(labels),
        (ctypes.c_int64 * 6)(*logits.shape, *labels.shape[1:]),
        *(_address(values) for axis in axes for values in axis),
        ctypes.c_float(label_smoothing),
        ctypes.c_float(1 / count),
        _address(losses),
        _address(predictions),
        _address(gradient) if differentiable else None,
        ctypes.c_int64(torch.get_num_threads()),
    )
    if failed:
        msg = "out of memory in the segmentation loss; set a smaller data.batch_size"
        raise MemoryError(msg)
    return (losses.sum() / count).float(), predictions, gradient


def _address(values: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())
