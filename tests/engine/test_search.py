"""The search: asking and telling trials, shared studies, pruning and resuming."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from engine.sweeps.search import AskedTrial, Search
from engine.sweeps.search_settings import Settings
from engine.sweeps.space import SearchError, check_space, override_value
from engine.sweeps.study import open_storage, reporter
from run_folders.run_folder import RunFolder
from run_folders.sweep import Sweep
from tests.conftest import SAMPLE
from tests.engine.conftest import RunSweep
from tests.engine.test_sweeps import history, states
from tests.pausing import pausing
from tests.processes import TEXTS, run, start, wait_for

LR = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}
SPACE: dict[str, Any] = {
    "model.lr": LR,
    "head": {"type": "categorical", "choices": ["linear", "bigru"]},
    "model.head.hidden": {"type": "int", "low": 8, "high": 64, "when": {"head": "bigru"}},
    "model.pooling": {
        "type": "categorical",
        "choices": ["cls", "mean"],
        "when": {"head": ["linear"]},
    },
}


def settings(**changes: Any) -> Settings:
    defaults: dict[str, Any] = {
        "space": SPACE, "n_trials": 8, "objectives": {"val/acc": "max"}, "monitored": {"val/acc": "max"}, "sampler": "tpe", "sampler_options": {}, "pruner": "none",
        "pruner_options": {},
        "seed": 3, "max_epochs": 4, "storage": None, "study_name": None,
    }  # fmt: skip
    return Settings(**{**defaults, **changes})


def write_run_of(
    folder: Path, asked: AskedTrial, state: str = "finished", **metrics: float
) -> None:
    """Write the files that a run of this trial would write."""
    run = RunFolder(folder / asked.job)
    run.write_status(state, "fit", "broken" if state == "failed" else None)
    run.write_json(
        "overrides.json",
        {"words": [w for w in asked.overrides if not w.startswith(("sweep.", "hydra."))]},
    )
    if state == "finished":
        val, counts = {"n": 1, **(metrics or {"acc": 0.5})}, {"total": 1, "trainable": 1}
        seconds = {"fit": 2.0, "test": None, "epoch_mean": 2.0}
        written = {"val": val, "best": {}, "parameters": counts, "seconds": seconds}
        run.write_json("metrics.json", written)


def overrides_of(asked: AskedTrial) -> dict[str, str]:
    return dict(override.split("=", 1) for override in asked.overrides)


def run_trials(folder: Path, search: Search, stop_after: int = 10**9) -> list[dict[str, str]]:
    """Run trials whose metric is their learning rate."""
    seen = []
    while (asked := search.ask(1)) and len(seen) < stop_after:
        seen.append(
            {k: v for k, v in overrides_of(asked[0]).items() if k.startswith(("head", "model."))}
        )
        write_run_of(folder, asked[0], acc=float(seen[-1]["model.lr"]))
        search.tell(asked)
    return seen


def test_conditions_hold_and_the_same_seed_asks_the_same_trials(tmp_path: Path) -> None:
    first = run_trials(tmp_path / "a", Search(tmp_path / "a", settings(), "a"))
    second = run_trials(tmp_path / "b", Search(tmp_path / "b", settings(), "b"))
    other = run_trials(tmp_path / "c", Search(tmp_path / "c", settings(seed=4), "c"))
    assert len(first) == 8
    assert first == second != other
    for chosen in first:
        assert ("model.head.hidden" in chosen) == (chosen["head"] == "bigru")
        assert ("model.pooling" in chosen) == (chosen["head"] == "linear")
        assert 1e-4 <= float(chosen["model.lr"]) <= 1e-1
    assert {chosen["head"] for chosen in first} == {"linear", "bigru"}


def test_trials_of_a_study_of_version_0_1_have_the_present_keys(tmp_path: Path) -> None:
    old = {
        "model.head": {"type": "categorical", "choices": ["bigru"]},
        "model.hidden": {"type": "int", "low": 8, "high": 8, "when": {"model.head": "bigru"}},
    }
    (asked,) = Search(tmp_path, settings(space=old), "s").ask(1)
    assert asked.overrides[:2] == ["head=bigru", "model.head.hidden=8"]
    assert Search(tmp_path, settings(space=old), "s").ask(1) == [asked]  # read from the storage


def test_a_resumed_study_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = run_trials(tmp_path / "a", Search(tmp_path / "a", settings(), "a"))
    first = run_trials(
        tmp_path / "b", Search(tmp_path / "b", settings(), "b"), stop_after=3
    )  # the fourth is asked but not run
    second = Search(tmp_path / "b", settings(), "b")
    rest = run_trials(tmp_path / "b", second)
    assert len(second.study.trials) == 8
    assert [*first, *rest] == whole
    assert {trial.state for trial in second.study.trials} == {TrialState.COMPLETE}


def test_a_failed_trial_runs_again_in_the_next_sweep_with_the_same_values(tmp_path: Path) -> None:
    search = Search(tmp_path, settings(n_trials=2), "s")
    (bad,) = search.ask(1)
    write_run_of(tmp_path, bad, "failed")
    search.tell([bad])
    (good,) = search.ask(1)
    write_run_of(tmp_path, good)
    search.tell([good])
    assert search.ask(1) == []  # within this sweep, a failed trial counts
    again = Search(tmp_path, settings(n_trials=2), "s")
    (retried,) = again.ask(1)
    assert retried.job == bad.job
    assert {k: v for k, v in overrides_of(retried).items() if k.startswith(("head", "model."))} == {
        k: v for k, v in overrides_of(bad).items() if k.startswith(("head", "model."))
    }
    write_run_of(tmp_path, retried)
    again.tell([retried])
    assert again.ask(1) == []
    third = Search(tmp_path, settings(n_trials=2), "s")
    assert third.ask(1) == []  # and is not asked for a third time


@pytest.mark.parametrize("kind", ["file", "database"])
def test_machines_share_a_study_and_its_total(kind: str, tmp_path: Path) -> None:
    storage = (
        str(tmp_path / "study.log") if kind == "file" else f"sqlite:///{tmp_path / 'study.db'}"
    )
    shared = settings(storage=storage, study_name="both", n_trials=5)
    here, there = Search(tmp_path / "a", shared, "a"), Search(tmp_path / "b", shared, "b")
    counts = {"a": 0, "b": 0}
    while True:
        asked = {name: search.ask(1) for name, search in (("a", here), ("b", there))}
        if not any(asked.values()):
            break
        for name, search in (("a", here), ("b", there)):
            for trial in asked[name]:
                write_run_of(tmp_path / name, trial)
                counts[name] += 1
            search.tell(asked[name])
    assert counts == {"a": 3, "b": 2}
    assert sorted(t.number for t in here.study.trials) == list(range(5))
    # A machine resumes only its own unfinished trials.
    more = settings(storage=storage, study_name="both", n_trials=7)
    Search(tmp_path / "b", more, "b").ask(1)
    assert [trial.number for trial in Search(tmp_path / "a", more, "a").ask(5)] == [6]


def test_several_objectives(tmp_path: Path) -> None:
    search = Search(
        tmp_path, settings(objectives={"val/acc": "max", "seconds/fit": "min"}, n_trials=3), "s"
    )
    for acc in (0.5, 0.9, 0.7):
        (asked,) = search.ask(1)
        write_run_of(tmp_path, asked, acc=acc)
        search.tell([asked])
    search.write()
    record = Sweep(tmp_path).search
    assert [trial["values"] for trial in record["trials"]] == [[0.5, 2.0], [0.9, 2.0], [0.7, 2.0]]
    assert record["best"] == [1]
    with pytest.raises(SearchError, match="has other objectives"):
        Search(tmp_path, settings(), "s")


def test_a_study_has_one_set_of_objectives_and_overrides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (asked,) = Search(tmp_path, settings(overrides=("seed=1",)), "s").ask(1)
    with pytest.raises(SearchError, match=r"has other objectives: val/acc \(max\)"):
        Search(tmp_path, settings(objectives={"val/f1_macro": "max"}), "s")
    search = Search(tmp_path, settings(overrides=("seed=2",)), "s")
    assert (
        "the study's first trials ran with the overrides seed=1; this sweep has seed=2"
        in caplog.text
    )
    write_run_of(tmp_path, asked)
    RunFolder(tmp_path / asked.job).write_json("overrides.json", {"words": ["model.lr=0.5"]})
    with pytest.raises(SearchError, match="contains the run of another trial"):
        search.tell([asked])


def test_the_largest_seed_is_accepted(tmp_path: Path) -> None:
    search = Search(tmp_path, settings(seed=2**32 - 1), "s")
    assert len(search.ask(3)) == 3  # the seeds of the next samplers wrap around


def test_an_incompletely_asked_trial_is_abandoned(tmp_path: Path) -> None:
    search = Search(tmp_path, settings(n_trials=1), "s")
    search.study.ask()  # killed before anything was recorded
    assert search.ask(1) == []
    assert [asked.number for asked in Search(tmp_path, settings(n_trials=1), "s").ask(1)] == [1]


def test_machines_that_start_together_draw_different_values(tmp_path: Path) -> None:
    values = set()
    for name in ("a", "b"):
        storage = str(tmp_path / f"{name}.log")
        (asked,) = Search(tmp_path / name, settings(storage=storage, study_name="both"), name).ask(
            1
        )
        values.add(overrides_of(asked)["model.lr"])
    assert len(values) == 2


def test_the_reporter_prunes_below_the_median(tmp_path: Path) -> None:
    storage = str(tmp_path / "study.log")
    study = optuna.create_study(storage=open_storage(storage), study_name="s", direction="maximize")
    for metrics in ((0.6, 0.8), (0.7, 0.9), (0.5, 0.7)):
        trial = study.ask()
        for epoch, metric in enumerate(metrics):
            trial.report(metric, epoch)
        study.tell(trial, metrics[-1])
    trial = study.ask()
    spec = {
        "storage": storage, "study": "s", "id": trial._trial_id, "pruner": "median",
        "pruner_options": {"n_startup_trials": 2, "n_warmup_steps": 1},
    }  # fmt: skip
    report = reporter(spec, max_epochs=2)
    assert not report(0, 0.1)  # warming up
    assert report(1, 0.79)  # its best value is below the median of 0.7, 0.8 and 0.9
    assert study.trials[-1].intermediate_values == {0: 0.1, 1: 0.79}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "flot", "low": 0, "high": 1}, "float, int or categorical"),
        ({"type": "float", "low": 0}, "high is missing"),
        ({"type": "float", "low": 2, "high": 1}, "low 2 is above high 1"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "log needs low above 0"),
        ({"type": "int", "low": 0.5, "high": 1}, "received low 0.5; an integer"),
        ({"type": "float", "low": "a", "high": 1}, "received low 'a'; a number"),
        ({"type": "float", "low": 0, "high": 1, "step": 0}, "received step 0; above 0"),
        (
            {"type": "int", "low": 1, "high": 4, "when": "model.lr"},
            "a mapping of keys to values is needed",
        ),
        ({"type": "int", "low": 1, "high": 4, "setp": 2}, "unknown key setp; did you mean step"),
        ({"type": "categorical", "choices": []}, "a list of values"),
        (
            {"type": "int", "low": 1, "high": 4, "when": {"model.hed": 1}},
            "when names model.hed, which is not an earlier entry",
        ),
    ],
)
def test_an_invalid_space_is_rejected(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        check_space({"model.lr": LR, "x": entry})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {}}, "space is empty"),
        ({"n_trials": 0}, "n_trials: received 0"),
        ({"objectives": {"test/acc": "max"}}, "the test split must not select trials"),
        ({"objectives": {"val/acc": "up"}}, "received 'up'; choose min or max"),
        ({"objectives": {"val/acc": "max", "val/ece": "max"}}, "set min"),
        ({"objectives": {"val/loss": "max"}}, "lower values of val/loss are better: set min"),
        ({"storage": "sqlite:///x.db"}, "without hydra.sweeper.study_name"),
        ({"storage": "nosql://x", "study_name": "s"}, "the study cannot be opened"),
        ({"sampler": "best"}, "hydra.sweeper.sampler: received 'best'; choose one of tpe, random"),
        ({"sampler_options": {"sed": 1}}, "hydra.sweeper.sampler_options: .*sed"),
        ({"objectives": {"val/loss": "min"}, "pruner": "median"}, "pruned by the monitored metric"),
        ({"pruner": "cut"}, "hydra.sweeper.pruner: received 'cut'"),
        (
            {"objectives": {"val/acc": "max", "seconds/fit": "min"}, "pruner": "median"},
            r"monitored metric, val/acc \(max\), which must be the only objective",
        ),
    ],
)
def test_invalid_settings_are_rejected(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SearchError, match=message):
        Search(tmp_path, settings(**changes), "s").ask(1)


def test_values_are_written_as_hydra_reads_them() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for value in (
        None,
        True,
        3,
        1e-05,
        "a b",
        "it's, {so}",
        [1, "x y"],
        {"a": [1, {"b": "c:d"}]},
        "/tmp/a.b-c",
        "12345678",
        "8e123456",
        "true",
        "back\\slash",
    ):
        parsed = OverridesParser.create().parse_override(f"key={override_value(value)}")
        assert parsed.value() == value


TINY = (*SAMPLE, "trainer.accelerator=cpu", "hydra/sweeper=optuna")


def test_a_search_from_the_command_line(sweep: RunSweep) -> None:
    done = sweep(
        *TINY, "trainer.max_epochs=1", "hydra.sweeper.n_trials=4", "model.lr=tag(log,interval(1e-4,1e-1))", "model.head.hidden=4,8",
        "++model.loss.label_smoothing=0.1", "data.batch_size=range(16,33,16)",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert states(done.folder) == ["finished"] * 4
    record = Sweep(done.folder).search
    assert all(
        set(trial["params"]) == {"model.lr", "model.head.hidden", "data.batch_size"}
        for trial in record["trials"]
    )
    assert {trial["params"]["data.batch_size"] for trial in record["trials"]} <= {16, 32}
    best = max(record["trials"], key=lambda trial: trial["values"][0])
    assert record["best"] == [best["number"]]
    run = RunFolder(done.folder / str(best["number"]))
    assert run.read_json("metrics.json")["best"]["score"] == best["values"][0]
    assert f"lr: {best['params']['model.lr']}" in run.config.read_text()
    page = (done.folder / "sweep.html").read_text(encoding="utf-8")
    for text in ("best trial", "Val/acc of each trial", "Val/acc by model.lr", "4 of 4 trials"):
        assert text in page
    again = sweep(f"sweep.resume={done.folder}", "hydra.sweeper.n_trials=5")
    assert again.code == 0, again.err
    assert states(done.folder) == ["finished"] * 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["hydra.sweeper.space={model.lrr: {type: float, low: 1, high: 2}}"],
            "the config has no such key; did you mean lr",
        ),
        (["model.lr=glob(*)"], "a search takes choice"),
        ([], "space is empty"),
        (["model.lr=1e-3,1e-2", "hydra.sweeper.n_jobs=0"], "n_jobs: received 0"),
        (
            ["model.lr=1e-3,1e-2", "hydra.sweeper.objectives=val/acc"],
            "objectives: received 'val/acc'; a mapping is needed",
        ),
        (
            ["model.lr=1e-3,1e-2", "hydra.sweeper.sampler_options={sed: 1}"],
            "hydra.sweeper.sampler_options:",
        ),
        (
            ["model.lr=1e-3,1e-2", "hydra.sweeper.objectives={test/acc: max}"],
            "the test split must not select trials",
        ),
    ],
)
def test_a_wrong_search_is_reported_in_one_line(
    overrides: list[str], message: str, sweep: RunSweep
) -> None:
    done = sweep(*TINY, *overrides)
    assert done.code == 1
    assert message in done.error
    assert "Traceback" not in done.err
    assert not done.folder.exists()


def test_bad_trials_are_pruned_and_recorded(sweep: RunSweep) -> None:
    done = sweep(
        *TINY, "trainer.max_epochs=3", "data.rows={train: 320, val: 64, test: 40}", "hydra.sweeper.n_trials=6",
        "model.backbone_lr=1e-3,0.0", "model.lr=1e-2,0.0", "hydra.sweeper.sampler=random", "hydra.sweeper.seed=0",
        "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={n_startup_trials: 1}",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = states(done.folder)
    assert "pruned" in found
    job = RunFolder(done.folder / str(found.index("pruned")))
    status = job.read_json("status.json")
    assert status["error"].startswith("pruned after epoch")
    reported = Sweep(done.folder).search["trials"][found.index("pruned")]["reported"]
    assert [float(row["val/acc"]) for row in job.read_history()] == list(reported.values())
    assert job.last_checkpoint.is_file()
    page = (done.folder / "sweep.html").read_text(encoding="utf-8")
    assert "pruned by median" in page
    first = json.dumps(Sweep(done.folder).search)
    assert sweep(f"sweep.resume={done.folder}").code == 0  # pruned trials do not run again
    assert json.dumps(Sweep(done.folder).search) == first


def test_a_killed_search_resumes_with_the_same_trials(sweep: RunSweep, tmp_path: Path) -> None:
    overrides = [
        *TINY,
        "trainer.max_epochs=3",
        "hydra.sweeper.n_trials=3",
        "model.lr=interval(1e-4,1e-1)",
    ]
    folder = tmp_path / "killed"
    process = start(
        2, 1, "-m", *overrides, f"hydra.sweep.dir={folder}", program=pausing, cwd=tmp_path
    )
    second = RunFolder(folder / "1")
    wait_for(lambda: len(second.read_history()) == 2 and second.last_checkpoint.is_file(), process)
    process.kill()
    process.wait()
    assert sweep(f"sweep.resume={folder}").code == 0
    whole = sweep(*overrides)
    assert whole.code == 0
    assert states(folder) == ["finished"] * 3
    ours, theirs = Sweep(folder).search, Sweep(whole.folder).search
    assert [t["params"] for t in ours["trials"]] == [t["params"] for t in theirs["trials"]]
    assert [t["values"] for t in ours["trials"]] == [t["values"] for t in theirs["trials"]]
    for job in ("1", "2"):
        assert history(folder / job) == history(whole.folder / job)
    assert "resumed" in RunFolder(folder / "1").read_json("provenance.json")


def test_trials_train_on_two_processes_as_on_one(tmp_path: Path) -> None:
    """Both processes use the trial's learning rate, rank 0 reports, and pruning stops both."""
    arguments = (
        "-m", *TEXTS, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "model.lr=tag(log,interval(1e-5,1e-1))",
        "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={n_startup_trials: 1}", "hydra.sweeper.seed=10",
        "trainer.accumulate_grad_batches=2",
    )  # fmt: skip
    for trainer in ("cpu", "ddp_cpu"):
        code, out, errors = run(
            *arguments, f"trainer={trainer}", f"hydra.sweep.dir={tmp_path / trainer}"
        )
        assert code == 0, errors
        assert out.count("never trained: ") == 2  # a plan for each job, not for each process
        assert "rank" not in errors
    one, two = tmp_path / "cpu", tmp_path / "ddp_cpu"
    assert (
        states(two) == states(one) == ["finished", "pruned"]
    )  # the second learning rate is too low
    ours, theirs = Sweep(two).search["trials"], Sweep(one).search["trials"]
    assert [trial["params"] for trial in ours] == [trial["params"] for trial in theirs]
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    losses = {}
    for job in "01":
        for folder in (one / job, two / job):
            rows = RunFolder(folder).read_history()
            losses[folder] = [
                float(row[f"{stage}/loss"]) for row in rows for stage in ("train", "val")
            ]
            assert {row["train/n"] for row in rows} == {"91"}
        assert losses[two / job] == pytest.approx(losses[one / job], rel=1e-5)
        assert {path.name for path in (two / job).iterdir()} == {
            path.name for path in (one / job).iterdir()
        }
        assert RunFolder(two / job).read_json("plan.json")["device"] == "2 x cpu"
    assert losses[two / "0"][:2] != pytest.approx(losses[two / "1"][:2], rel=1e-3)
    code, out, errors = run(two / "0", program="scripts/evaluate.py")
    assert "all metrics equal metrics.json" in out, out + errors
