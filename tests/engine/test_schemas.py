"""The schemas of the config groups accept every config of Thaw and reject what a run rejects."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from jsonschema import Draft7Validator
from omegaconf import DictConfig, OmegaConf
from referencing import Registry, Resource

from engine.config.composing.composition import compose_config
from engine.config.composing.groups import groups
from engine.config.composing.paths import CONFIGS
from engine.config.errors import ConfigError
from engine.config.precision import precision_fault
from engine.config.schemas.files import FOLDER, schema_files
from engine.config.schemas.nodes import PRECISION_NAMES
from engine.config.schemas.roots import Root, Search
from engine.config.validation.validate import validate
from engine.sweeps.names import register_resolvers
from engine.sweeps.study import PRUNERS, SAMPLERS
from hydra_plugins.thaw_optuna_sweeper.optuna_sweeper import OptunaSweeperConf
from tests.conftest import ROOT
from tests.engine.broken_configs import BROKEN
from tests.test_experiments import EXPERIMENTS
from thaw.commands import write_schemas

COMMAND = "python scripts/write_schemas.py"
FILES = sorted(CONFIGS.rglob("*.yaml"))
EXAMPLE = ROOT / "docs" / "examples" / "thaw_birds" / "thaw_birds" / "configs"
PARTS = ("head", "loss", "optimizer", "schedule")


def group_of(file: Path) -> str:
    return "train" if file.parent == CONFIGS else file.parent.name


def as_json(value: Any) -> Any:
    """A value of a YAML file as a language server sees it: all keys are texts."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def loaded(text: str) -> Any:
    return as_json(OmegaConf.to_container(OmegaConf.create(text), resolve=False))


def faults(value: object, group: str, schemas: Mapping[str, Any]) -> list[str]:
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(schema)) for name, schema in schemas.items()
    )
    validator = Draft7Validator(schemas[f"{group}.json"], registry=registry)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


@cache
def written() -> dict[str, Any]:
    return {file.name: json.loads(file.read_text("utf-8")) for file in FOLDER.glob("*.json")}


def test_the_schemas_are_current() -> None:
    """Classes of other libraries change with their versions, so other versions compare less."""
    now = {name: json.loads(text) for name, text in schema_files().items()}
    before = dict(written())
    assert now.keys() == before.keys(), COMMAND
    versions = [f"{name} {version(name)}" for name in ("lightning", "timm", "torch")]
    if not all(each in before["definitions.json"]["$comment"] for each in versions):
        for schemas in (now, before):
            definitions = schemas["definitions.json"]["definitions"]
            schemas["definitions.json"] = {
                name: schema
                for name, schema in definitions.items()
                if name.startswith(("datamodules.", "lightning_modules."))
                or name in ("config", "data", "defaults", "hydra", "model", "paths")
            }
    for name, schema in now.items():
        assert schema == before[name], f"{name} is not current; run: {COMMAND}"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.json")))
def test_a_schema_is_valid(name: str) -> None:
    Draft7Validator.check_schema(written()[name])
    for reference in references(written()[name]):
        file, _, pointer = reference.partition("#/definitions/")
        assert pointer in written()[file or name]["definitions"]


