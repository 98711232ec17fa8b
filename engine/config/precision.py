"""Names, plugins and default of a run's precision.

`trainer.precision=auto` chooses bf16-mixed or 32-true, so weights stay in float32. It never chooses
float16, because its range is so small that losses must be scaled.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, MixedPrecision, Precision

from engine.config.errors import ConfigError

AUTO = "auto"
_FULL, _MIXED = "32-true", "bf16-mixed"
HALF = ("bf16-true", "16-true")  # weights have few digits
PRECISIONS = (_FULL, "64-true", _MIXED, "16-mixed", *HALF)
# Lightning's short names; null is its default.
_ALIASES = {"32": _FULL, "64": "64-true", "bf16": _MIXED, "16": "16-mixed", "None": _FULL}


class _HalfPrecision(HalfPrecision):
    """bfloat16 or float16 weights and inputs; labels keep their digits for the loss and metrics."""

    def convert_input(self, data: Any) -> Any:  # noqa: ANN401 - each task has its batch type
        """Convert the values of a batch, except its labels."""
        converted = super().convert_input(data)
        if isinstance(data, Mapping) and "labels" in data:
            return {**converted, "labels": data["labels"]}
        return converted


def full_name(precision: object) -> str:
    """Return the name of a precision; short names of Lightning become full ones."""
    return _ALIASES.get(str(precision), str(precision))


def precision_fault(precision: object) -> str:
    """Return why a precision cannot be used; empty if it can."""
    if full_name(precision) in (*PRECISIONS, AUTO):
        return ""
    return f"received {precision!r}; choose {', '.join(PRECISIONS)} or {AUTO}"


def precision_plugin(precision: object, device: str) -> Precision:
    """Return Lightning's plugin, which converts a module and runs it in a precision.

    Lightning itself trains with bf16-mixed where 16-mixed is set on a CPU.

    Args:
        precision: One of `PRECISIONS`, or a short name of it.
        device: The type of the device that computes, such as `cpu` or `cuda`.

    Raises:
        ConfigError: If the precision is unknown.
    """
    match full_name(precision):
        case "32-true":
            return Precision()
        case "64-true":
            return DoublePrecision()
        case "bf16-mixed" | "16-mixed" as mixed:
            return MixedPrecision(mixed, device)
        case "bf16-true" | "16-true" as half:
            return _HalfPrecision(half)
    msg = f"trainer.precision: {precision_fault(precision)}"
    raise ConfigError(msg)


def precision_for(accelerator: str) -> tuple[str, str]:
    """Return the precision for a device, and the reason for it.

    Args:
        accelerator: Lightning's accelerator: `cpu`, `gpu`, `cuda`, `mps`, or `auto`.

    Returns:
        The precision, which is bf16-mixed if the hardware multiplies bfloat16, else 32-true; and
        the reason.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return _MIXED, f"{name} multiplies bfloat16"
        return _FULL, f"{name} has no bfloat16"
    if accelerator not in ("cpu", "cuda") and torch.backends.mps.is_available():
        return _FULL, "mixed precision gains little on this GPU"
    for unit, found in bfloat16_units().items():
        if found:
            return _MIXED, f"this CPU multiplies bfloat16 ({unit})"
    return _FULL, "this CPU has no unit that multiplies bfloat16"


def bfloat16_units() -> dict[str, bool]:
    """Return unit -> whether this CPU has it, for units that multiply bfloat16, fastest first."""
    capabilities = torch.cpu.get_capabilities()  # the keys depend on the CPU's architecture
    return {
        "AMX": capabilities.get("amx_tile", False),
        "AVX-512 BF16": capabilities.get("avx512_bf16", False),
    }
