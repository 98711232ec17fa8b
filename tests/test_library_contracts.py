"""What Thaw relies on in other libraries beyond their documentation: private names, texts of messages.

Each entry is looked up in the source of the installed library, so an upgrade that changes it fails here by name. Nothing is imported.
"""

import ast
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import ROOT


@dataclass(frozen=True)
class Contract:
    """A name or a text of another library.

    Attributes:
        token: The name or text.
        library: File that has it, from the folder of installed packages.
        ours: Our file that needs it.
        reason: Why no public way serves.
    """

    token: str
    library: str
    ours: str
    reason: str

    def source(self) -> str | None:
        """The library's file; None where the library is not installed."""
        package, _, rest = self.library.partition("/")
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return None
        return (Path(spec.origin).parent / rest).read_text(encoding="utf-8")


CONTRACTS = [
    Contract(
        "_signal_connector", "lightning/pytorch/trainer/trainer.py", "engine/build.py",
        "Lightning's handler of SIGTERM waits for ranks that may be gone; there is no argument that leaves it out",
    ),
    Contract(
        "register_signal_handlers", "lightning/pytorch/trainer/connectors/signal_connector.py", "engine/build.py",
        "the method of it that installs the handlers",
    ),
    Contract(
        "not used in producing the loss", "lightning/pytorch/strategies/ddp.py", "engine/devices.py",
        "DDP's error about parameters without a gradient has no class of its own",
    ),
    Contract(
        "Expected more than 1 value per channel", "torch/nn/functional.py", "lightning_modules/segmenter.py",
        "BatchNorm's error about a single value has no class of its own",
    ),
    Contract(
        "_trial_id", "optuna/trial/_trial.py", "engine/search.py",
        "a trial in another process is known to the storage by this number alone",
    ),
    Contract(
        "_convert_value", "hydra/core/override_parser/types.py", "engine/search_words.py",
        "Hydra's own reading of quoted choices",
    ),
    Contract(
        "compute_defaults_list", "hydra/core/config_loader.py", "engine/composing.py",
        "no public function returns the file that states a key",
    ),
    Contract(
        "_attn_implementation", "transformers/configuration_utils.py", "lightning_modules/networks/cpu_layers.py",
        "there is no public name for reading it",
    ),
    Contract(
        "_step_supports_amp_scaling", "lightning/fabric/plugins/precision/amp.py", "lightning_modules/optim.py",
        "Lightning refuses to clip where a fused optimizer unscales by itself",
    ),
    Contract("grad_scale", "torch/optim/adam.py", "lightning_modules/optim.py", "a fused optimizer clips in its own pass by it"),
    Contract(
        "logging.getLogger(__name__)", "timm/models/_builder.py", "lightning_modules/networks/image_weights.py",
        "timm writes the names of missing weights to its log only",
    ),
    Contract(
        "_wandb_init", "lightning/pytorch/loggers/wandb.py", "lightning_modules/loggers/wandb.py",
        "arguments of wandb.init that Lightning's class does not take",
    ),
    Contract(
        "authenticate_session", "wandb/sdk/lib/wbauth/authenticate.py", "lightning_modules/loggers/wandb.py",
        "whether there is a key, without a question on the terminal",
    ),
    Contract("_to_model", "wandb_workspaces/workspaces/interface.py", "reports/wandb_dashboard.py", "saving is all that is public"),
    Contract(
        "notf", "tensorboard/compat/__init__.py", "engine/publishing.py",
        "TensorBoard would load all of TensorFlow to open a file",
    ),
    Contract(
        "_experiment", "lightning/pytorch/loggers/wandb.py", "lightning_modules/loggers/wandb.py",
        "the run that begins with our arguments and ends with an exit code",
    ),
    Contract(
        "_to_sync", "torchmetrics/metric.py", "lightning_modules/totals.py",
        "whether a metric's own compute would share its sums, which is done by hand where a rank has no batch",
    ),
    Contract(
        "image file is truncated", "PIL/ImageFile.py", "datamodules/image_decoding.py",
        "Pillow's error about a file that ends early has no class of its own",
    ),
    Contract("_var_key", "keras/src/optimizers/base_optimizer.py", "keras_bert/optimization.py", "tells variables apart on a replica"),
    Contract(
        "_get_variable_index", "keras/src/optimizers/base_optimizer.py", "keras_bert/optimization.py",
        "the place of a variable's moments",
    ),
    Contract("_momentums", "keras/src/optimizers/adam.py", "keras_bert/optimization.py", "Adam's step is one operation on them"),
    Contract("_velocities", "keras/src/optimizers/adam.py", "keras_bert/optimization.py", "the same"),
    Contract(
        "_maybe_symbolic_build", "keras/src/backend/tensorflow/trainer.py", "keras_bert/fitting.py",
        "Keras would take a batch to see shapes, and a resumed run would miss it",
    ),
    Contract(
        "_all_reduce_sum_gradients", "keras/src/backend/tensorflow/optimizer.py", "keras_bert/optimization.py",
        "gradients are clipped after the replicas' sum, for which there is no hook",
    ),
]  # fmt: skip


