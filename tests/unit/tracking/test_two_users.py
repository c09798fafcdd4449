"""A real MLflow server on PostgreSQL with logins: the trainer registers, the approver decides, each a process."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from werkzeug.security import generate_password_hash

from tests.unit.stocked import VALIDATION

Process = Callable[..., subprocess.CompletedProcess[str]]
PASSWORDS = {name: f"{name}-has-a-password" for name in ("admin", "trainer", "approver")}
REGISTER = """
import json, sys
from pathlib import Path
from mtrec import tracking
from mtrec.config import load_scenario
given = json.loads(sys.argv[1])
done = tracking.register(
    Path(given["model"]), scenario=load_scenario(given["scenario"]), lineage=given["lineage"],
    **{k: Path(v) for k, v in given["judged"].items()},
)
print(json.dumps([done.version, done.champion]))
"""
BY_HAND = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient()
said = {}
for name, call in {
    "copy": lambda: client.copy_model_version("models:/ecommerce-candidate/1", "ecommerce"),
    "alias": lambda: client.set_registered_model_alias("ecommerce", "champion", "1"),
    "history": lambda: client.set_registered_model_tag("ecommerce", "mtrec.history.0001", "{}"),
    "version": lambda: client.set_model_version_tag("ecommerce", "1", "gate", "pass"),
    "delete": lambda: client.delete_registered_model("ecommerce"),
}.items():
    try:
        call()
        said[name] = "done"
    except Exception as error:
        said[name] = getattr(error.__cause__ or error, "error_code", repr(error))  # a copy's own error wraps it
print(json.dumps(said))
"""


