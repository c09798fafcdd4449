"""A real MLflow server for tests, which can go away and come back."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests


class Server:
    """A server on SQLite.

    Args:
        folder: gets the store `server.db`, unless it is there already, the artifacts and the log.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Come up, and answer."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        settings = {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.folder}/server.db",
            "MLFLOW_ARTIFACTS_DESTINATION": str(self.folder / "bucket"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        log = self.folder / "server.log"
        with log.open("a") as file:
            self.process = subprocess.Popen(
                [*command, "--workers", "1"],
                cwd=self.folder,
                env=os.environ | settings,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for _ in range(400):
            assert self.process.poll() is None, log.read_text()
            try:
                requests.get(f"{self.uri}/health", timeout=1)
                return
            except requests.RequestException:
                time.sleep(0.3)
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        """Go away at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
