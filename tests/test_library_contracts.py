"""Undocumented parts of other libraries that Thaw needs: private names, messages, orders of calls.

Each name and text is searched in the source of the installed library, so an upgrade that changes
it fails here by name. The tests at the end check what no source shows, such as orders of calls.
"""

import ast
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT


@dataclass(frozen=True)
class Text:
    """A name or a text of another library.

    Attributes:
        library: Path of the file that contains it, relative to the installed packages.
        token: The name or text.
    """

    library: str
    token: str

    def source(self) -> str | None:
        """Content of the library's file; None if the library is not installed."""
        package, _, rest = self.library.partition("/")
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return None
        return (Path(spec.origin).parent / rest).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Contract:
    """One part of a library that we need.

    Attributes:
        theirs: Names and texts of the library, each as "FILE: TEXT".
        ours: Our files that need them; "FILE: TEXT" if a file contains another text than `theirs`.
        reason: Why no public API suffices.
    """

    theirs: list[str]
    ours: list[str]
    reason: str

    @property
    def texts(self) -> list[Text]:
        """Names and texts that the library must contain."""
        return [Text(*entry.split(": ", 1)) for entry in self.theirs]

    @property
    def uses(self) -> list[tuple[str, str]]:
        """Our files, each with a text that it must contain."""
        entries = [entry.partition(": ") for entry in self.ours]
        return [
            (file, token)
            for file, _, text in entries
            for token in ([text] if text else [text.token for text in self.texts])
        ]