@pytest.fixture
def server(postgres: str, tmp_path: Path) -> Iterator[str]:
    import psycopg

    pytest.importorskip("flask_wtf", reason="mlflow[auth] needs Flask-WTF, which is not installed")
    with psycopg.connect(postgres, autocommit=True) as connection:
        for name in ("runs", "logins"):
            connection.execute(f"CREATE DATABASE {name}")
    runs, logins = (postgres.replace("@/postgres", f"@/{name}") for name in ("runs", "logins"))
    (tmp_path / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {logins}\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command],
        cwd=tmp_path,
        env=os.environ
        | {
            "MLFLOW_BACKEND_STORE_URI": runs,
            "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "bucket"),
            "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORDS["admin"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key for this test",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        stdout=(tmp_path / "server.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for _ in range(400):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except requests.ConnectionError:
                time.sleep(0.3)
        for user in ("trainer", "approver"):
            done = requests.post(
                f"http://127.0.0.1:{port}/api/2.0/mlflow/users/create",
                json={"username": user, "password": PASSWORDS[user]},
                auth=("admin", PASSWORDS["admin"]),
                timeout=30,
            )
            assert done.status_code == 200, done.text
        with psycopg.connect(logins) as connection:  # cheap hashes: each request checks them several times
            for user, password in PASSWORDS.items():
                cheap = generate_password_hash(password, "pbkdf2:sha256:1")
                connection.execute("UPDATE users SET password_hash = %s WHERE username = %s", (cheap, user))
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)
        with psycopg.connect(postgres, autocommit=True) as connection:
            for name in ("runs", "logins"):
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def by(server: str, tmp_path: Path) -> Process:
    """Run Python as a user of the server, in a folder of the user's own."""

    def call(user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / user).mkdir(exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        login = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": PASSWORDS.get(user, "guessed")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path / user,
            env=environment | login | {"MLFLOW_TRACKING_URI": server},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


def mtrec(by: Process, user: str, *arguments: str) -> tuple[int, str, str]:
    done = by(user, "-m", "pipelines.cli", *arguments)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_the_trainer_registers_and_only_the_approver_promotes(
    server: str,
    by: Process,
    tiny_model: Path,
    judged: Callable[..., dict[str, Path]],
    repository: Path,
    tmp_path: Path,
) -> None:
    # Who creates a registered model may manage it: the approver makes the serving model before the first run.
    made = by("approver", "-c", "import mlflow; mlflow.MlflowClient().create_registered_model('ecommerce')")
    assert made.returncode == 0, made.stderr

    (tmp_path / "validation.json").write_text(json.dumps(VALIDATION))

    def register(code: str, champion: str | None) -> subprocess.CompletedProcess[str]:
        compared = {"name": "ecommerce", "version": champion} if champion else None
        files = judged(evaluation={"champion": compared}) | {"validation": tmp_path / "validation.json"}
        given = {
            "model": str(tiny_model),
            "scenario": str(repository / "scenarios" / "ecommerce.yaml"),
            "lineage": {
                "data_version": "0" * 32 + ".dir",
                "code_revision": code,
                "parameters_hash": "1",
                "image": "local",
                "pipeline_run": code,
            },
            "judged": {key: str(path) for key, path in files.items()},
        }
        return by("trainer", "-c", REGISTER, json.dumps(given))

    first = register("a", None)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout.splitlines()[-1]) == ["1", False], "the trainer may not make the first champion"

    code, output, error = mtrec(by, "trainer", "models", "approve", "ecommerce-candidate/1", "--why", "mine")
    assert (code, output) == (1, "")
    assert error == (
        f"mtrec: MLflow at {server}: permission denied to user 'trainer'; let somebody do it who may, "
        "or ask for the permission\n"
    )
    code, output, error = mtrec(by, "approver", "models", "approve", "ecommerce-candidate/1", "--why", "a start")
    assert (code, error) == (0, "")
    assert output == "ecommerce-candidate/1 is the champion now: ecommerce/1, before: none\n"

    second = register("b", "1")
    assert json.loads(second.stdout.splitlines()[-1]) == ["2", False], second.stderr
    for arguments in (
        ["approve", "ecommerce-candidate/2", "--force", "--why", "mine"],
        ["rollback", "ecommerce", "--why", "mine", "--to", "1"],
        ["reject", "ecommerce-candidate/2", "--why", "mine"],
    ):
        before = mtrec(by, "approver", "models", "history", "ecommerce")
        code, output, error = mtrec(by, "trainer", "models", *arguments)
        if arguments[0] != "rollback":
            assert (code, output) == (1, "")
            assert "permission denied to user 'trainer'" in error
        assert mtrec(by, "approver", "models", "history", "ecommerce") == before
    tried = by("trainer", "-c", BY_HAND)
    assert json.loads(tried.stdout.splitlines()[-1]) == dict.fromkeys(
        ("copy", "alias", "history", "version", "delete"), "PERMISSION_DENIED"
    ), tried.stderr
    nobody = mtrec(by, "nobody", "models", "list")
    assert nobody[:2] == (1, "")
    assert "not authenticated" in nobody[2].lower()

    code, output, error = mtrec(by, "approver", "models", "reject", "ecommerce-candidate/2", "--why", "slower")
    assert (code, output, error) == (0, "ecommerce-candidate/2 is rejected\n", "")
    mine = ["models", "approve", "ecommerce-candidate/2", "--force", "--why", "not slower"]
    assert mtrec(by, "approver", *mine)[0] == 0
    code, output, _ = mtrec(by, "approver", "lineage", "ecommerce")
    assert code == 0, output
    assert mtrec(by, "approver", "models", "rollback", "ecommerce", "--why", "wrong prices")[0] == 0
    code, output, _ = mtrec(by, "trainer", "models", "history", "ecommerce")
    rows = [line.split()[2:] for line in output.splitlines()[1:]]
    assert [row[:4] for row in rows] == [
        ["approver", "approve", "candidate/1", "none"],
        ["approver", "reject", "candidate/2", "1"],
        ["approver", "approve", "(forced)", "candidate/2"],
        ["approver", "rollback", "2", "→"],
    ]
    champion = by(
        "trainer",
        "-c",
        "from pathlib import Path; from mtrec import tracking;"
        "print(tracking.download_champion('ecommerce', Path('champion')).version)",
    )
    assert champion.stdout == "1\n", champion.stderr

    # Tampering on the server's disk is found out through the server.
    weights = list((tmp_path / "bucket").rglob("model.safetensors"))
    assert weights
    for path in weights:
        path.write_bytes(path.read_bytes() + b" ")
    code, output, error = mtrec(by, "approver", "lineage", "ecommerce-candidate/2")
    assert code == 1
    assert "changed: artifacts/model/model.safetensors" in output
