"""The reference of cluster files, docs/cluster-file.md, written from the models in `pipelines.cluster_config`."""

from __future__ import annotations

import inspect

from pydantic import BaseModel

from pipelines.scenario_reference import table, walk

_HEAD = """# The cluster file

How a cluster runs the pipelines; `mtrec submit`, `mtrec schedule create`, `mtrec compile` and `mtrec cluster check`
take it with `--cluster`. [k8s/cluster/cluster.yaml](../k8s/cluster/cluster.yaml) fits the manifests in k8s/. It is
no part of the scenario: with more memory the same model is trained. Written by `make docs` from
`pipelines/cluster_config.py`.
"""


def cluster_reference() -> str:
    """The reference of every key of a cluster file, in Markdown."""
    from pipelines.cluster_config import COMPONENTS, Cluster

    parts = [_HEAD, "## Top level", "", *table(Cluster)]
    found: dict[type[BaseModel], list[str]] = {}
    for path, model in walk(Cluster):
        found.setdefault(model, []).append(path)
    for model, paths in found.items():
        places = ", ".join(f"`{path}`" for path in paths)
        parts += [f"## {places}", "", inspect.cleandoc(model.__doc__ or ""), "", *table(model)]
    parts += ["## Components", "", ", ".join(f"`{name}`" for name in COMPONENTS) + "."]
    return "\n".join(parts).rstrip() + "\n"
