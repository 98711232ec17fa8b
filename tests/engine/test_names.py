"""A run is named for its experiment, else for the folder of its data, else for its data option."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from engine.config.composing.paths import CONFIGS
from engine.sweeps.names import register_resolvers


def name_of(*overrides: str) -> str:
    """Return the folder of a composed run, without `runs/` and the time."""
    register_resolvers()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    try:
        root, *name, _ = str(cfg.hydra.run.dir).split("/")
    finally:
        HydraConfig.instance().cfg = None
    assert root == "runs"
    return "/".join(name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("moods", "moods"),
        ("/data/birds.v2/", "birds.v2"),
        ("tables/tweets.CSV", "tweets"),
        ("2024", "2024"),
        ("'猫 and $x'", "猫_and_x"),
        ("..", "text"),
        ("/", "text"),
        ("null", "text"),
        ("???", "text"),
        ("'${nowhere}'", "text"),
    ],
)
def test_a_run_of_any_folder_is_named_for_it(folder: str, name: str) -> None:
    assert name_of("data=text", f"data.folder={folder}") == name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (("data=text",), "text"),
        (("data=multilabel_image", "data.folder=a/birds"), "birds"),
        (("data=text", "data.folder=moods", "name=mine"), "mine"),
        (("data=cifar10",), "cifar10"),
        (("experiment=sample_images", "data.folder=moods"), "sample_images"),
    ],
)
def test_a_name_an_experiment_and_a_dataset_come_first(
    overrides: tuple[str, ...], name: str
) -> None:
    assert name_of(*overrides) == name
