"""The content of search.json: what a hyperparameter search has tried and found."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from engine.sweeps.search_settings import Settings


def search_record(study: optuna.Study, settings: Settings, identity: str) -> dict[str, Any]:
    """Return all trials of a study, the best ones, and the importance of the parameters.

    Args:
        study: The study.
        settings: The settings of the search.
        identity: The id of the sweep; trials of other sweeps have no job here.
    """
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return {
        "study": study.study_name,
        "sampler": settings.sampler,
        "pruner": settings.pruner,
        "n_trials": settings.n_trials,
        "objectives": dict(settings.objectives),
        "log": [key for key, entry in settings.space.items() if entry.get("log")],
        "best": [trial.number for trial in _best(study)] if done else [],
        "importance": {
            name: _importance(study, at, settings.seed)
            for at, name in enumerate(settings.objectives)
        },
        "trials": [
            _trial_record(trial, identity)
            for trial in trials
            if trial.state is not TrialState.WAITING
        ],
    }


def _best(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best trial; for several objectives the trials on the Pareto front."""
    return [study.best_trial] if len(study.directions) == 1 else study.best_trials


def _importance(study: optuna.Study, objective: int, seed: int) -> dict[str, float]:
    """Return the share of the objective's variance that each parameter explains.

    The method is fANOVA (Hutter, Hoos & Leyton-Brown, ICML 2014). The result is empty where
    there are too few trials, or all have the same value.
    """
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)

    def value(trial: FrozenTrial) -> float:
        return float(trial.values[objective])

    try:
        return dict(
            optuna.importance.get_param_importances(study, evaluator=evaluator, target=value)
        )
    except (ValueError, RuntimeError):  # too few trials, or all with the same value
        return {}


def _trial_record(trial: FrozenTrial, identity: str) -> dict[str, Any]:
    return {
        "number": trial.number,
        "job": trial.user_attrs.get("job") if trial.user_attrs.get("sweep") == identity else None,
        "state": trial.state.name.lower(),
        "params": trial.params,
        "values": trial.values,
        "reported": {str(step): value for step, value in sorted(trial.intermediate_values.items())},
    }
