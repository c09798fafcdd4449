"""The tracking server as the manifests start it, on a real PostgreSQL, with the permissions that the Job sets.

The bucket is one of a server that speaks S3 (tests/s3.py).
"""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.k8s.render import documents
from tests.s3 import Store, s3  # noqa: F401
from tests.unit.postgres import postgres, tools  # noqa: F401

Documents = list[dict[str, Any]]


class Server(NamedTuple):
    uri: str
    process: subprocess.Popen[bytes]
    log: Path

    def answers(self) -> bool:
        """Wait until it does, or has ended."""
        for _ in range(400):
            if self.process.poll() is not None:
                return False
            try:
                return requests.get(f"{self.uri}/health", timeout=2).ok
            except requests.RequestException:
                time.sleep(0.3)
        return False


TRY = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient()
experiment = client.get_experiment_by_name("shop").experiment_id
def candidate():
    run = client.search_runs([experiment])[0].info
    client.create_model_version("shop-candidate", f"{run.artifact_uri}/model", run_id=run.run_id)
said = {}
for name, call in {
    "run": lambda: client.create_run(experiment),
    "artifact": lambda: client.log_text(client.search_runs([experiment])[0].info.run_id, "a text", "model/text"),
    "candidate": candidate,
    "alias of a candidate": lambda: client.set_registered_model_alias("shop-candidate", "candidate", "1"),
    "tag of a candidate": lambda: client.set_model_version_tag("shop-candidate", "1", "review", "x"),
    "promotion": lambda: client.copy_model_version("models:/shop-candidate/1", "shop"),
    "champion": lambda: client.set_registered_model_alias("shop", "champion", "1"),
    "history": lambda: client.set_registered_model_tag("shop", "mtrec.history.0001", "{}"),
    "delete": lambda: client.delete_registered_model("shop"),
}.items():
    try:
        call()
        said[name] = True
    except Exception as error:
        code = getattr(error.__cause__ or error, "error_code", repr(error))  # a copy's own error wraps it
        assert code == "PERMISSION_DENIED" or "403 Client Error" in str(error), f"{name}: {code}: {error}"
        said[name] = False
