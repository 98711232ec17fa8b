"""README, dependencies and tracked files are complete for someone who has just cloned them."""

import re
import subprocess
import tomllib

from engine.config.composing.sources import PARTS
from tests.conftest import ROOT
from tests.test_experiments import EXPERIMENTS

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_readme_has_two_set_up_commands_and_a_picture() -> None:
    set_up = README.split("## Set up")[1].split("## ")[0]
    assert re.findall(r"^pip .*$", set_up, re.MULTILINE) == [
        "pip install -e . && python train.py",
        "pip install -e '.[dev]' && pytest",
    ]
    picture = re.search(r"!\[[^]]+\]\(([^)]+\.png)\)", README)
    assert picture
    assert (ROOT / picture[1]).read_bytes().startswith(b"\x89PNG")


def rows(first: str, page: str) -> dict[str, str]:
    """Return name -> row of all tables of a page whose first column has this heading."""
    tables = re.findall(rf"^\| {first} \|.*\n\|[ |-]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    found = re.findall(r"^\| `(\w+)` \|(.*)$", "".join(tables), re.MULTILINE)
    assert len(found) == "".join(tables).count("\n")
    return dict(found)


def test_the_results_list_every_experiment() -> None:
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert rows("experiment", benchmarks).keys() == set(EXPERIMENTS)
    assert rows("experiment", README).keys() <= set(EXPERIMENTS)


def test_the_readme_has_the_results_of_the_benchmarks() -> None:
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    known = rows("experiment", benchmarks)
    for name, row in rows("experiment", README).items():
        assert {*re.findall(r"0\.\d+", row)} <= {*re.findall(r"0\.\d+", known[name])}, name


def test_the_options_page_lists_every_option_of_the_parts_of_a_model() -> None:
    page = (ROOT / "docs" / "how-to" / "training_options.md").read_text(encoding="utf-8")
    for group, row in rows("group", page).items():
        options = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
        assert options
        assert options <= set(re.findall(r"`(\w+)`", row)), group
    assert rows("group", page).keys() == PARTS


def test_every_dependency_states_a_lower_bound_and_a_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    stated = [
        *PROJECT["dependencies"],
        *(d for group in PROJECT["optional-dependencies"].values() for d in group),
    ]
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    for dependency in stated:
        assert ">=" in dependency, dependency
        line = next(line for line in lines if f'"{dependency}"' in line)
        assert len(line.split("#", 1)[1].strip()) > 10, dependency


def test_every_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    files = subprocess.run(
        ["git", "ls-files", "*/__init__.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    packages = {file.removesuffix("/__init__.py").replace("/", ".") for file in files}
    # docs has an example of an own package, which is installed by itself.
    own = {name for name in packages if name.split(".")[0] not in ("tests", "benchmarks", "docs")}
    assert own | {"thaw.configs"} == set(project["tool"]["setuptools"]["packages"])


def test_every_config_is_tracked() -> None:
    """An ignore rule once hid a whole config group, which existed here but in no clone."""
    tracked = subprocess.run(
        ["git", "ls-files", "configs/*.yaml"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert sorted(tracked) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")
    )


def test_readme_has_no_gaps() -> None:
    assert not re.findall(r"@[A-Z]+@|TODO|\?\?\?", README)


def test_no_file_contains_a_path_of_this_machine() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in files:
        path = ROOT / name
        if path.suffix not in (".png", ".xz") and path.is_file():
            text = path.read_text(encoding="utf-8")
            assert str(ROOT.parent) + "/" not in text, name


def test_the_code_of_the_guide_is_that_of_the_example() -> None:
    guide = (ROOT / "docs" / "how-to" / "add_a_kind_of_task.md").read_text()
    example = ROOT / "docs" / "examples" / "thaw_birds" / "thaw_birds"
    sources = [path.read_text() for path in [*example.rglob("*.py"), *example.rglob("*.yaml")]]
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) > 10
    for block in blocks:
        assert any(block in source for source in sources), block
