"""`trainer.precision=auto`: choose a fast and safe precision for the device.

float16 is never chosen, because its range is so small that losses must be scaled. Weights stay in
float32 in either case.
"""

import torch

AUTO = "auto"
_FULL, _MIXED = "32-true", "bf16-mixed"


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
