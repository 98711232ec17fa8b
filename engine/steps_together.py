"""Whether several batches are taken in one of Lightning's steps, and how many."""

import lightning
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar, Timer, TQDMProgressBar

from engine.build import Parts

_STEPS = 50
_BYTES = 1 << 26  # of features that are handed over together, at most
# These are content with the last step of several; others may average weights, count steps or accumulate gradients.
_CONTENT = (EarlyStopping, RichProgressBar, TQDMProgressBar, Timer)


def steps_at_once(parts: Parts) -> int:
    """How many steps to take together: several where the step of a head takes less time than what surrounds it.

    Args:
        parts: With the features that are stored.

    Returns:
        1, or as many as `trainer.log_every_n_steps` and as memory has room for: of each so many the last is seen by callbacks
        and dashboards. 1 wherever something else counts steps or acts between them.
    """
    trainer, stored = parts.trainer, parts.datamodule.stored.get("train")
    if stored is None or stored.values.ndim != 2:  # noqa: PLR2004 - [samples, channels], or [tokens, channels]
        return 1
    plain = (
        trainer.world_size == 1
        and trainer.accumulate_grad_batches == 1
        and trainer.max_steps == -1
        and all(_is_whole(getattr(trainer, f"limit_{stage}_batches")) for stage in ("train", "val", "test"))
        and isinstance(trainer.val_check_interval, float)
        and trainer.val_check_interval == 1.0
        and not trainer.overfit_batches  # type: ignore[attr-defined]
        and getattr(trainer.precision_plugin, "scaler", None) is None
        and not any(map(_acts_between_steps, trainer.callbacks))  # type: ignore[attr-defined]
    )
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return min(every if every > 0 else _STEPS, _room(parts)) if plain else 1


def _room(parts: Parts) -> int:
    """How many of the largest batches there is room for, at least one."""
    data = parts.datamodule
    samples = max(data.batch_size, data.eval_batch_size)
    bytes_of_one = max(
        features.values[0].nbytes * (1 if features.lengths is None else int(features.lengths.max()))
        for features in data.stored.values()
    )
    return max(1, _BYTES // (samples * bytes_of_one))


def _is_whole(limit: float) -> bool:
    return isinstance(limit, float) and limit == 1.0  # 1 is a single batch


def _acts_between_steps(callback: lightning.Callback) -> bool:
    if type(callback) is ModelCheckpoint:
        return bool(callback._every_n_train_steps or callback._train_time_interval)  # noqa: SLF001 - no public name
    return type(callback) not in _CONTENT and not type(callback).__module__.startswith("lightning_modules.")
