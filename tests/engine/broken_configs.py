"""Config files with one fault each: for the schemas, and for the validation of a run."""

_TEXT = "defaults: [text, _self_]\n"
_MODEL = "defaults: [text_classifier, _self_]\n"
_TRAINER = "defaults: [default, _self_]\n"
_HEADS = "_target_: lightning_modules.networks.heads"
_WHOLE = (
    "_target_: datamodules.text.TextDataModule\n"
    "folder: moods\n"
    "files: {train: train.csv, val: null, test: null}\n"
    "tokenizer: {vocab_size: 100}\n"
    "num_classes: 2\n"
)

# Fault -> group of the file, its text, and the key that is reported. A file with a defaults list
# changes the node of a default run, and another one replaces it.
BROKEN = {
    "mistyped key": ("data", f"{_TEXT}max_lenght: 64", "data.max_lenght"),
    "text for a number": ("data", f"{_TEXT}batch_size: many", "data.batch_size"),
    "number in quotes": ("data", f"{_TEXT}batch_size: '32'", "data.batch_size"),
    "number with a point": ("data", f"{_TEXT}batch_size: 32.5", "data.batch_size"),
    "too small": ("data", f"{_TEXT}max_length: 2", "data.max_length"),
    "too large": ("data", f"{_TEXT}val_fraction: 1.5", "data.val_fraction"),
    "not one of the words": ("data", f"{_TEXT}on_bad_rows: ignore", "data.on_bad_rows"),
    "unknown key of a mapping": ("data", f"{_TEXT}cleaning: {{htlm: true}}", "data.cleaning.htlm"),
    "text for true in a mapping": (
        "data",
        f"{_TEXT}cleaning: {{html: 'yes'}}",
        "data.cleaning.html",
    ),
    "text for a mapping": ("data", f"{_TEXT}files: train.csv", "data.files"),
    "list for a mapping": ("data", f"{_WHOLE}cleaning: [html]", "data.cleaning"),
    "list for a text": ("data", f"{_TEXT}folder: [a, b]", "data.folder"),
    "text for a list": ("data", f"{_TEXT}classes: fake", "data.classes"),
    "numbers for texts": ("data", f"{_TEXT}classes: [0, 1]", "data.classes"),
    "below the name of the group": ("data", f"{_TEXT}data: {{max_lenght: 64}}", "data.max_lenght"),
    "missing key": ("data", _WHOLE.replace("folder: moods\n", ""), "data.folder"),
    "missing class": ("data", "num_classes: 2", "data"),
    "class of another place": ("data", "_target_: torch.nn.ReLU\nnum_classes: 2", "data._target_"),
    "mistyped class": (
        "data",
        _WHOLE.replace("TextDataModule", "TextDatamodule"),
        "data._target_",
    ),
    "key of another class": (
        "model",
        "_target_: lightning_modules.image_classifier.ImageClassifier\n"
        "backbone: resnet18\nnum_classes: 2\npooling: mean",
        "model.pooling",
    ),
    "negative": ("model", f"{_MODEL}lr: -1", "model.lr"),
    "text for true": ("model", f"{_MODEL}freeze_backbone: 'true'", "model.freeze_backbone"),
    "name for a node": ("model", f"{_MODEL}loss: focal", "model.loss"),
    "range of a head": ("head", f"{_HEADS}.BiGRUHead\nhidden: 0", "model.head.hidden"),
    "network for a head": ("head", "_target_: torch.nn.Linear", "model.head._target_"),
    "passed by the engine": ("head", f"{_HEADS}.LinearHead\nwidth: 3", "model.head.width"),
    "refused key of a loss": (
        "loss",
        "_target_: torch.nn.CrossEntropyLoss\nreduction: sum",
        "model.loss.reduction",
    ),
    "network for a loss": ("loss", "_target_: torch.nn.ReLU", "model.loss._target_"),
    "refused key of an optimizer": (
        "optimizer",
        "_target_: torch.optim.SGD\nlr: 0.1",
        "model.optimizer.lr",
    ),
    "loss for an optimizer": (
        "optimizer",
        "_target_: lightning_modules.losses.CrossEntropy",
        "model.optimizer._target_",
    ),
    "range of a schedule": (
        "schedule",
        "_target_: lightning_modules.optim.schedules.linear\nwarmup: 2",
        "model.schedule.warmup",
    ),
    "callback without a class": ("callbacks", "early: {patience: 3}", "callbacks.early"),
    "text for callbacks": ("experiment", "callbacks: early_stopping", "callbacks"),
    "type of a callback's key": (
        "callbacks",
        "early: {_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss,"
        " patience: many}",
        "callbacks.early.patience",
    ),
    "callback for a logger": (
        "logger",
        "a: {_target_: lightning.pytorch.callbacks.Timer}",
        "logger.a._target_",
    ),
    "mistyped key of the trainer": ("trainer", f"{_TRAINER}max_epoch: 3", "trainer.max_epoch"),
    "unknown precision": ("trainer", f"{_TRAINER}precision: fp8", "trainer.precision"),
    "refused key of the trainer": ("trainer", f"{_TRAINER}logger: false", "trainer.logger"),
    "unknown key of the config": ("experiment", "sed: 2", "sed"),
    "seed below 0": ("experiment", "seed: -1", "seed"),
    "text for a switch": ("experiment", "train: 'no'", "train"),
    "unknown direction": ("experiment", "mode: largest", "mode"),
    "unknown key of the cache": ("experiment", "cache: {feature: true}", "cache.feature"),
    "range of the cache": ("experiment", "cache: {max_gb: 0}", "cache.max_gb"),
    "unknown path": ("experiment", "paths: {data: birds}", "paths.data"),
    "unknown key of a part": ("experiment", "model: {head: {hiden: 3}}", "model.head.hiden"),
    "unknown key of an optimizer": (
        "experiment",
        "model: {optimizer: {momentun: 0.9}}",
        "model.optimizer.momentun",
    ),
}
