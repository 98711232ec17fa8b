"""Complete a validated config. No other module writes to the config of a job."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from datamodules.inferring.findings import Finding
from engine.config.composing.composition import escaped_values
from engine.config.composing.paths import cache_folder
from engine.config.inapplicable import inapplicable_keys
from engine.config.places import resolve_target
from engine.config.precision import AUTO, HALF, full_name, precision_for
from engine.config.recorded import read_config
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)

# Keys that take the path of a local folder, or a name.
_FOLDERS = ("model.backbone", "data.tokenizer")


def settle(
    cfg: DictConfig,
    folder: RunFolder,
    ckpt_path: str | None = None,
    launched: tuple[int, int] | None = None,
) -> list[Finding]:
    """Complete a config in place: checkpoint, precision, devices, absolute paths, open settings.

    `config.yaml` records the result.

    Args:
        cfg: The validated config.
        folder: The run folder.
        ckpt_path: The checkpoint to start from if it is not the one of the config: a restarted job
            and a job of a resumed sweep start from `last`.
        launched: Devices of a node and number of nodes, if torchrun or srun started the processes.

    Returns:
        The settings that were inferred from the data.

    Raises:
        DataError: If the data is missing, or does not decide a setting that is left open.
    """
    for path, file in inapplicable_keys(cfg).items():
        parent, _, key = path.rpartition(".")
        node = OmegaConf.select(cfg, parent)
        if node is None:  # inside a node that was dropped
            continue
        log.info("%s=%s (%s) is dropped: %s has no such key", path, node[key], file, node._target_)
        with open_dict(node):
            del node[key]
    with open_dict(cfg):
        cfg.ckpt_path = ckpt_path or cfg.ckpt_path
        cfg.trainer.precision = _precision(cfg, folder)
        if launched is not None:
            cfg.trainer.devices, cfg.trainer.num_nodes = launched
        make_paths_absolute(cfg)
        _keep_source(cfg, folder)
        cfg.paths.data_dir = _absolute(cfg.paths.data_dir)
        if cfg.cache.features is not False or cfg.get("depth"):  # a study stores states there
            cfg.cache.dir = str(cache_folder(cfg.cache.dir))
        if str(cfg.data.get("class_list")).endswith((".yaml", ".yml")):
            cfg.data.class_list = _absolute(cfg.data.class_list)
    return _infer(cfg)


def _infer(cfg: DictConfig) -> list[Finding]:
    """Set what the node `data` leaves open."""
    settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
    findings: list[Finding] = resolve_target(cfg.data._target_, "data").infer(settings)
    for finding in findings:
        value = escaped_values(finding.value)
        OmegaConf.update(cfg, f"data.{finding.key}", value, force_add=True)
    return findings


def make_paths_absolute(cfg: DictConfig) -> None:
    """Make local paths absolute, so that a run resumes from any working directory.

    A name that is no folder, such as a hub name, stays as it is.
    """
    for key in _FOLDERS:
        value = OmegaConf.select(cfg, key)
        if isinstance(value, str) and Path(value).is_dir():
            OmegaConf.update(cfg, key, _absolute(value))
    if OmegaConf.select(cfg, "model.weights") is not None:
        cfg.model.weights = _absolute(cfg.model.weights)
    if cfg.get("ckpt_path") not in (None, "last"):
        cfg.ckpt_path = _absolute(cfg.ckpt_path)


def _keep_source(cfg: DictConfig, folder: RunFolder) -> None:
    """Make the path of a resumed run's source of the backbone absolute; it may be gone."""
    source = folder.read_json("provenance.json").get("backbone")
    value = OmegaConf.select(cfg, "model.backbone")
    if source is not None and isinstance(value, str) and _absolute(value) == source["run"]:
        cfg.model.backbone = source["run"]


def _precision(cfg: DictConfig, folder: RunFolder) -> str:
    """Return the full name of the precision. With `auto`, a resumed run keeps its precision."""
    precision = full_name(cfg.trainer.get("precision"))
    if precision in HALF and cfg.get("train", True):
        log.warning(
            "trainer.precision=%s: weights have few digits, so small updates are lost, as with a "
            "learning rate of 2e-5; bf16-mixed keeps float32 weights",
            precision,
        )
    if precision != AUTO:
        return precision
    if cfg.ckpt_path == "last" and folder.config.is_file():
        precision = str(read_config(folder.config).trainer.precision)
        why = "the precision of the first start"
    else:
        precision, why = precision_for(str(cfg.trainer.get("accelerator")))
    log.info("trainer.precision=auto: %s, %s", precision, why)
    return precision


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())