CONTRACTS = [
    Contract(
        [
            "hydra/core/global_hydra.py: self.hydra: Optional[Hydra]",
            "hydra/_internal/hydra.py: with_log_configuration: bool = True",
            "hydra/core/hydra_config.py: self.cfg: Optional[HydraConf]",
        ],
        [
            "engine/config/composing/composition.py: GlobalHydra.instance().hydra",
            "engine/launch.py: app.run(CONFIG_NAME, job, typed, with_log_configuration=False)",
            "engine/config/composing/composition.py: HydraConfig.instance().cfg",
        ],
        "compose() neither creates a run folder nor calls Hydra's callbacks, and hydra.main reads sys.argv",
    ),
    Contract(
        [
            *(
                f"timm/layers/attention.py: self.{name}"
                for name in ("qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop")
            ),
            *(
                f"timm/models/vision_transformer.py: self.{name}"
                for name in ("norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2")
            ),
            "torch/utils/module_tracker.py: self._known_modules[submod] = f\"{mod_name}.{name}\"",
        ],
        [
            "lightning_modules/networks/tokens/merging.py: attention.gate",
            "lightning_modules/networks/tokens/merging.py: layers.drop_path1",
            'lightning_modules/networks/dividing/counting.py: f"{root}.{name}"',
        ],
        "ToMe merges between attention and MLP, where timm's blocks have no seam; the counter names modules by their path",
    ),
    Contract(
        [
            "lightning/pytorch/trainer/trainer.py: _signal_connector",
            "lightning/pytorch/trainer/connectors/signal_connector.py: register_signal_handlers",
        ],
        ["engine/trainer.py"],
        "Lightning's handler of SIGTERM waits for ranks that may be gone; there is no argument that leaves it out",
    ),
    Contract(
        ["lightning/pytorch/strategies/ddp.py: not used in producing the loss"], ["engine/processes/devices.py"],
        "DDP's error about parameters without a gradient has no class of its own",
    ),
    Contract(
        [
            "lightning/pytorch/trainer/connectors/callback_connector.py: tuner_callbacks + other_callbacks + checkpoint_callbacks",
            'lightning/pytorch/loops/fit_loop.py: "on_train_epoch_end", monitoring_callbacks=True',
            'lightning/pytorch/loops/training_epoch_loop.py: self.update_lr_schedulers("step", update_plateau_schedulers=True)',
            "lightning/pytorch/loops/training_epoch_loop.py: return self.trainer.callback_metrics.get(key)",
            "lightning/pytorch/trainer/connectors/logger_connector/logger_connector.py: return self._callback_metrics",
            'lightning/fabric/utilities/data.py: getattr(batch_sampler, "sampler", None)',
            "lightning/pytorch/trainer/call.py: logger.finalize(",
        ],
        [
            "lightning_modules/callbacks/history.py: (Checkpoint)",
            "lightning_modules/callbacks/curves.py: (Checkpoint)",
            "lightning_modules/callbacks/pruning.py: (Checkpoint)",
            'lightning_modules/optimization.py: "frequency": batches',
            "lightning_modules/base.py: callback_metrics.update(",
            "datamodules/batching/order.py: self.sampler = ",
            "engine/recording.py: logger.finalize = ",
        ],
        "Lightning documents no order of these calls; a fit below checks it",
    ),
    Contract(
        [
            "lightning/pytorch/trainer/connectors/data_connector.py: does not have many workers",
            "lightning/pytorch/loops/fit_loop.py: smaller than the logging interval",
            "lightning/pytorch/callbacks/model_checkpoint.py: exists and is not empty",
            "torch/utils/_pytree.py: isinstance(treespec, LeafSpec)",
            "lightning/pytorch/trainer/connectors/logger_connector/result.py: sync_dist=True",
            "lightning/pytorch/trainer/connectors/logger_connector/result.py: when logging on epoch level in distributed setting",
            "lightning/pytorch/loops/fit_loop.py: module(s) in eval mode at the start of training",
            "PIL/Image.py: Image size",
            "PIL/Image.py: exceeds limit",
            "lightning/pytorch/loggers/mlflow.py: not found. Creating it.",
        ],
        ["engine/processes/library_warnings.py: filterwarnings", "engine/processes/library_warnings.py: not found. Creating it."],
        "warnings that are silenced have no classes of their own",
    ),
    Contract(
        ["torch/nn/functional.py: Expected more than 1 value per channel"], ["lightning_modules/segmenter.py"],
        "BatchNorm's error about a single value has no class of its own",
    ),
    Contract(
        ["optuna/trial/_trial.py: _trial_id"], ["engine/sweeps/search.py"],
        "a trial in another process is known to the storage by this number alone",
    ),
    Contract(
        ["hydra/core/override_parser/types.py: _convert_value"], ["engine/sweeps/overrides.py"],
        "Hydra converts quoted choices with this private function",
    ),
    Contract(
        ["hydra/core/config_loader.py: compute_defaults_list"], ["engine/config/composing/sources.py"],
        "no public function returns the file that states a key",
    ),
    Contract(
        ["omegaconf/_utils.py: ex.full_key = full_key"], ["engine/command_line/explaining.py: __cause__.full_key"],
        "only `full_key` names the missing part of a key; a test below checks it",
    ),
    Contract(
        [
            "transformers/configuration_utils.py: _attn_implementation",
            "transformers/modeling_utils.py: _supports_attention_backend",
        ],
        ["lightning_modules/networks/kernels/cpu_layers.py"],
        "there are no public names for which attention a network has, and whether another can be set",
    ),
    Contract(
        ["lightning/fabric/plugins/precision/amp.py: _step_supports_amp_scaling"], ["lightning_modules/optim/optimizers.py"],
        "Lightning refuses to clip where a fused optimizer unscales by itself",
    ),
    Contract(["torch/optim/adam.py: grad_scale"], ["lightning_modules/optim/optimizers.py"], "a fused optimizer clips in its own pass by it"),
    Contract(
        [
            "timm/models/_builder.py: logging.getLogger(__name__)",
            "timm/models/_builder.py: Missing keys (",
            "timm/models/_builder.py: Unexpected keys (",
        ],
        [
            "lightning_modules/networks/backbones/image_weights.py: timm.models._builder",
            'lightning_modules/networks/backbones/image_weights.py: "Missing"',
            'lightning_modules/networks/backbones/image_weights.py: "Unexpected"',
            "lightning_modules/networks/backbones/image_weights.py: keys (",
        ],
        "timm writes the names of missing weights to its log only",
    ),
    Contract(
        ["lightning/pytorch/loggers/wandb.py: _wandb_init", "lightning/pytorch/loggers/wandb.py: _experiment"],
        ["lightning_modules/loggers/wandb.py"],
        "Lightning's class passes neither these arguments nor an exit code to W&B",
    ),
    Contract(
        ["wandb/sdk/lib/wbauth/authenticate.py: authenticate_session"], ["lightning_modules/loggers/wandb.py"],
        "checks for a key without prompting",
    ),
    Contract(
        ["wandb_workspaces/workspaces/interface.py: _to_model"], ["reports/wandb_dashboard.py"], "the public API can only save",
    ),
    Contract(
        ["tensorboard/compat/__init__.py: notf"], ["engine/publishing/loggers.py"], "TensorBoard would load all of TensorFlow to open a file",
    ),
    Contract(
        ["torchmetrics/metric.py: _to_sync"], ["lightning_modules/metrics/totals.py"],
        "only this flag says whether `compute` synchronises; we synchronise by hand where a rank has no batch",
    ),
    Contract(
        ["PIL/ImageFile.py: image file is truncated"], ["datamodules/images/decoding.py: truncated"],
        "Pillow's error about a file that ends early has no class of its own",
    ),
    Contract(
        [
            "keras/src/optimizers/base_optimizer.py: _var_key",
            "keras/src/optimizers/base_optimizer.py: _get_variable_index",
            "keras/src/optimizers/adam.py: _momentums",
            "keras/src/optimizers/adam.py: _velocities",
        ],
        ["keras_bert/training/optimization.py"],
        "the fused step needs each variable's moments, which only private names return",
    ),
    Contract(
        ["keras/src/backend/tensorflow/trainer.py: _maybe_symbolic_build"], ["keras_bert/training/trainable.py"],
        "Keras would take a batch to see shapes, and a resumed run would miss it",
    ),
    Contract(
        ["keras/src/backend/tensorflow/optimizer.py: _all_reduce_sum_gradients"], ["keras_bert/training/optimization.py"],
        "gradients are clipped after the replicas' sum, for which there is no hook",
    ),
]  # fmt: skip
TEXTS = [(text, contract.reason) for contract in CONTRACTS for text in contract.texts]
# Functions that take the name of an attribute.
BY_NAME = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller", "patch"}


