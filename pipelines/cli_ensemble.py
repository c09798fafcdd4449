"""`mtrec ensemble`: join registered models."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli_options import (
    DataOption,
    DebugOption,
    ScenarioOption,
    SetOption,
    TrackingOption,
    console,
    scenario_from,
)


def ensemble(
    members: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[/VERSION|@ALIAS] …", help="Two or more: ecommerce-candidate/1 ecommerce@champion …"
        ),
    ],
    scenario: ScenarioOption = "ecommerce",
    data: DataOption = None,
    settings: SetOption = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit each member's share in every task on the validation part.")
    ] = False,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Join registered models into one that answers with all of them.

    The members have the scenario's tasks and were trained on the same data, which
    is given as for mtrec run; their model and training settings may differ. Each
    counts the same unless --fit is given. The ensemble is evaluated, gated and
    registered like any candidate. Exit codes are those of mtrec run.
    """
    from mtrec.errors import GateRefused, ModelError
    from pipelines.cli_options import store_exists
    from pipelines.ensembling import run_ensemble
    from pipelines.results import print_result
    from pipelines.workspace import Workspace

    loaded = scenario_from(scenario, settings)
    if not store_exists(tracking_uri):
        raise ModelError(f"{members[0]}: no such registered model (known: none); 'mtrec run' registers one")
    output = console()
    result = run_ensemble(
        loaded,
        members,
        workspace=Workspace.here(),
        console=output,
        data=data,
        fit=fit,
        tracking_uri=tracking_uri,
    )
    print_result(result, output)
    if not result.passed:
        raise GateRefused(f"the gate refused the ensemble: {'; '.join(result.reasons)}")
