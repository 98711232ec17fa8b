"""The plan of the feature cache.

The layers of a network that are never trained can run once, and their output be stored. The plan
states which layers these are, where their features are stored, or why they are not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datamodules.batching.stored_features import FeatureInput, Layout
from engine.feature_cache.store import FeatureStore, format_bytes
from lightning_modules.networks.freezing.prefix import Cut


@dataclass(frozen=True)
class Entry:
    """The cache entry of one split.

    Attributes:
        source: The input of the network.
        layout: The format of the features.
        key: The digest of everything that the features depend on.
        found: True if the features are stored already.
    """

    source: FeatureInput
    layout: Layout
    key: str
    found: bool


@dataclass(frozen=True)
class CachePlan:
    """The plan: which features are cached, or why none are.

    Attributes:
        cut: The cut; the layers before it run once. None where no features are cached.
        entries: Split -> its cache entry.
        reason: The reason why no features are cached; may be empty.
        store: The store of the features; None where no features are cached.
    """

    cut: Cut | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)
    reason: str = ""
    store: FeatureStore | None = None

    @property
    def bytes(self) -> int:
        """Size of all splits' features in bytes."""
        return sum(entry.layout.bytes for entry in self.entries.values())

    def facts(self) -> dict[str, Any]:
        """Return the plan as plain values for plan.json."""
        if self.cut is None:
            return {"stored": None, "reason": self.reason}
        splits = {
            name: {
                "key": e.key,
                "bytes": e.layout.bytes,
                "views": e.layout.views,
                "found": e.found,
            }
            for name, e in self.entries.items()
        }
        return {"stored": str(self.cut), "bytes": self.bytes, "splits": splits}

    def line(self) -> str:
        """Return a line for the log; empty where no features are cached and there is no reason."""
        if self.cut is None or self.store is None:
            return f"features are not cached: {self.reason}" if self.reason else ""
        views = ", ".join(
            f"{name} with mirror images" for name, e in self.entries.items() if e.layout.views > 1
        )
        new = [name for name, entry in self.entries.items() if not entry.found]
        status = f"to be computed: {', '.join(new)}" if new else "found"
        size = format_bytes(self.bytes) + (f" ({views})" if views else "")
        return f"features of {self.cut} are cached in {self.store.folder}: {size}; {status}"
