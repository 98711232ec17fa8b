"""Overrides that are read from a file, which may come from someone else.

The files are sweep.json and the storage of a study. Hydra parses their overrides again, so they
must not reach what Hydra builds or runs by itself, and read no environment variable.
"""

import re
from collections.abc import Iterable

from engine.config.composing.groups import groups

_NAME = re.compile(r"[\w-]+")
# Plain settings of a launcher and of the sweeper. Others could run commands or load files.
_SETTINGS = re.compile(
    r"hydra\.launcher\.(n_jobs|timeout_min|cpus_per_task|gpus_per_node|tasks_per_node|mem_gb|nodes"
    r"|name|partition|qos|account|gres|array_parallelism|max_num_timeout|signal_delay_s)"
    r"|hydra\.sweeper\.(n_trials|n_jobs|seed|sampler|pruner|study_name|max_batch_size)"
)
_SEARCH = re.compile(r"hydra\.sweeper\.(space|objectives|sampler_options|pruner_options)(\..*)?")
# Names of the jobs' folders. They must not lead out of the sweep's folder.
_FOLDER = "hydra.sweep.subdir"
_FOLDER_PARTS = re.compile(r"hydra\.job\.config\.override_dirname\..*")
_ABSOLUTE = re.compile(r"(^|[^\w}.-])[/~]")  # also in quotes
_PLAIN = re.compile(r"[\w.:+-]*")
_HYDRA_KEY = re.compile(r"\$\{hydra:[\w.]+\}")  # reads a key of Hydra
# A resolver, or an interpolation that another one names.
_RESOLVER = re.compile(r"\$\{[^}]*[:$]")
_WORD = re.compile(r"[^\s,()\[\]{}'\"]+")


def is_trusted(override: str) -> bool:
    """Return whether an override from a file may be used.

    It may if it sets a key of Thaw's config to a plain value, chooses options of groups by their
    names, or sets a plain setting of the launcher, the sweeper or the jobs' folders.
    """
    key, _, value = override.partition("=")
    key = key.lstrip("+~")
    if override.startswith("-") or "@" in key or _RESOLVER.search(_HYDRA_KEY.sub("", override)):
        return False
    if "/" in key or key in groups():
        return all(map(_NAME.fullmatch, _WORD.findall(value)))
    if not key.startswith("hydra"):
        return True
    if _SEARCH.fullmatch(key):
        return "_target_" not in override
    if key == _FOLDER:
        return ".." not in value and not _ABSOLUTE.search(value)
    if _FOLDER_PARTS.fullmatch(key):
        return ".." not in value
    return bool(_SETTINGS.fullmatch(key) and _PLAIN.fullmatch(value))


def untrusted(overrides: Iterable[str]) -> list[str]:
    """Return the overrides from a file that may not be used."""
    return [override for override in overrides if not is_trusted(override)]
