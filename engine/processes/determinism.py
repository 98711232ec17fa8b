"""torch's mode for deterministic algorithms, which Lightning sets for the whole process."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keeping_determinism() -> Iterator[None]:
    """Restore the mode, so that a program that calls Thaw can do what it could before."""
    import torch  # takes seconds

    enabled = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
