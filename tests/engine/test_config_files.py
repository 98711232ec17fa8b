"""Our reading of the config files against Hydra's own."""

import subprocess
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from engine.config_files import ConfigFiles, Override, UnknownOptionError, UnsupportedError, nearest
from engine.launch import register_resolvers
from tests.conftest import ROOT
from tests.test_experiments import EXPERIMENTS

FILES = ConfigFiles(ROOT / "configs")
CHOICES: list[dict[str, str]] = [
    {},
    {"data": "covid_fake_news", "model": "text_classifier"},
    {"trainer": "gpu", "logger": "wandb", "callbacks": "early_stopping"},
    {"debug": "fast"},
    {"debug": "fast", "experiment": "bert_feature"},
    {"experiment": "minilm_feature", "model": "sample_text_classifier"},
    *({"experiment": name} for name in EXPERIMENTS),
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_composition_equals_hydras(choices: dict[str, str]) -> None:
    register_resolvers()
    extra = ["seed=7", "trainer.max_epochs=3", "model.lr=1e-4", "data.folder=content", "ckpt_path=null", "plan=TRUE"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", [*(f"{k}={v}" for k, v in choices.items()), *extra])
    expected = OmegaConf.to_container(cfg, resolve=False)
    ours = FILES.compose(choices, [Override.parse(word) for word in extra])
    assert ours.values == expected
    assert ours.to_yaml() == OmegaConf.to_yaml(cfg)
    assert ours.origins["model.lr"] == "the command line"


def test_printed_config_equals_hydras() -> None:
    words = [sys.executable, "train.py", "--cfg", "job", "experiment=bert_bigru_feature", "trainer.max_epochs=1"]
    ours = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # A list on the command line is Hydra's to read, so that this goes through Hydra.
    theirs = subprocess.run([*words, "data.classes=[fake,real]"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert yaml.safe_load(ours) == yaml.safe_load(theirs)


def test_origin_is_the_file_that_set_a_key_last() -> None:
    origins = FILES.compose({"experiment": "minilm_feature"}, []).origins
    assert origins["model.backbone"] == "configs/experiment/minilm_finetune.yaml"
    assert origins["model.freeze_backbone"] == "configs/experiment/minilm_feature.yaml"
    assert origins["data.max_length"] == "configs/data/text.yaml"


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match=r"configs/data/ has no 'covid'.*covid_fake_news"):
        FILES.compose({"data": "covid"}, [])


@pytest.mark.parametrize("word", ["a@b=c", "key=[1,2]", "key='x y'", "key=${seed}"])
def test_what_only_hydra_can_read_is_left_to_it(word: str) -> None:
    with pytest.raises(UnsupportedError):
        Override.parse(word).scalar()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("3", 3), ("-2.5", -2.5), ("null", None), ("True", True), ("yes", "yes"), ("", ""), ("a/b.c", "a/b.c")],
)
def test_scalars(text: str, value: object) -> None:
    read = Override.parse(f"key={text}").scalar()
    assert read == value
    assert type(read) is type(value)


def test_nearest_prefers_the_same_leaf() -> None:
    assert "trainer.max_epochs" in nearest("max_epochs", ["trainer.max_epochs", "trainer.max_steps", "seed"])
    assert nearest("zzz", ["a", "b"]) == "known: a, b"
