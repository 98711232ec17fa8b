"""How much memory PyTorch asks for, counted and not measured, so that it is the same however busy a machine is."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def peak_allocated(work: Callable[[], object]) -> int:
    """Bytes that the tensors of some work take on the CPU at its peak, on top of those that were there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    held = peak = 0
    for event in sorted(
        (e for e in events if e.get("name") == "[memory]"), key=lambda event: event["ts"]
    ):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak
