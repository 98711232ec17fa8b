"""Validate the composed config before any work, and report all faults together."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.config.composing import (
    COMMAND_LINE,
    PARTS,
    Source,
    choices_without_effect,
    sources_of_keys,
)
from engine.config.errors import ConfigError
from engine.config.groups import groups
from engine.config.inapplicable import inapplicable_keys
from engine.config.paths import CONFIGS
from engine.config.places import (
    injected_into,
    place_of,
    protocol_faults,
    resolve_target,
    special_key_faults,
)
from engine.config.precision import precision_fault
from engine.config.signatures import Fault, signature_faults
from engine.old_names import removal
from run_folders.errors import brief, nearest, shortened
from run_folders.kinds import KindError, kind_named, load_part, metric_of
from run_folders.nested import delete, leaves, nodes

# Groups whose options do not set the key that is named like the group.
_GLOBAL_GROUPS = {"hydra", "experiment", "sweep", "debug", *PARTS}
# Groups whose key is one node with a _target_.
_SINGLE_TARGETS = ("data", "model", "trainer")
# Groups whose key maps names to nodes with a _target_.
_NAMED_TARGETS = ("callbacks", "logger")
_INTEGERS = 2**63  # the least integer that torch cannot read
_MAX_SEED = 2**32 - 1
_LARGEST_GB = 1e9
# Keys that must not be 0: without training and validation there is no best checkpoint, and without
# a test there is no result.
_NOT_ZERO = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.limit_train_batches",
    "trainer.limit_val_batches",
    "trainer.limit_test_batches",
)


def validate(cfg: DictConfig) -> None:
    """Check the whole config without building anything.

    Args:
        cfg: The composed config.

    Raises:
        ConfigError: If the config has faults; the message lists all of them.
    """
    unresolved = list(_unresolved(cfg))
    faults = [*_unknown_keys(cfg), *unresolved]
    if not unresolved:
        values: Any = OmegaConf.to_container(cfg, resolve=True)
        trainer = values.get("trainer")
        if isinstance(trainer, dict) and "precision" in trainer:
            fault = precision_fault(trainer.pop("precision"))  # Lightning does not know `auto`
            faults += [("trainer.precision", fault)] if fault else []
        faults += [
            (
                f"model.{part}",
                f"{part}=... has no effect, because {file} sets the class; "
                f"state `override /{part}: ...` in the defaults list of that file",
            )
            for part, file in choices_without_effect()
        ]
        for path in inapplicable_keys(cfg):  # `settle` drops them
            delete(values, path)
        too_large = list(_large_integers(values))
        faults += too_large or [
            *_plain_values(values),
            *_trainer_faults(trainer),
            *_part_faults(values),
            *object_faults(values),
        ]
        removed = {
            path: message
            for path, value in nodes(values)
            if (message := removal(path, value)) is not None
        }
        faults = [*removed.items(), *(fault for fault in faults if fault[0] not in removed)]
    if faults:
        sources = sources_of_keys()
        lines = [
            f"{path} ({_source(path, sources)}): {fault}" for path, fault in dict.fromkeys(faults)
        ]
        count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
        msg = f"{count} in the config; nothing was run"
        raise ConfigError(msg, *lines)


def _large_integers(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that torch can read each integer: other checks already build tensors."""
    for path, value in leaves(values).items():
        if isinstance(value, int) and abs(value) >= _INTEGERS:
            yield path, "received an integer of more than 64 bits; give a smaller one"


def _source(path: str, sources: dict[str, Source]) -> str:
    """Return where a key, or else the nearest mapping around it, was set."""
    while path:
        if path in sources:
            return sources[path].name
        path = path.rpartition(".")[0]
    return COMMAND_LINE


def _unknown_keys(cfg: DictConfig) -> Iterator[Fault]:
    train: Any = OmegaConf.load(CONFIGS / "train.yaml")
    paths: Any = OmegaConf.load(CONFIGS / "paths" / "default.yaml")
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    chosen = {
        group for default in train.defaults if isinstance(default, DictConfig) for group in default
    }
    roots = {*train} - {"defaults"} | (chosen - _GLOBAL_GROUPS)
    known = [key for key, _ in nodes(plain) if key.partition(".")[0] in roots]
    for key in plain:
        if key not in roots:
            yield str(key), f"unknown key; {nearest(str(key), known)}"
    mappings = {name: value for name, value in plain.items() if isinstance(value, dict)}
    for name in ("paths", *_NAMED_TARGETS):
        if name not in mappings and plain.get(name) is not None:
            yield name, f"received {plain[name]!r}; a mapping is needed"
    for name, keys in (("paths", list(paths)), ("cache", list(train.cache))):
        for key in mappings.get(name, ()):
            if key not in keys:
                yield f"{name}.{key}", f"unknown key; {nearest(str(key), keys)}"
    for name in _SINGLE_TARGETS:
        if not isinstance(cfg.get(name), DictConfig) or "_target_" not in cfg[name]:
            yield name, "needs a _target_; choose an option of the group"
    for group in _NAMED_TARGETS:
        for name, node in mappings.get(group, {}).items():
            if not isinstance(node, dict) or "_target_" not in node:
                yield f"{group}.{name}", "has no _target_, so nothing would be built from it"


