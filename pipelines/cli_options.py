"""Options that several commands share, and how the command line fails."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mtrec.config import Scenario
    from pipelines.placing import Placing


class _Mode:
    debug = False


def reset() -> None:
    """Forget what an earlier command of the same process set."""
    _Mode.debug = False


def _set_debug(value: bool) -> bool:
    _Mode.debug = _Mode.debug or value
    return value


ScenarioOption = Annotated[
    str,
    typer.Option("--scenario", "-s", metavar="NAME|FILE", help="A scenario by name, or the path of a YAML file."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", "-d", metavar="PATH", help="Raw data: a file or folder. Without it the scenario simulates."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a setting of the scenario: training.epochs=2. Repeatable."
    ),
]
TrackingOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", metavar="URI", help="MLflow. Default: MLFLOW_TRACKING_URI, else .mtrec/mlflow.db here."
    ),
]
ClusterOption = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        "-c",
        metavar="FILE",
        help="Resources, storage, secrets and retries, as k8s/cluster/cluster.yaml.",
    ),
]
ImageOption = Annotated[
    str | None,
    typer.Option(
        "--image",
        metavar="NAME",
        help="Container image of the components, but those that --cluster gives their own.",
    ),
]
GpusOption = Annotated[
    int | None,
    typer.Option(
        "--gpus", min=0, max=64, help="GPUs that fine-tuning asks for, 0 or 1; with --cluster the file says it."
    ),
]
DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", callback=_set_debug, is_eager=True)
]


def new_app(help_text: str) -> typer.Typer:
    """A typer application in the house's style."""
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def console() -> Console:
    """The console for results, on stdout; as wide as the terminal, or 120 where there is none.

    It prints text as it is: what people, paths and data bring may hold square brackets and colons.
    """
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)


def store_exists(tracking_uri: str | None) -> bool:
    """Whether there is a store to look into; MLflow would create an SQLite file by looking.

    Raises:
        InputError: the SQLite file that was asked for is not there. The embedded one may be missing before a run.
    """
    from pathlib import Path

    from mtrec.errors import InputError
    from mtrec.tracking import resolve_uri
    from mtrec.tracking.connection import EMBEDDED

    uri = resolve_uri(tracking_uri)
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not uri.startswith("sqlite:///") or ":memory:" in uri or database.exists():
        return True
    if uri != resolve_uri(EMBEDDED):
        given = "--tracking-uri" if tracking_uri else "MLFLOW_TRACKING_URI"
        raise InputError(f"{given} {uri}: no such file {database}; check the path, or make it with 'mtrec run'")
    return False


def scenario_from(name: str, settings: list[str] | None, seed: int | None = None) -> Scenario:
    """Load a scenario with the command line's overrides."""
    from mtrec.config import load_scenario

    overrides = list(settings or [])
    if seed is not None:
        overrides.append(f"training.seed={seed}")
    return load_scenario(name, overrides)


def placing(cluster: Path | None, *, image: str | None, gpus: int | None) -> Placing:
    """Where and with what the tasks of a pipeline run, from the command line.

    Raises:
        ConfigError: the cluster's configuration is wrong.
        InputError: GPUs are asked for twice, or several for what runs on one; or what is given for the image is no
            name of one.
    """
    from components.images import IMAGE
    from mtrec.errors import InputError
    from pipelines.cluster_config import Image, load_cluster
    from pipelines.placing import Placing

    check_text(Image, image or IMAGE, "--image", "an image's name, with its registry, and a tag or digest")
    if cluster is None and gpus is not None and gpus > 1:
        raise InputError(
            f"--gpus {gpus}: without --cluster training takes one; give a cluster file with storage and "
            f"steps.fine_tune_model.gpus: {gpus}"
        )
    if cluster is None:
        return Placing(image=image or IMAGE, gpus=gpus or 0)
    if gpus is not None:
        raise InputError(f"--gpus and --cluster: set steps.fine_tune_model.gpus in {cluster} instead")
    return Placing.on(load_cluster(cluster, image=image))


def check_text(kind: Any, text: str, option: str, says: str) -> None:
    """Refuse what a pod would be refused for later.

    Args:
        kind: one of the annotated types of `pipelines.cluster_config` or `pipelines.pod_values`.
        text: what was given.
        option: by which option.
        says: what is expected.

    Raises:
        InputError: it does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    from mtrec.errors import InputError

    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        raise InputError(f"{option} {text!r}: give {says}") from None


def misused(error: Any) -> int:
    """Print as one line why typer refused a command line, and return the exit code."""
    context, told = getattr(error, "ctx", None), error.format_message()
    if told:  # without a command the help is printed already
        where = "" if context is None else f"; see {context.command_path} --help"
        print(f"mtrec: {' '.join(told.split()).rstrip('.')}{where}", file=sys.stderr)
    return int(error.exit_code)


def fail(error: Exception) -> int:
    """Print an error as one line, with `--debug` as a traceback too, and return the exit code."""
    from mtrec.disk import explain
    from mtrec.errors import MtrecError

    if _Mode.debug:
        traceback.print_exception(error)
        log = getattr(error, "log_text", "")
        if log:
            print(f"\nIn the step's own process:\n{log}", file=sys.stderr)
    told = error if isinstance(error, MtrecError) else explain(error)
    if told is not None:
        print(f"mtrec: {told}", file=sys.stderr)
        return told.exit_code
    hint = "" if _Mode.debug else "; run again with --debug for the traceback"
    print(f"mtrec: unexpected {type(error).__name__}: {' '.join(str(error).split())}{hint}", file=sys.stderr)
    return 1
