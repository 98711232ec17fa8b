"""The part of a page that compares the estimated cost of a run with what it took."""

from collections.abc import Callable

from reports.record import RunRecord


def estimate_rows(run: RunRecord) -> list[dict[str, str]]:
    """Return a row for each estimate: its name, both values and their difference.

    Empty if the run was not estimated, or has not ended.
    """
    estimated, metrics = run.plan.get("estimate"), run.metrics
    if not estimated or "bytes" not in metrics:
        return []
    seconds, sizes = metrics["seconds"], metrics["bytes"]
    epochs = run.history["seconds"].tolist() if "seconds" in run.history else []
    # The estimate of a ladder is that of all rungs.
    note = " (the estimate: of every rung)" if run.depth.get("study") == "ladder" else ""
    splits = run.plan.get("features", {}).get("splits", {}).values()
    stored = sum(entry["bytes"] for entry in splits if not entry["found"])
    facts: list[tuple[str, float | None, float | None, Callable[[float], str]]] = [
        ("seconds an epoch", estimated["epoch"], _mean(epochs), _seconds),
        (f"seconds in all{note}", estimated["total"], seconds.get("total"), _seconds),
        ("peak memory", estimated["host"], sizes["host"], _megabytes),
        ("peak memory of the GPU", estimated["device"], sizes["device"], _megabytes),
        # What a study stores is not recorded.
        ("disk for cached features", estimated["cache"], None if run.depth else stored, _megabytes),
        (f"disk for checkpoints{note}", estimated["checkpoints"], sizes["checkpoints"], _megabytes),
    ]
    return [
        {
            "name": name,
            "estimated": text(before),
            "measured": text(after),
            "difference": f"{before / after - 1:+.0%}" if after else "-",
        }
        for name, before, after, text in facts
        if before is not None and after is not None
    ]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _seconds(value: float) -> str:
    return f"{value:.1f}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:,.0f} MB"
