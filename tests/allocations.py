"""Peak CPU memory of PyTorch, counted from its allocations.

Unlike a measurement, the count does not depend on the load of the machine.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def peak_allocated(work: Callable[[], object]) -> int:
    """Peak number of bytes that tensors of `work` take on the CPU, beyond those from before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    allocated = peak = 0
    for event in sorted(
        (e for e in events if e.get("name") == "[memory]"), key=lambda event: event["ts"]
    ):
        allocated += event["args"]["Bytes"]
        peak = max(peak, allocated)
    return peak
