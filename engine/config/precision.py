"""`trainer.precision=auto`: what is fast and safe on the device that is found."""

import logging

import torch
from omegaconf import DictConfig

from engine.config.recorded import read_config
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)

AUTO = "auto"
_WHOLE, _MIXED = "32-true", "bf16-mixed"


def resolve_precision(cfg: DictConfig, folder: RunFolder) -> None:
    """Put a precision in the place of `auto`, and say which and why; a run that goes on keeps the one that it began with.

    float16 is never chosen: its range is so small that losses have to be scaled. Weights stay in
    float32 in either case.

    Args:
        cfg: The config; changed, so that the run folder tells what was taken.
        folder: The run folder.
    """
    trainer = cfg.get("trainer")
    if (
        not isinstance(trainer, DictConfig) or trainer.get("precision") != AUTO
    ):  # what is no trainer is told with all faults
        return
    if cfg.ckpt_path == "last" and folder.config.is_file():
        precision, why = str(read_config(folder.config).trainer.precision), "as the run began"
    else:
        precision, why = fast_and_safe(str(cfg.trainer.get("accelerator")))
    cfg.trainer.precision = precision
    log.info("trainer.precision=auto: %s, %s", precision, why)


def fast_and_safe(accelerator: str) -> tuple[str, str]:
    """The precision for a device, and the reason.

    Args:
        accelerator: As Lightning takes it: `cpu`, `gpu`, `cuda`, `mps`, or `auto`.

    Returns:
        bf16-mixed where the hardware multiplies bfloat16, 32-true elsewhere.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return _MIXED, f"{name} multiplies bfloat16"
        return _WHOLE, f"{name} has no bfloat16"
    if accelerator not in ("cpu", "cuda") and torch.backends.mps.is_available():
        return _WHOLE, "mixed precision gains little on this GPU"
    for unit, found in bfloat16_units().items():
        if found:
            return _MIXED, f"this CPU multiplies bfloat16 ({unit})"
    return _WHOLE, "this CPU has no unit that multiplies bfloat16"


def bfloat16_units() -> dict[str, bool]:
    """What multiplies bfloat16 in a CPU, the fastest first, and whether the one at hand has it."""
    capabilities = torch.cpu.get_capabilities()  # other kinds of CPU have other keys
    return {
        "AMX": capabilities.get("amx_tile", False),
        "AVX-512 BF16": capabilities.get("avx512_bf16", False),
    }
