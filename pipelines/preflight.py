"""What can be known to be wrong before a run begins: told at once, before anything is written."""

from __future__ import annotations

import re
from pathlib import Path

from mtrec.config import Scenario
from mtrec.errors import InputError, ModelError
from mtrec.stages.parents import no_champion

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
"""`name` or `owner/name`."""


def preflight(scenario: Scenario, data: Path | None, tracking_uri: str) -> None:
    """Check the input of a run cheaply. A store that does not exist yet is not made.

    Args:
        scenario: what to learn from what.
        data: raw data, as given.
        tracking_uri: MLflow's resolved tracking URI.

    Raises:
        InputError: the data is not there or not recognised, a dial of the simulator is wrong, the encoder is
            neither a folder nor a hub id, a student has no teacher, or MLflow knows no such kind of URI.
        RunError: MLflow cannot be used, or the champion's files are gone.
    """
    _check_data(scenario, data)
    _check_encoder(scenario)
    champion = _check_mlflow(scenario.name, tracking_uri)
    _check_teacher(scenario, champion)


def _check_data(scenario: Scenario, data: Path | None) -> None:
    if data is not None and not data.exists():
        raise InputError(f"--data {data}: no such file or folder")
    if data is None and scenario.source.type == "simulated":
        from mtrec.data.sources.simulated import Dials

        Dials.parse(scenario.source.options)
    elif data is None or data.is_dir():
        from mtrec.data.sources import recognise_source

        recognise_source(scenario, data)


def _check_encoder(scenario: Scenario) -> None:
    name = scenario.model.encoder.name
    if name == "minilm" or Path(name).is_dir() or _HUB_ID.fullmatch(name):
        return
    raise ModelError(
        f"model.encoder.name '{name}': no such folder, and no hub id (owner/name) either. Give a folder with "
        "config.json, weights and tokenizer, a hub id, or `minilm`"
    )


def _check_mlflow(scenario: str, tracking_uri: str) -> bool:
    """Whether there is a champion."""
    if tracking_uri.startswith("sqlite:///") and not _database(tracking_uri).exists():
        return False
    from mtrec.tracking import check_champion, check_database

    check_database(tracking_uri)  # before the import of mlflow, which takes seconds
    return check_champion(scenario, tracking_uri)


def _check_teacher(scenario: Scenario, champion: bool) -> None:
    settings = scenario.distillation
    if not settings.layers:
        return
    if settings.teacher == "champion":
        if not champion:
            raise ModelError(no_champion(scenario.name))
    elif not (Path(settings.teacher) / "model.safetensors").is_file():
        raise ModelError(
            f"distillation.teacher '{settings.teacher}': not a model folder, model.safetensors is missing. "
            "Give the folder of a trained model, or `champion`"
        )


def _database(tracking_uri: str) -> Path:
    return Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0])
