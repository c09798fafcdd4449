"""Promises about the code as a whole: the direction of imports, and imports without side effects."""

import os
import subprocess
import sys
from pathlib import Path

OURS = ("mtrec", "components", "pipelines")

IMPORT_ALL = """
import importlib, os, pkgutil, socket, sys

prefixes = ("MTREC", "MLFLOW", "DVC", "HF_")
asked = []
packages = [importlib.import_module(name) for name in ("mtrec", "components", "pipelines")]
roots = tuple(os.path.dirname(package.__file__) for package in packages)

def caller():
    frame = sys._getframe(2)
    while frame and not frame.f_code.co_filename.startswith(roots):
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] not in ("os", "collections", "_collections_abc", "posixpath"):
            return None
        frame = frame.f_back
    return frame and frame.f_code.co_filename

class Watched(type(os.environ)):
    def __getitem__(self, key):
        if caller() or key.startswith("MTREC"):
            asked.append(key)
        return super().__getitem__(key)

environ = os.environ
watched = Watched.__new__(Watched)
watched.__dict__.update(environ.__dict__)
os.environ = watched

def refuse(*arguments, **options):
    raise AssertionError("a socket was opened by an import")

socket.socket.connect = refuse
socket.create_connection = refuse

names = [package.__name__ for package in packages]
for package in packages:
    names += [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
before = dict(os.environ)
for name in names:
    importlib.import_module(name)
assert dict(environ) == before, "an import changed the environment"
assert not asked, f"an import read the environment: {asked}"
print(len(names))
"""


def _python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # HOME and TMPDIR are the test's own, so that a file made there is found too.
    mine = {key: value for key, value in os.environ.items() if not key.startswith("MTREC_")}
    env = {**mine, "HOME": str(folder), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_imports_run_one_way(repository: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_importing_everything_makes_no_file_reads_no_environment_and_opens_no_socket(tmp_path: Path) -> None:
    done = _python(IMPORT_ALL, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
    assert [path.name for path in tmp_path.iterdir()] == []


def test_the_watch_would_notice(tmp_path: Path) -> None:
    nosy = tmp_path / "nosy"
    nosy.mkdir()
    (nosy / "__init__.py").write_text("import os\nos.environ.get('HOME')\n")
    code = IMPORT_ALL.replace('("mtrec", "components", "pipelines")', '("nosy",)')
    (nosy / "inner.py").write_text("import os\nos.environ.get('USER_HOME')\n")
    done = _python(code, tmp_path)
    assert done.returncode == 1
    assert "an import read the environment: ['USER_HOME']" in done.stderr
    (nosy / "inner.py").write_text("import socket\nsocket.create_connection(('127.0.0.1', 9))\n")
    assert "a socket was opened" in _python(code, tmp_path).stderr


def test_the_folder_mlflow_does_not_hide_the_package(repository: Path) -> None:
    assert not list((repository / "mlflow").rglob("*.py"))
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    done = _python(f"import sys; sys.path.insert(0, ''); {code}", repository)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).name == "__init__.py"


def test_the_components_are_thin(repository: Path) -> None:
    files = sorted(
        path for path in (repository / "components").glob("*.py") if path.stem not in ("__init__", "images")
    )
    assert [path.stem for path in files] == [
        "decide_retraining",
        "evaluate_model",
        "fine_tune_model",
        "gate_model",
        "ingest_data",
        "join_shards",
        "monitor_data",
        "preprocess_data",
        "preprocess_shard",
        "record_outcome",
        "register_model",
        "report_search",
        "search_settings",
        "shard_tables",
        "validate_data",
    ]
    for path in files:
        text = path.read_text()
        assert "from __future__" not in text, f"{path.name}: KFP cannot read postponed annotations"
        assert "run_component(" in text
        assert len(text.splitlines()) < 80
