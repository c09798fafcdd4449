"""MLflow: one run per pipeline run, and the registry of candidates and champions.

This package alone imports mlflow (with the registered model's own code, mtrec/serving/pyfunc.py), and only inside
functions, so that importing it is cheap.

    connection.py  which MLflow, one door to it, locks, errors in one line
    runs.py        the run of a pipeline run, child runs, losses, artifacts
    studies.py     the run of a study, a child run per trial
    registry.py    register a candidate, promote the first champion
    lookup.py      fetch the champion or any version, list and show versions
    deciding.py    the leases under which a champion is changed and a scenario trained
    promotion.py   people approve, reject and roll back
    history.py     who changed what, when and why; the status of a version
    judgement.py   what was measured and decided, in the run
    stored.py      the stored files of a version, and their digests
    containing.py  which versions hold users who were forgotten
    verify.py      the chain from data to promotion, checked
    card.py        the model card on a version
    retraining.py  looks at the data, and the training that followed
"""

from mtrec.tracking.connection import check_database, resolve_uri
from mtrec.tracking.containing import Holder, count_users, holders
from mtrec.tracking.deciding import training_lease, trainings
from mtrec.tracking.history import Change, history, statuses
from mtrec.tracking.judgement import log_judgement
from mtrec.tracking.lookup import (
    NO_CHAMPION,
    Champion,
    RegisteredVersion,
    check_champion,
    download_champion,
    download_model,
    list_models,
    show_model,
)
from mtrec.tracking.promotion import Decision, Refused, approve, reject, rollback
from mtrec.tracking.registry import Registration, register
from mtrec.tracking.retraining import (
    attempts,
    begin_training,
    forgotten_in,
    log_decision,
    log_outcome,
    log_training_outcome,
    running,
    trained_in,
)
from mtrec.tracking.runs import (
    LONGEST,
    UNTOLD,
    Run,
    child_run,
    finish_run,
    log_artifacts,
    log_losses,
    log_metrics,
    logged_steps,
    pipeline_run,
)
from mtrec.tracking.stored import read_evaluation
from mtrec.tracking.studies import (
    log_values,
    running_trials,
    study_of,
    study_run,
    tag_run,
    trial_run,
)
from mtrec.tracking.verify import Link, verify

__all__ = [
    "LONGEST",
    "NO_CHAMPION",
    "UNTOLD",
    "Champion",
    "Change",
    "Decision",
    "Holder",
    "Link",
    "Refused",
    "RegisteredVersion",
    "Registration",
    "Run",
    "approve",
    "attempts",
    "begin_training",
    "check_champion",
    "check_database",
    "child_run",
    "count_users",
    "download_champion",
    "download_model",
    "finish_run",
    "forgotten_in",
    "history",
    "holders",
    "list_models",
    "log_artifacts",
    "log_decision",
    "log_judgement",
    "log_losses",
    "log_metrics",
    "log_outcome",
    "log_training_outcome",
    "log_values",
    "logged_steps",
    "pipeline_run",
    "read_evaluation",
    "register",
    "reject",
    "resolve_uri",
    "rollback",
    "running",
    "running_trials",
    "show_model",
    "statuses",
    "study_of",
    "study_run",
    "tag_run",
    "trained_in",
    "training_lease",
    "trainings",
    "trial_run",
    "verify",
]
