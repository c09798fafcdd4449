"""What a Kubeflow Pipelines server of a version takes and answers, read out of packages that the project publishes.

Of the installed version the packages are asked directly. For 2.14 the same was recorded once into
`golden/kfp_2_14.json`, by

    pip download --no-deps kfp-server-api==2.14.6 kfp-kubernetes==2.14.6 kfp-pipeline-spec==2.14.6   # unpack
    PYTHONPATH=kfp-server-api-2.14.6 python tests/kfp_schema.py FOLDER_WITH_kfp > tests/golden/kfp_2_14.json
"""

import functools
import importlib
import importlib.util
import json
import pkgutil
import sys
import types
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "golden" / "kfp_2_14.json"
_FREE = ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any")


@functools.cache
def schema(version: str) -> dict[str, Any]:
    """models: name → JSON key → type; enums: name → values; messages: name → field → its message, or nothing."""
    if version == "2.14":
        return json.loads(RECORDED.read_text(encoding="utf-8"))
    return {**_models(), "messages": _messages(*_installed())}


def _models() -> dict[str, Any]:
    import kfp_server_api.models as package

    models, enums = {}, {}
    for module in pkgutil.iter_modules(package.__path__):
        for name, kind in vars(importlib.import_module(f"kfp_server_api.models.{module.name}")).items():
            if hasattr(kind, "allowable_values"):
                enums[name] = sorted(kind.allowable_values)
            elif hasattr(kind, "attribute_map"):
                models[name] = {kind.attribute_map[key]: value for key, value in kind.openapi_types.items()}
    return {"models": models, "enums": enums}


def _messages(*modules: Any) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}

    def walk(message: Any) -> None:
        if message.full_name in found or message.full_name in _FREE:
            return
        found[message.full_name] = {}
        for field in message.fields:
            inner = field.message_type
            if inner is not None and inner.GetOptions().map_entry:
                inner = inner.fields_by_name["value"].message_type
            free = inner is None or inner.full_name in _FREE
            for name in {field.json_name, field.name}:
                found[message.full_name][name] = "" if free else inner.full_name
            if not free:
                walk(inner)

    for module in modules:
        for message in module.DESCRIPTOR.message_types_by_name.values():
            walk(message)
    return found


def _installed() -> tuple[Any, Any]:
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    return pipeline_spec_pb2, kubernetes_executor_config_pb2


def _unpacked(folder: Path) -> tuple[Any, ...]:
    for name, path in (("kfp", folder / "kfp"), ("kfp.pipeline_spec", folder / "kfp/pipeline_spec")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    loaded = []
    for name, file in (
        ("kfp.pipeline_spec.pipeline_spec_pb2", "kfp/pipeline_spec/pipeline_spec_pb2.py"),
        ("kubernetes_executor_config_pb2", "kfp/kubernetes/kubernetes_executor_config_pb2.py"),
    ):
        spec = importlib.util.spec_from_file_location(name, folder / file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        loaded.append(module)
    return tuple(loaded)


if __name__ == "__main__":
    recorded = {**_models(), "messages": _messages(*_unpacked(Path(sys.argv[1])))}
    print(json.dumps(recorded, indent=None, separators=(",", ":"), sort_keys=True).replace("},", "},\n"))