def has(source: str, token: str) -> bool:
    """Whether a source has a name or a text, and not only a longer one that it is a part of."""
    return re.search(rf"(?<!\w){re.escape(token)}(?!\w)", source) is not None


@pytest.fixture(params=CONTRACTS, ids=lambda contract: contract.token)
def contract(request: pytest.FixtureRequest) -> Contract:
    return request.param  # type: ignore[no-any-return]


def check(contract: Contract) -> None:
    source = contract.source()
    if source is None:
        pytest.skip(f"{contract.library.partition('/')[0]} is not installed")
    assert has(source, contract.token), f"{contract.library} has no {contract.token} any more: {contract.reason}"


def test_the_library_has_it(contract: Contract) -> None:
    check(contract)


def test_a_library_that_changes_it_is_noticed(contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of the library's file with another name."""
    source = contract.source()
    if source is None:
        pytest.skip(f"{contract.library.partition('/')[0]} is not installed")
    (tmp_path / "copy.py").write_text(source.replace(contract.token, f"{contract.token}_2"), encoding="utf-8")
    monkeypatch.setattr(Contract, "source", lambda _: (tmp_path / "copy.py").read_text(encoding="utf-8"))
    with pytest.raises(AssertionError, match="any more"):
        check(contract)


def test_we_need_it(contract: Contract) -> None:
    word = {"timm": "timm.models._builder", "PIL": "truncated"}.get(contract.library.partition("/")[0], contract.token)
    assert word in (ROOT / contract.ours).read_text(encoding="utf-8")


def private_names(path: Path) -> set[str]:
    """Names with an underscore that a file takes from objects."""
    attributes = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute))
    return {node.attr for node in attributes if node.attr.startswith("_") and not node.attr.endswith("__")}


def own_names(path: Path) -> set[str]:
    """Names that a file defines: functions, classes, variables, and attributes that it sets."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def test_the_list_is_short_and_whole() -> None:
    """Every private name that our files take and do not define is listed."""
    assert len(CONTRACTS) <= 25
    folders = ("run_folders", "engine", "datamodules", "lightning_modules", "reports", "keras_bert", "scripts", "hydra_plugins")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    ours = {name for path in files for name in own_names(path)} | {"_target_"}
    foreign = {name for path in files for name in private_names(path)} - ours
    assert foreign
    assert foreign <= {contract.token for contract in CONTRACTS}


def test_torch_says_what_is_not_deterministic() -> None:
    """The text of `engine/run.py`, which stands in torch's compiled part; there is no class of its own."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            torch.zeros(2, 2).put_(torch.tensor([0]), torch.ones(1))
    finally:
        torch.use_deterministic_algorithms(before)