def has(source: str, token: str) -> bool:
    """Whether a source contains a name or text, and not only as part of a longer name."""
    return re.search(rf"(?<!\w){re.escape(token)}(?!\w)", source) is not None


def check(text: Text, reason: str) -> None:
    source = text.source()
    if source is None:
        pytest.skip(f"{text.library.partition('/')[0]} is not installed")
    assert has(source, text.token), f"{text.library} has no {text.token} any more: {reason}"


@pytest.mark.parametrize(("text", "reason"), TEXTS, ids=[text.token for text, _ in TEXTS])
def test_the_library_contains_the_text(text: Text, reason: str) -> None:
    check(text, reason)


@pytest.mark.parametrize(("text", "reason"), TEXTS, ids=[text.token for text, _ in TEXTS])
def test_a_change_in_the_library_is_noticed(
    text: Text, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes the text in a copy of the library's file."""
    source = text.source()
    if source is None:
        pytest.skip(f"{text.library.partition('/')[0]} is not installed")
    (tmp_path / "copy.py").write_text(
        source.replace(text.token, f"{text.token}_2"), encoding="utf-8"
    )
    monkeypatch.setattr(
        Text, "source", lambda _: (tmp_path / "copy.py").read_text(encoding="utf-8")
    )
    with pytest.raises(AssertionError, match="any more"):
        check(text, reason)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.texts[0].token)
def test_our_files_need_the_text(contract: Contract) -> None:
    for file, token in contract.uses:
        assert token in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {token}"


def test_every_silenced_warning_is_listed() -> None:
    """Splits the patterns of `engine/processes/library_warnings.py` at `.*`."""
    calls = (
        node
        for node in ast.walk(ast.parse((ROOT / "engine/processes/library_warnings.py").read_text()))
        if isinstance(node, ast.Call)
    )
    filters = [node for node in calls if ast.unparse(node.func) == "warnings.filterwarnings"]
    patterns = [
        ast.literal_eval(keyword.value)
        for node in filters
        for keyword in node.keywords
        if keyword.arg == "message"
    ]
    assert len(patterns) == len(filters) > 0
    parts = {
        part.replace("\\", "").strip() for pattern in patterns for part in pattern.split(".*")
    } - {""}
    (listed,) = (
        contract.texts
        for contract in CONTRACTS
        if contract.ours[0] == "engine/processes/library_warnings.py: filterwarnings"
    )
    assert parts == {text.token for text in listed} - {
        "not found. Creating it."
    }  # a log message, not a warning


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.endswith("__")


def private_names(source: str) -> set[str]:
    """Private names that a file accesses with a dot or passes to a function of `BY_NAME`."""
    found: set[Any] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in BY_NAME:
            found |= {
                argument.value for argument in node.args if isinstance(argument, ast.Constant)
            }
    return {name for name in found if is_private(name)}