def references(schema: Any) -> Iterator[str]:
    for value in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(value, dict | list):
            yield from references(value)
    if isinstance(schema, dict) and "$ref" in schema:
        yield schema["$ref"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_config_of_thaw_fits_its_schema(file: Path) -> None:
    assert not faults(loaded(file.read_text("utf-8")), group_of(file), written())


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_config_names_its_schema(file: Path) -> None:
    """Hydra reads its header up to the first other line, so the schema stands below it."""
    schema = "schemas/train.json" if file.parent == CONFIGS else f"../schemas/{group_of(file)}.json"
    lines = file.read_text("utf-8").splitlines()
    place = 1 if lines[0].startswith("# @package") else 0
    assert lines[place] == f"# yaml-language-server: $schema={schema}"
    assert (file.parent / schema).is_file()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_composed_experiment_fits_the_schema(name: str) -> None:
    composed = OmegaConf.to_container(compose_config([f"experiment={name}"]), resolve=False)
    assert not faults(as_json(composed), "train", written())


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_config_is_rejected(name: str) -> None:
    group, text, _ = BROKEN[name]
    found = faults(loaded(text), group, written())
    assert len(found) == 1, found


@pytest.fixture(scope="module")
def default_run() -> Iterator[DictConfig]:
    """The composed config of the default run, while Hydra is initialized."""
    register_resolvers()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield compose("train", ["name=x", "model=text_classifier"], return_hydra_config=True)


@pytest.mark.parametrize("name", BROKEN)
def test_a_run_rejects_the_same_config(
    name: str, default_run: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", default_run)
    group, text, key = BROKEN[name]
    cfg = default_run.copy()
    del cfg.hydra
    validate(cfg)
    package = f"model.{group}" if group in PARTS else group
    body = OmegaConf.create(text)
    changes = body.pop("defaults", None) is not None
    OmegaConf.set_struct(cfg, value=False)
    if group == "experiment" or group in body:
        cfg = OmegaConf.merge(cfg, body)
    else:
        OmegaConf.update(cfg, package, body, merge=changes)
    with pytest.raises(ConfigError) as raised:
        validate(cfg)
    assert any(str(line).startswith(f"{key} (") for line in raised.value.args), raised.value.args


def test_values_that_another_file_sets_are_accepted() -> None:
    text = "defaults: [text, _self_]\nfolder: ???\nmax_length: ${other}\nfiles: ${files}"
    assert not faults(loaded(text), "data", written())
    own = "_target_: my_package.data.Birds\nwings: 2"
    assert not faults(loaded(own), "data", written())
    assert faults(loaded(own), "trainer", written())


def test_a_search_is_checked() -> None:
    for fault in (
        "hydra: {sweeper: {n_trial: 3}}",
        "hydra: {sweeper: {n_trials: 0}}",
        "hydra: {sweeper: {space: {model.lr: {typ: float}}}}",
        "defaults: [{override /hed: bigru}]",
    ):
        assert faults(loaded(fault), "sweep", written()), fault


def test_the_keys_outside_of_classes_are_those_of_the_config() -> None:
    """No signature has them, so they stand in `roots.py`."""
    train: Any = OmegaConf.load(CONFIGS / "train.yaml")
    assert get_type_hints(Root).keys() == train.keys() - {"defaults"}
    for key in ("cache", "sweep"):
        assert get_type_hints(get_type_hints(Root)[key]).keys() == train[key].keys()
    search = get_type_hints(Search)
    assert {*search, "space", "_target_"} == {*OptunaSweeperConf.__dataclass_fields__}
    assert set(get_args(search["sampler"])) == set(SAMPLERS)
    assert set(get_args(search["pruner"])) == set(PRUNERS)
    assert not any(map(precision_fault, PRECISION_NAMES))


def test_descriptions_come_from_docstrings_and_comments() -> None:
    definitions = written()["definitions.json"]["definitions"]
    text = definitions["datamodules.text.TextDataModule"]["properties"]
    assert text["batch_size"]["description"] == "Texts in a training batch."
    assert "shows the whole" not in text["label_map"]["description"]
    root = definitions["config"]["properties"]
    assert root["plan"]["description"].startswith("true: print the plan")


def test_own_packages_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's experiment sets keys that only the example's task has."""
    monkeypatch.syspath_prepend(str(EXAMPLE.parents[1]))
    monkeypatch.setenv("THAW_COMPONENTS", "thaw_birds")
    schemas = {name: json.loads(text) for name, text in schema_files(["thaw_birds"]).items()}
    for file in EXAMPLE.rglob("*.yaml"):
        assert not faults(loaded(file.read_text("utf-8")), file.parent.name, schemas), file
    assert faults({"model": {"ofset": 2}}, "experiment", schemas)


def test_the_command_writes_the_schemas_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_schemas.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"17 schemas written to {tmp_path / 'schemas'}\n"
    assert {file.name for file in (tmp_path / "schemas").iterdir()} == written().keys()
    assert write_schemas.main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none'} is not a folder; name")


def test_the_folder_of_the_schemas_has_no_options() -> None:
    assert FOLDER.name not in groups()