def _unresolved(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[Fault]:
    """Yield a fault for each value that is ??? or whose interpolation fails."""
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        path = f"{prefix}{key}"
        try:
            if OmegaConf.is_missing(node, key):
                yield path, "is ???; set a value"
                continue
            value = node[key]
        except OmegaConfBaseException as error:
            yield path, f"interpolation failed: {brief(error)}"
            continue
        if isinstance(value, DictConfig | ListConfig) and not OmegaConf.is_interpolation(node, key):
            yield from _unresolved(value, f"{path}.")


def _plain_values(values: dict[str, Any]) -> Iterator[Fault]:
    """Check what no signature covers: keys of no class, and values that must agree."""

    def at(key: str) -> Any:  # noqa: ANN401 - any value of a config
        node: Any = values
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    seed = at("seed")
    if not isinstance(seed, int) or isinstance(seed, bool):
        yield "seed", f"received {seed!r}; a whole number is needed"
    elif not 0 <= seed <= _MAX_SEED:
        yield "seed", f"received {seed!r}; 0 to {_MAX_SEED} is needed"
    for key in _NOT_ZERO:
        if at(key) == 0:
            yield key, "received 0; a run trains, validates and tests"
    every, epochs = at("trainer.check_val_every_n_epoch"), at("trainer.max_epochs")
    if isinstance(every, int) and isinstance(epochs, int) and 0 < epochs < every:
        yield (
            "trainer.check_val_every_n_epoch",
            f"received {every}, and trainer.max_epochs={epochs}: no epoch would be validated",
        )
    accumulated = at("trainer.accumulate_grad_batches")
    if accumulated is not None and (not isinstance(accumulated, int) or accumulated < 1):
        yield "trainer.accumulate_grad_batches", f"received {accumulated!r}; at least 1 is needed"
    if at("trainer.max_epochs") in (None, -1) and at("trainer.max_steps") in (None, -1):
        yield (
            "trainer.max_epochs",
            f"received {at('trainer.max_epochs')!r}, and no trainer.max_steps; "
            "a schedule needs an end",
        )
    plateau = str(at("model.schedule._target_")).endswith(".plateau")
    if plateau and at("trainer.check_val_every_n_epoch") not in (None, 1):
        yield (
            "trainer.check_val_every_n_epoch",
            "received more than 1; schedule=plateau needs a validation in every epoch",
        )
    yield from _mode_faults(values, "")
    for path, node in nodes(values):
        if path.startswith(("callbacks.", "model.schedule")) and isinstance(node, dict):
            yield from _mode_faults(node, f"{path}.")
    for key in ("plan", "train", "test"):
        if not isinstance(at(key), bool):
            yield key, f"received {at(key)!r}; choose true or false"
    for key in ("model.backbone", "model.weights"):
        file = str(at(key))
        if file.endswith(".ckpt"):
            run = file.rpartition("/checkpoints/")[0] or "RUN"
            yield key, f"received a checkpoint of a run; set model.backbone={run}, the run's folder"
    yield from _cache_faults(values.get("cache"))
    if at("train") is False and at("test") is False:
        yield "test", "received false, and train=false too; nothing would be done"
    if at("train") is False and at("ckpt_path") is not None:
        yield (
            "ckpt_path",
            "received a checkpoint, and train=false; "
            "scripts/evaluate.py RUN tests a run's checkpoint again",
        )
    yield from class_count_faults(values)
    yield from _kind_faults(values.get("model"))
    known = _metrics(values.get("model"))
    if known and at("monitor") not in known:
        advice = f"the best checkpoint is chosen on validation, by one of {', '.join(known)}"
        yield "monitor", f"received {at('monitor')!r}; {advice}"


def _mode_faults(node: dict[str, Any], prefix: str) -> Iterator[Fault]:
    """Check that `mode` is the direction in which the metric `monitor` is better."""
    if "monitor" not in node or "mode" not in node:
        return
    monitor, mode = node["monitor"], node["mode"]
    better = metric_of(str(monitor)).better
    if mode not in ("min", "max"):
        yield f"{prefix}mode", f"received {mode!r}; choose min or max"
    elif mode != better:
        direction = "lower" if better == "min" else "higher"
        fault = f"received {mode!r}; {direction} values of {monitor} are better"
        yield f"{prefix}mode", f"{fault}: leave it out"


def _trainer_faults(trainer: Any) -> Iterator[Fault]:  # noqa: ANN401 - any value of a config
    """Check the trainer's keys that have values which Thaw cannot honour."""
    if not isinstance(trainer, dict):
        return
    if trainer.get("use_distributed_sampler"):
        yield (
            "trainer.use_distributed_sampler",
            "received true; Thaw's own samplers divide each batch among the processes: "
            "leave it out",
        )
    if isinstance(trainer.get("val_check_interval"), str | dict):
        yield (
            "trainer.val_check_interval",
            f"received {trainer['val_check_interval']!r}; a time is not reproducible: "
            "give a number of batches, or a share of an epoch",
        )
    if trainer.get("overfit_batches"):
        for key in ("limit_train_batches", "limit_val_batches"):
            limit = trainer.get(key)
            if limit is not None and (limit != 1.0 or isinstance(limit, int)):
                yield (
                    f"trainer.{key}",
                    f"received {limit!r}, and trainer.overfit_batches sets it too; "
                    "leave one of them out",
                )


def class_count_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Check that data and model have the same number of classes.

    Args:
        values: A config with the nodes `data` and `model`, resolved.
    """
    data, model = values.get("data"), values.get("model")
    data, model = (node if isinstance(node, dict) else {} for node in (data, model))
    classes, count = data.get("classes"), data.get("num_classes")
    if isinstance(classes, list) and count != len(classes):
        named = shortened(map(str, classes))
        yield "data.num_classes", f"received {count!r}; data.classes names {len(classes)}: {named}"
    if "num_classes" in model and model["num_classes"] != count:
        yield (
            "model.num_classes",
            f"received {model['num_classes']!r}; the data has {count} classes",
        )


def _cache_faults(cache: Any) -> Iterator[Fault]:  # noqa: ANN401 - any value of a config
    """Check the settings of the feature cache."""
    if not isinstance(cache, dict):
        yield "cache", f"received {cache!r}; a mapping with features, dir and max_gb is needed"
        return
    features, folder, size = cache.get("features"), cache.get("dir"), cache.get("max_gb")
    if features != "auto" and not isinstance(features, bool):
        yield "cache.features", f"received {features!r}; choose auto, true or false"
    if folder is not None and (not isinstance(folder, str) or not folder):
        yield (
            "cache.dir",
            f"received {folder!r}; a folder is needed, or null for the user's cache folder",
        )
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size <= _LARGEST_GB:
        yield (
            "cache.max_gb",
            f"received {size!r}; a number of gigabytes above 0, up to {_LARGEST_GB:g}, is needed",
        )


def _kind_faults(model: Any) -> Iterator[Fault]:  # noqa: ANN401 - any value of a config
    """Check that the kind of a task exists, with its parts of the engine and of the reports."""
    try:
        task = resolve_target(model["_target_"], "model")
    except (ConfigError, KeyError, TypeError):
        return
    if not hasattr(task, "kind"):
        yield "model._target_", f"received {task.__name__}, which states no kind of task (`kind`)"
        return
    try:
        kind = kind_named(task.kind)
        for dotted in (kind.results, kind.page):
            load_part(dotted)
    except KindError as error:
        yield "model._target_", f"received {task.__name__}: {error}"


def _metrics(model: Any) -> list[str]:  # noqa: ANN401 - any value of a config
    """Return the validation metrics of a task; an empty list if its node is itself faulty."""
    try:
        task = resolve_target(model["_target_"], "model")
    except (ConfigError, KeyError, TypeError):
        return []
    return [f"val/{name}" for name in task.metric_names(model)]


def _part_faults(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that each part of the model is a node."""
    model = values.get("model")
    if not isinstance(model, dict):
        return
    for part in sorted(PARTS.intersection(model)):
        node = model[part]
        if not (isinstance(node, dict) and "_target_" in node):
            options = ", ".join(groups()[part])
            advice = (
                f"choose an option of the group: {options}; in a file: override /{part}: OPTION"
            )
            yield f"model.{part}", f"received {node!r}; {advice}"


def object_faults(node: object, path: str = "") -> Iterator[Fault]:
    """Check every node with a `_target_`: its place, its class, its keys and their values.

    Args:
        node: A resolved config, or a part of it.
        path: The dotted key of the part.
    """
    if isinstance(node, list):
        for index, value in enumerate(node):
            yield from object_faults(value, f"{path}.{index}")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        try:
            target = resolve_target(node["_target_"], path)
        except ConfigError as error:
            yield f"{path}._target_", str(error)
        else:
            yield from special_key_faults(node, path)
            yield from protocol_faults(target, node, path)
            place = place_of(path)
            known = {key: v for key, v in node.items() if not place or key not in place.refused}
            yield from signature_faults(target, known, path, injected_into(path))
    for key, value in node.items():
        yield from object_faults(value, f"{path}.{key}" if path else str(key))