print(json.dumps(said))
"""


def python(code: str, uri: str, login: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code as somebody with a login."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | login | {"MLFLOW_TRACKING_URI": uri},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def environment(container: dict[str, Any], manifests: Documents, namespace: str) -> dict[str, str]:
    """What Kubernetes would give to a container."""
    by_name = {
        (d["kind"], d["metadata"]["name"]): d.get("data", {})
        for d in manifests
        if d["metadata"].get("namespace") == namespace
    }
    given = {}
    for source in container.get("envFrom", []):
        given.update(by_name["ConfigMap", source["configMapRef"]["name"]])
    for variable in container.get("env", []):
        if "value" in variable:
            given[variable["name"]] = variable["value"]
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            value = by_name["Secret", reference["name"]][reference["key"]]
            given[variable["name"]] = base64.b64decode(value).decode()
    return given


def container_of(manifests: Documents, check: ModuleType, kind: str, name: str) -> dict[str, Any]:
    (document,) = [d for d in manifests if d["kind"] == kind and d["metadata"]["name"] == name]
    (template,) = check.templates(document)
    (container,) = template["spec"]["containers"]
    return container


@pytest.fixture
def start(
    dev: Documents,
    check: ModuleType,
    postgres: str,  # noqa: F811
    s3: Store,  # noqa: F811
    repository: Path,
    tmp_path: Path,
) -> Iterator[Callable[[], Server]]:
    """Start a server; each has the same database, as replicas have."""
    import psycopg

    pytest.importorskip("flask_wtf", reason="mlflow[auth] needs Flask-WTF, which is not installed")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE mlflow")
    container = container_of(dev, check, "Deployment", "mlflow")
    given = environment(container, dev, "mlflow")
    address = urlsplit(postgres)
    given |= {
        "PGHOST": parse_qs(address.query)["host"][0],
        "PGUSER": address.username or "postgres",
        "MLFLOW_AUTH_CONFIG_PATH": str(repository / "mlflow" / "auth.ini"),
        "MLFLOW_S3_ENDPOINT_URL": s3.url,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # as in the image
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    del given["PGPORT"]
    assert given["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://mlflow"
    s3.bucket("mlflow")
    running: list[subprocess.Popen[bytes]] = []

    def start() -> Server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        given["MLFLOW_SERVER_ALLOWED_HOSTS"] = re.sub(r"\b5000\b", str(port), hosts)
        command = [sys.executable, "-m", *container["command"]]
        command[command.index("0.0.0.0")] = "127.0.0.1"
        command[command.index("5000")] = str(port)
        log = tmp_path / f"{port}.log"
        with log.open("wb") as output:
            running.append(
                subprocess.Popen(
                    command,
                    cwd=tmp_path,
                    env=os.environ | given,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return Server(f"http://127.0.0.1:{port}", running[-1], log)

    hosts = given["MLFLOW_SERVER_ALLOWED_HOSTS"]
    try:
        yield start
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=30)
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute("DROP DATABASE mlflow WITH (FORCE)")


@pytest.mark.slow
def test_the_trainer_cannot_promote(
    start: Callable[[], Server],
    dev: Documents,
    check: ModuleType,
    s3: Store,  # noqa: F811
    repository: Path,
    tmp_path: Path,
) -> None:
    running = start()
    assert running.answers(), running.log.read_text()
    server, port = running.uri, urlsplit(running.uri).port

    health = requests.get(f"{server}/health", headers={"Host": "10.0.0.7:5000"}, timeout=10)
    assert health.status_code == 200, "the kubelet calls by the pod's address and without a login"
    for host, status in ((f"mlflow.mlflow.svc.cluster.local:{port}", 401), ("evil.example.com", 403)):
        said = requests.get(f"{server}/api/2.0/mlflow/experiments/search", headers={"Host": host}, timeout=10)
        assert said.status_code == status, said.text

    job = container_of(dev, check, "Job", "mlflow-permissions")
    given = {**environment(job, dev, "mlflow"), "MLFLOW_TRACKING_URI": server}

    def set_permissions(scenario: str = "shop") -> None:
        done = subprocess.run(
            [sys.executable, str(repository / "k8s" / "base" / "mlflow" / "permissions.py"), scenario],
            env=os.environ | given,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (
            0,
            f"{scenario}: the trainer registers candidates, the approver promotes\n",
        ), done.stderr

    def tried(user: str, password: str) -> dict[str, bool]:
        login = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        done = python(TRY, server, login, tmp_path)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    set_permissions()
    may = {
        "artifact": True,
        "candidate": True,
        "alias of a candidate": True,
        "tag of a candidate": True,
        "run": True,
        "promotion": False,
        "champion": False,
        "history": False,
        "delete": False,
    }
    assert tried("trainer", given["TRAINER_PASSWORD"]) == may
    (kept,) = s3.keys("mlflow")
    assert kept.endswith("/artifacts/model/text"), "through the server, and with its login"
    approver = {what: what in ("promotion", "champion", "history") for what in may}
    assert tried("approver", given["APPROVER_PASSWORD"]) == approver
    given["TRAINER_PASSWORD"] = "another-password"  # a second run changes the password, and nothing else
    set_permissions()
    assert tried("trainer", "another-password") == may

    # Who makes a model manages it: a scenario that is not named is the trainer's, until it is named.
    login = {"MLFLOW_TRACKING_USERNAME": "trainer", "MLFLOW_TRACKING_PASSWORD": "another-password"}

    def promotes(first: str = "") -> bool:
        code = f"from mlflow import MlflowClient\nclient = MlflowClient()\n{first}\n"
        code += 'client.set_registered_model_tag("unnamed", "mtrec.history.0001", "x")'
        done = python(code, server, login, tmp_path)
        assert done.returncode == 0 or "error code 403" in done.stderr, done.stderr
        return done.returncode == 0

    assert promotes('client.create_registered_model("unnamed")')
    set_permissions("unnamed")
    assert not promotes()


@pytest.mark.slow
def test_two_servers_may_start_at_once_on_an_empty_database(start: Callable[[], Server]) -> None:
    """As the two replicas of prod do: one that loses the race ends, and Kubernetes starts it again."""
    servers = [start(), start()]
    assert any(list(map(Server.answers, servers))), servers[0].log.read_text()
    for server in servers:
        again = server if server.process.poll() is None else start()
        assert again.answers(), again.log.read_text()


USER = """
import os
from mtrec.tracking.connection import connected
client = connected(os.environ["MLFLOW_TRACKING_URI"]).__enter__()
"""
FILL = """
run = client.create_run(client.create_experiment("shop"))
client.log_text(run.info.run_id, "weights", "model/text")
client.create_registered_model("shop")
client.create_model_version("shop", f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
client.set_registered_model_alias("shop", "champion", "1")
client.set_registered_model_tag("shop", "mtrec.history.0001", "approved")
"""
LATER = """
client.set_registered_model_tag("shop", "mtrec.history.0002", "after the backup")
"""
READ = """
import mlflow
version = client.get_model_version_by_alias("shop", "champion")
print(version.version, sorted(client.get_registered_model("shop").tags.items()))
print(open(mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path="model/text")).read())
"""


@pytest.mark.slow
def test_the_registry_comes_back_from_its_backup(
    start: Callable[[], Server],
    dev: Documents,
    check: ModuleType,
    postgres: str,  # noqa: F811
    s3: Store,  # noqa: F811
    repository: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By the lines of the guide for the database; a bucket is copied here without the tool that they name."""
    guide = (repository / "docs" / "operations.md").read_text(encoding="utf-8")
    host = parse_qs(urlsplit(postgres).query)["host"][0]
    admin = environment(container_of(dev, check, "Job", "mlflow-permissions"), dev, "mlflow")

    def line(tool: str) -> None:
        (found,) = re.findall(rf"^{tool} .*$", guide, flags=re.MULTILINE)
        here = found.replace("host=db.example.com", f"host={host}").replace("user=mlflow", "user=postgres")
        path = f"{tools()}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(here, shell=True, check=True, cwd=tmp_path, env=os.environ | {"PATH": path})

    def tell(server: Server, code: str) -> str:
        login = {name: admin[name] for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")}
        done = python(USER + code, server.uri, login, tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    server = start()
    assert server.answers(), server.log.read_text()
    tell(server, FILL)
    before = tell(server, READ)
    assert "approved" in before
    assert "weights" in before
    line("pg_dump")
    s3.bucket("my-backup-bucket")
    s3.sync("mlflow", "my-backup-bucket")
    tell(server, LATER)
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait(timeout=30)
    s3.empty("mlflow")
    (job, _) = documents((repository / "k8s" / "upgrade" / "job.yaml").read_text(encoding="utf-8"))
    (upgrade,) = job["spec"]["template"]["spec"]["containers"]
    given = {"PGHOST": host, "PGUSER": "postgres", "PGDATABASE": "mlflow"}
    done = subprocess.run([sys.executable, "-m", *upgrade["command"]], env=os.environ | given, cwd=tmp_path)
    assert done.returncode == 0
    line("pg_restore")
    s3.sync("my-backup-bucket", "mlflow")
    server = start()
    assert server.answers(), server.log.read_text()
    assert tell(server, READ) == before, "with the login of before, too"
    assert f"GET /mlflow/{s3.keys('mlflow')[0]} " in caplog.text
    assert "X-Amz-Signature" not in caplog.text, "nobody but the server asks the bucket"
