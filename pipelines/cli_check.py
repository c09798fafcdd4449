"""`mtrec cluster check`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.cli_options import ClusterOption, DebugOption, console, new_app

app = new_app("What a Kubernetes cluster has for mtrec's pipelines, and what it lacks.")


@app.callback()
def _group() -> None:
    """Keep `check` a command of its own."""


@app.command("check")
def check(
    cluster: ClusterOption = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace of the runs. Default: mtrec.")
    ] = None,
    kfp_namespace: Annotated[
        str, typer.Option("--kfp-namespace", metavar="NAME", help="Namespace of Kubeflow Pipelines.")
    ] = "kubeflow",
    context: Annotated[
        str | None,
        typer.Option("--context", metavar="NAME", help="Context of the kubeconfig."),
    ] = None,
    account: Annotated[
        list[str] | None,
        typer.Option(
            "--account", metavar="NAME", help="Service account that runs get, instead of those of k8s/. Repeatable."
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret", metavar="NAME:KEY,KEY", help="Secret and its keys, instead of those of k8s/. Repeatable."
        ),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option("--claim", metavar="NAME", help="Volume claim, instead of that of k8s/. Repeatable."),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option("--runtime", metavar="NAME", help="Training runtime. Default: mtrec-torch.")
    ] = None,
    mlflow: Annotated[
        str, typer.Option("--mlflow", metavar="NAMESPACE/SERVICE:PORT", help="Service of the MLflow server.")
    ] = "mlflow/mlflow:5000",
    nodes: Annotated[int | None, typer.Option("--nodes", min=1, help="Nodes of one training. Default: 1.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=0, help="GPUs of each of them. Default: 0.")] = None,
    gpu_type: Annotated[
        str | None,
        typer.Option("--gpu-type", metavar="NAME", help="Resource that offers GPUs. Default: nvidia.com/gpu."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Say line by line what a cluster has, what it lacks, why that matters and how to mend it.

    Looks with the rights of the kubeconfig (or of the pod), changes nothing, and
    reads of secrets only the names of their keys. With --cluster it looks for what
    that file names. Exit codes: 0 nothing is missing, 1 something is, 2 wrong
    input or no kubeconfig.
    """
    from collections import Counter
    from dataclasses import replace

    from mtrec.errors import RunError
    from mtrec.kube import api_client
    from pipelines.cluster_check import Wanted, check_cluster, wanted_by
    from pipelines.cluster_config import load_cluster

    given: dict[str, Any] = {
        "namespace": namespace,
        "kfp_namespace": kfp_namespace,
        "accounts": dict.fromkeys(account, "trainer") if account else None,
        "service_account": account[0] if account else None,
        "secrets": dict(map(_secret, secret)) if secret else None,
        "claims": claim,
        "runtime": runtime,
        "mlflow": _service(mlflow),
        "nodes": nodes,
        "gpus": gpus,
        "gpu_type": gpu_type,
    }
    expected = wanted_by(load_cluster(cluster)) if cluster else Wanted()
    wanted = replace(expected, **{name: value for name, value in given.items() if value is not None})
    output, found = console(), Counter[str]()
    for line in check_cluster(api_client(context), wanted):
        found[line.verdict] += 1
        fix = f"; to mend it: {line.fix}" if line.fix else ""
        text = f"{line.verdict:<8} {line.what}: {line.why}{fix}"
        output.print(text, markup=False, highlight=False, soft_wrap=True)
    counted = ", ".join(f"{found[verdict]} {verdict}" for verdict in ("ok", "warning", "missing", "unknown"))
    if found["missing"]:
        raise RunError(f"the cluster lacks what runs need ({counted}); mend the lines that begin with 'missing'")
    output.print(counted, markup=False, highlight=False)


def _secret(given: str) -> tuple[str, list[str]]:
    from mtrec.errors import InputError

    name, _, keys = given.partition(":")
    if not name or not all(keys.split(",")):
        raise InputError(f"--secret {given}: not of the form NAME:KEY,KEY")
    return name, keys.split(",")


def _service(given: str) -> str:
    import re

    from mtrec.errors import InputError

    if not re.fullmatch(r"[^/:]+/[^/:]+:[^/:]+", given):
        raise InputError(f"--mlflow {given}: not of the form NAMESPACE/SERVICE:PORT")
    return given
