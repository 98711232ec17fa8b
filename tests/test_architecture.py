"""The rules of CONTRIBUTING.md about imports, folders and names hold for every file."""

import ast
import re
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = (
    "run_folders",
    "engine",
    "datamodules",
    "lightning_modules",
    "reports",
    "keras_bert",
    "thaw",
    "scripts",
    "benchmarks",
    "hydra_plugins",
)
HEAVY = {"torch", "lightning", "hydra", "transformers", "torchmetrics"}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Every module that a file imports, `from a import b` as both a and a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def folder_of(path: Path) -> str:
    """The folder of a file; a file at the top of a package counts as a folder of its own."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "/".join(parts if len(parts) == 2 else parts[:-1])


@pytest.mark.parametrize("node", [str, folder_of])
def test_imports_have_no_cycle(node: Callable[[Path], str]) -> None:
    """Neither between files nor between folders."""
    graph: dict[str, set[str]] = {}
    for path in (path for package in PACKAGES for path in sources(package)):
        files = (ROOT / f"{name.replace('.', '/')}.py" for name in imports(path))
        graph.setdefault(node(path), set()).update(node(file) for file in files if file.is_file())
    for name, targets in graph.items():
        targets.discard(name)
    assert len(graph) > 30
    assert any(targets for targets in graph.values())
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_folder_holds_more_than_15_files() -> None:
    packages = [
        ROOT / package
        for package in (
            "run_folders",
            "engine",
            "datamodules",
            "lightning_modules",
            "reports",
            "keras_bert",
        )
    ]
    folders = [
        *packages,
        *(path for package in packages for path in package.rglob("*") if path.is_dir()),
    ]
    sizes = {folder.relative_to(ROOT): len(list(folder.glob("[!_]*.py"))) for folder in folders}
    assert max(sizes.values()) <= 15, sizes


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        (
            "datamodules",
            {"lightning_modules", "engine", "reports", "hydra", "omegaconf", "train", "scripts"},
        ),
        ("lightning_modules", {"engine", "reports", "hydra", "omegaconf", "train", "scripts"}),
        *(
            (f"lightning_modules/{name}", {"lightning", "hydra", "wandb"})
            for name in ("networks", "losses", "metrics", "optim")
        ),
        ("run_folders", {*PACKAGES, "train", *HEAVY, "omegaconf"} - {"run_folders"}),
        ("reports", {*PACKAGES, *HEAVY, "omegaconf", "train"} - {"reports", "run_folders"}),
        ("keras_bert", set(PACKAGES) - {"keras_bert", "datamodules", "engine", "run_folders"}),
    ],
)
def test_folder_does_not_import(folder: str, forbidden: set[str]) -> None:
    for path in sources(folder):
        assert not roots(imports(path)) & forbidden, path


def test_lightning_modules_import_only_batches_from_datamodules() -> None:
    for path in sources("lightning_modules"):
        ours = {name for name in imports(path) if name.startswith("datamodules.")}
        assert all(name.startswith("datamodules.batches") for name in ours), path


def test_a_task_imports_no_callback_and_a_callback_no_concrete_task() -> None:
    concrete = {
        f"lightning_modules.{path.stem}" for path in (ROOT / "lightning_modules").glob("*.py")
    }
    concrete -= {f"lightning_modules.{name}" for name in ("base", "__init__")}
    assert "lightning_modules.text_classifier" in concrete
    for path in (ROOT / "lightning_modules").glob("*.py"):
        assert not any(name.startswith("lightning_modules.callbacks") for name in imports(path)), (
            path
        )
    for path in sources("lightning_modules/callbacks"):
        assert not imports(path) & concrete, path


def test_only_the_engine_imports_hydra() -> None:
    for folder in PACKAGES:
        if folder not in ("engine", "hydra_plugins"):
            for path in sources(folder):
                assert "hydra" not in roots(imports(path)), path


def test_hydras_instantiate_is_not_called() -> None:
    """It would build whatever a config names. `build_object` checks each name against its place."""
    names = {"hydra.utils.instantiate", "hydra.utils.call", "hydra.utils"}
    for path in [ROOT / "train.py", *(p for folder in PACKAGES for p in sources(folder))]:
        assert "hydra.utils.instantiate(" not in path.read_text(), path
        assert not imports(path) & names, path


def test_nothing_imports_the_entry_points() -> None:
    for folder in PACKAGES:
        for path in sources(folder):
            assert not roots(imports(path)) & {"train", "scripts"}, path


def test_only_the_entry_points_import_the_public_names() -> None:
    for folder in set(PACKAGES) - {"thaw", "scripts"}:
        for path in sources(folder):
            assert "thaw" not in roots(imports(path)), path


def test_nothing_imports_keras_bert() -> None:
    for folder in set(PACKAGES) - {"keras_bert"}:
        for path in sources(folder):
            assert "keras_bert" not in roots(imports(path)), path


@pytest.mark.parametrize(
    ("folder", "reached"),
    [("reports", "run_folders/run_folder.py"), ("keras_bert", "datamodules/reading/text_rows.py")],
)
def test_imports_from_other_packages_are_light(folder: str, reached: str) -> None:
    """Includes indirect imports.

    A page can be drawn without torch, and no process imports both TensorFlow and torch.
    """
    waiting, seen = sources(folder), set()
    while waiting:
        path = waiting.pop()
        for name in imports(path):
            assert name.split(".")[0] not in HEAVY, f"{path} imports {name}"
            for target in (
                ROOT / (name.replace(".", "/") + end) for end in (".py", "/__init__.py")
            ):
                if target.is_file() and target not in seen:
                    seen.add(target)
                    waiting.append(target)
    assert ROOT / reached in seen


def test_entry_points_import_nothing_heavy_at_the_top() -> None:
    light = [ROOT / "train.py", *sources("scripts"), *sources("thaw")]
    light.append(ROOT / "engine/config/composing/groups.py")
    light.append(ROOT / "engine" / "processes" / "outcome.py")
    for path in light:
        assert not roots(imports(path, top_level_only=True)) & (
            HEAVY | {"pandas", "matplotlib", "omegaconf"}
        ), path


def test_no_module_has_a_meaningless_name() -> None:
    named = {path.stem for folder in PACKAGES for path in sources(folder)}
    assert not named & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_monitor_and_mode_are_stated_once() -> None:
    stating = [
        path.name
        for path in (ROOT / "configs").rglob("*.yaml")
        if re.search(r"^(monitor|mode): (?!\$\{(mo|thaw\.mode))", path.read_text(), re.MULTILINE)
    ]
    assert stating == ["train.yaml"]
