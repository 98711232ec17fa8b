"""The folder of a run or a sweep, chosen before Hydra creates it."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from engine.command_line.quoting import quoted
from engine.processes import ranks
from run_folders.files import make_folder
from run_folders.sweep import RECORD
from run_folders.sweep_job import SweepError

_STAMP = "${thaw.stamp:}"


def choose_folder(config: DictConfig, key: str) -> None:
    """Create the folder and set it in the config, if its name has a time that Thaw chose.

    No other run or sweep gets the same folder. All ranks of a run and all jobs of a sweep agree on
    it. A folder that the user names stays as it is.

    Args:
        config: The config with Hydra's node.
        key: The key of the folder: hydra.run.dir or hydra.sweep.dir.

    Raises:
        SweepError: If Hydra cannot use the folder.
    """
    HydraConfig.instance().set_config(config)  # the folder's name may refer to it
    node = OmegaConf.select(config, key.rpartition(".")[0])
    value = OmegaConf.select(config, key)
    if not isinstance(value, str) or not value:
        msg = f"{key}: received {value!r}; the path of a folder is needed"
        raise SweepError(msg)
    path = Path(value).resolve()
    if "${" in str(path):  # Hydra takes it for an interpolation
        msg = f"{key}: Hydra cannot use the folder {path}, which has ${{ in its name; rename it"
        raise SweepError(msg)
    stated: Any = OmegaConf.to_container(node, resolve=False)
    if _STAMP not in str(stated["dir"]) or ranks.fixed_stamp() is not None:
        return
    path = path.with_name(ranks.agreed("folder", lambda: make_folder(path).name))
    with read_write(config.hydra), open_dict(config.hydra):
        node.dir = str(path)
        # Hydra composes the config of each job again from these overrides.
        config.hydra.overrides.hydra.append(f"{key}={quoted(path)}")


def check_job_folder(folder: Path, sweep: Path) -> None:
    """Check that a job's folder is inside of its sweep's folder.

    Raises:
        SweepError: If it is not.
    """
    if not (sweep / RECORD).is_file():
        msg = f"hydra.sweep.dir: {sweep} is not the folder of the other jobs; set one for all jobs"
        raise SweepError(msg)
    if sweep not in folder.parents:
        msg = (
            f"hydra.sweep.subdir: the job's folder {folder} is not inside of the sweep's folder "
            f"{sweep}; set a relative path such as job_${{hydra.job.num}}"
        )
        raise SweepError(msg)
