"""Let the trainer register candidates, and only the approver promote: run as MLflow's administrator.

    MLFLOW_TRACKING_URI=… MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=… \\
    TRAINER_PASSWORD=… APPROVER_PASSWORD=… python permissions.py SCENARIO …

It can be run again: what is there stays, and the passwords and permissions become those given here.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client

PASSWORD_VARIABLES = {"trainer": "TRAINER_PASSWORD", "approver": "APPROVER_PASSWORD"}


def trying(call: Callable[..., Any], *given: Any, but: str = "RESOURCE_ALREADY_EXISTS") -> None:
    """Call, and take this error for done."""
    try:
        call(*given)
    except MlflowException as error:
        if error.error_code != but:
            raise


def allow(logins: Any, user: str, kind: str, name: str, permission: str) -> None:
    """Give a permission, in place of the one that is there; left alone if that is the same."""
    if logins.get_user_permission(user, kind, name).permission != permission:
        trying(logins.revoke_user_permission, user, kind, name, but="RESOURCE_DOES_NOT_EXIST")
        logins.grant_user_permission(user, kind, name, permission)


def main() -> None:
    """Users, then the models and experiments of each scenario."""
    scenarios = sys.argv[1:]
    if not scenarios:
        sys.exit("permissions.py: name at least one scenario")
    client = MlflowClient()
    logins: Any = get_app_client("basic-auth", tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    for user, variable in PASSWORD_VARIABLES.items():
        trying(logins.create_user, user, os.environ[variable])
        logins.update_user_password(user, os.environ[variable])
    for scenario in scenarios:
        # Who makes a model manages it. The administrator makes both, so that neither is the trainer's.
        models = {scenario: ("READ", "EDIT"), f"{scenario}-candidate": ("EDIT", "READ")}
        for model, allowed in models.items():
            trying(client.create_registered_model, model)
            for user, permission in zip(PASSWORD_VARIABLES, allowed, strict=True):
                allow(logins, user, "registered_model", model, permission)
        for experiment in (scenario, f"{scenario}-monitoring"):
            trying(client.create_experiment, experiment)
            number = client.get_experiment_by_name(experiment).experiment_id
            allow(logins, "trainer", "experiment", number, "EDIT")
        print(f"{scenario}: the trainer registers candidates, the approver promotes")


if __name__ == "__main__":
    main()