def own_names(source: str) -> set[str]:
    """Names that a file defines: functions, classes, variables, and attributes of `self`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value) == "self"
        ):
            found.add(node.attr)
    return found


def test_the_list_is_short_and_complete() -> None:
    """Every private name that our files use and do not define is listed."""
    assert len(CONTRACTS) <= 25
    folders = (
        "run_folders",
        "engine",
        "datamodules",
        "lightning_modules",
        "reports",
        "keras_bert",
        "thaw",
        "scripts",
        "hydra_plugins",
    )
    files = [
        ROOT / "train.py",
        *(path for folder in folders for path in (ROOT / folder).rglob("*.py")),
    ]
    sources = [path.read_text(encoding="utf-8") for path in files]
    ours = {name for source in sources for name in own_names(source)} | {"_target_"}
    foreign = {name for source in sources for name in private_names(source)} - ours
    assert "_supports_attention_backend" in foreign  # passed as a string
    assert foreign <= {text.token for text, _ in TEXTS}


def test_private_names_are_found_in_every_kind_of_access() -> None:
    source = "a._b; getattr(c, '_d', 1); operator.attrgetter('_e'); f.setattr(g, '_h', 2); i.__class__; print('_j')"
    assert private_names(source) == {"_b", "_d", "_e", "_h"}
    assert own_names("self._a = 1; other._b = 2; _c = 3") == {"_a", "_c"}


def test_lightning_calls_in_the_order_that_we_rely_on(tmp_path: Path) -> None:
    """Each place in our code that relies on this order has a comment."""
    import lightning
    import torch
    from lightning.pytorch.callbacks import Checkpoint
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

    calls: list[str] = []

    class Plateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: int | None = None) -> None:
            calls.append(f"plateau at {float(metrics)}")
            super().step(metrics, epoch)

    class Order(SequentialSampler):
        def set_epoch(self, epoch: int) -> None:
            calls.append(f"order of epoch {epoch}")

    class Plain(lightning.Callback):
        def on_train_epoch_end(self, *_: object) -> None:
            calls.append("callback")

    class Kept(Checkpoint):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_train_epoch_end(self, *_: object) -> None:
            calls.append(self.name)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            calls.append("batch")
            return self.layer(batch).sum()

        def validation_step(self, batch: Any) -> None:
            pass

        def test_step(self, batch: Any) -> None:
            pass

        def on_validation_epoch_end(self) -> None:
            calls.append("validated")
            self.trainer.callback_metrics.update({"val/acc": torch.tensor(0.5)})

        def on_train_epoch_end(self) -> None:
            calls.append("task")

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            when = {
                "scheduler": Plateau(optimizer),
                "interval": "step",
                "frequency": 2,
                "monitor": "val/acc",
            }
            return {"optimizer": optimizer, "lr_scheduler": when}

    data = torch.ones(2, 1)
    logger = CSVLogger(tmp_path)
    logger.finalize = lambda *_: calls.append("logger ended")  # type: ignore[method-assign]
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[Kept("first"), Plain(), Kept("second")], logger=logger,
        num_sanity_val_steps=0, log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    assert [type(one) for one in trainer.callbacks if isinstance(one, Plain | Kept)] == [
        Plain,
        Kept,
        Kept,
    ]  # type: ignore[attr-defined]
    loader = DataLoader(data, batch_sampler=BatchSampler(Order(data), 1, drop_last=False))  # type: ignore[arg-type]
    model, plain = Module(), DataLoader(data)  # type: ignore[arg-type]
    trainer.fit(model, loader, plain)
    trainer.test(model, plain, verbose=False)
    epoch = ["batch", "batch", "validated", "plateau at 0.5", "callback", "task", "first", "second"]
    assert calls == [
        "order of epoch 0",
        *epoch,
        "order of epoch 1",
        *epoch,
        "logger ended",
        "logger ended",
    ]


def test_hydra_names_the_first_missing_part_of_a_key() -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError

    config = OmegaConf.create({"model": {"lr": 1}})
    OmegaConf.set_struct(config, True)
    with pytest.raises(ConfigKeyError) as raised:
        OmegaConf.update(config, "model.depth.of.it", 1)
    assert raised.value.full_key == "model.depth"


def test_torch_reports_missing_deterministic_implementations_with_this_text() -> None:
    """`engine/run.py` needs this text: the error comes from compiled code and has no own class."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            torch.zeros(2, 2).put_(torch.tensor([0]), torch.ones(1))
    finally:
        torch.use_deterministic_algorithms(before)
