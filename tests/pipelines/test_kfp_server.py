import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kfp_server_api
import pytest
import yaml
from kfp import Client

from mtrec.errors import ConfigError, InputError, RunError
from pipelines.kfp_server import Access, Away, Missing, Refused, Server, _home, connect
from pipelines.kfp_session import Interrupted
from pipelines.server_versions import adapt, parse_version
from tests.kfp_stand_in import Refuse, StandIn


@pytest.fixture(params=["2.14", "2.17"])
def stand_in(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with StandIn(request.param).running() as server:
        yield server


@pytest.fixture
def compiled(repository: Path) -> Path:
    return repository / "tests/golden/training_pipeline.yaml"


def started(server: Server, compiled: Path, name: str = "one") -> str:
    pipeline = server.pipeline_id("mtrec-training")
    version, _ = server.version_id(pipeline, "v-1", compiled)
    experiment = server.experiment_id("shop")
    return server.start(
        name, experiment_id=experiment, pipeline_id=pipeline, version_id=version, parameters={"scenario": "{}"}
    )


def test_the_private_names_of_kfp_are_there() -> None:
    for name in (
        "_load_config",
        "_load_context_setting_or_default",
        "_KUBE_PROXY_PATH",
        "get_kfp_healthz",
        "list_pipelines",
    ):
        assert hasattr(Client, name), f"kfp.Client has no {name} any more: look at pipelines/kfp_server.py"
    assert hasattr(kfp_server_api.Configuration(), "refresh_api_key_hook")
    assert hasattr(kfp_server_api.ApiClient(), "rest_client")
    assert hasattr(kfp_server_api.HealthzServiceApi, "healthz_service_get_healthz")


def test_a_run_is_started_once_and_seen(
    stand_in: StandIn, compiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect(Access(host=stand_in.url)) as server:
        assert server.version == parse_version(stand_in.tag or "")
        run = started(server, compiled)
        assert server.run(run).state == "PENDING"
        assert [view.name for view in server.runs(5)] == ["one"]
        pipeline = server.pipeline_id("mtrec-training")
        assert server.version_id(pipeline, "v-1", compiled)[1] is False
        assert server.run_link(run) == f"{stand_in.url}/#/runs/details/{run}"
    assert len(stand_in.pipelines) == len(stand_in.versions) == len(stand_in.experiments) == 1
    assert capsys.readouterr().out == ""


def test_runs_come_page_by_page(stand_in: StandIn, compiled: Path) -> None:
    with connect(Access(host=stand_in.url)) as server:
        for number in range(5):
            started(server, compiled, f"run {number}")
        assert [view.name for view in server.runs(3)] == ["run 4", "run 3", "run 2"]


def test_a_run_whose_answer_got_lost_is_not_started_twice(stand_in: StandIn, compiled: Path) -> None:
    lost = lambda request: "lose" if request.method == "POST" and request.path.endswith("/runs") else None  # noqa: E731
    stand_in.trouble = lost
    with connect(Access(host=stand_in.url)) as server:
        run = started(server, compiled)
    assert list(stand_in.runs) == [run]


@pytest.mark.parametrize("when", ["sent", "looked for"])
def test_ctrl_c_at_a_start_says_that_the_run_may_have_begun(
    when: str, stand_in: StandIn, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with connect(Access(host=stand_in.url)) as server:
        if when == "sent":
            monkeypatch.setattr(server._client, "run_pipeline", stopped)
        else:
            monkeypatch.setattr(server, "_runs", stopped)
            stand_in.trouble = lambda request: "lose" if request.path.endswith("/runs") else None
        with pytest.raises(Interrupted, match=r"look with 'mtrec runs list' whether one has begun after all$"):
            started(server, compiled)


@pytest.mark.parametrize(
    ("status", "kind", "part"),
    [
        (401, Refused, "--token-file"),
        (403, Refused, "does not allow"),
        (400, InputError, "refuses the request"),
        (503, Away, "cannot answer now (503)"),
    ],
)
def test_a_status_becomes_one_line(status: int, kind: type[Exception], part: str) -> None:
    with StandIn().running() as stand_in, connect(Access(host=stand_in.url)) as server:
        stand_in.trouble = lambda request: status
        with pytest.raises(kind, match="Kubeflow Pipelines at http") as error:
            server.runs(1)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_run() -> None:
    with (
        StandIn().running() as stand_in,
        connect(Access(host=stand_in.url)) as server,
        pytest.raises(Missing, match=r"run nobody: no such run on .*; 'mtrec runs list'"),
    ):
        server.run("nobody")


def test_trouble_that_passes_is_not_told() -> None:
    troubles = iter([503, "drop"])
    with StandIn().running() as stand_in, connect(Access(host=stand_in.url)) as server:
        stand_in.trouble = lambda request: next(troubles, None)
        assert server.runs(1) == []


def test_a_silent_server_ends_it_in_one_line() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(Away, match="did not answer in time"), connect(Access(host=host, connect_s=1)):
            pass
    assert time.monotonic() - begin < 15


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Away, match="cannot be reached"), connect(Access(host=host, connect_s=1)):
        pass


@pytest.mark.parametrize("host", ["https", "http://mtrec.invalid"])
def test_a_wrong_address(host: str) -> None:
    with StandIn().running() as stand_in:
        given = stand_in.url.replace("http:", "https:") if host == "https" else host
        with pytest.raises(RunError) as error, connect(Access(host=given, connect_s=1)):
            pass
    assert "\n" not in str(error.value)


def test_a_server_that_is_too_old() -> None:
    older = r"2\.13\.0 at .* is older than 2\.14"
    with (
        StandIn("2.13").running() as stand_in,
        pytest.raises(RunError, match=older),
        connect(Access(host=stand_in.url)),
    ):
        pass


def test_a_server_that_does_not_tell_its_version() -> None:
    stand_in = StandIn()
    stand_in.tag = None
    with stand_in.running(), connect(Access(host=stand_in.url)) as server:
        assert server.version is None


def test_many_users_need_a_namespace(compiled: Path) -> None:
    with StandIn(multi_user=True).running() as stand_in:
        with pytest.raises(InputError, match="--namespace"), connect(Access(host=stand_in.url)):
            pass
        with connect(Access(host=stand_in.url, namespace="team")) as server:
            started(server, compiled)
            assert len(server.runs(3)) == 1
        with connect(Access(host=stand_in.url, namespace="others", usual="team")) as server:
            assert server.runs(3) == []
        with connect(Access(host=stand_in.url, usual="team")) as server:
            assert len(server.runs(3)) == 1
            assert server.access.namespace == "team"


def test_the_usual_namespace_is_none_of_a_single_user(stand_in: StandIn) -> None:
    with connect(Access(host=stand_in.url, usual="team")) as server:
        assert server.namespace == server.home == ""


@pytest.mark.parametrize(
    ("address", "home"),
    [
        ("http://ml-pipeline.kubeflow.svc.cluster.local:8888", "kubeflow"),
        ("ml-pipeline-ui.pipes.svc:80", "pipes"),
        ("http://127.0.0.1:8888", ""),
        ("https://ml-pipeline.example.com/pipeline", ""),
    ],
)
def test_the_namespace_of_the_server_is_known_by_its_service(address: str, home: str) -> None:
    assert _home(address) == home


def test_a_token_is_read_again_for_every_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with (
        StandIn(token="first").running() as stand_in,
        connect(Access(host=stand_in.url, token_file=token)) as server,
    ):
        stand_in.token = "second"
        with pytest.raises(Refused):
            server.runs(1)
        token.write_text("second\n")
        assert server.runs(1) == []


def test_cookies_are_sent(tmp_path: Path) -> None:
    (tmp_path / "cookies").write_text("session=abc")
    with StandIn().running() as stand_in, connect(Access(host=stand_in.url, cookies_file=tmp_path / "cookies")):
        assert stand_in.requests[0].headers["Cookie"] == "session=abc"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_certificate_by_an_authority_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mtrec -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", *options.split(), "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text((tmp_path / "key").read_text() + (tmp_path / "certificate").read_text())
    with StandIn().running(certificate=file) as stand_in:
        with pytest.raises(Away, match=r"not trusted .*give --ca-file"), connect(Access(host=stand_in.url)):
            pass
        with connect(Access(host=stand_in.url, ca_file=tmp_path / "certificate")) as server:
            assert server.runs(1) == []


@pytest.mark.parametrize("text", [None, "", "two\nlines"])
def test_a_token_file_that_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    with (
        pytest.raises(InputError, match="--token-file"),
        connect(Access(host="http://127.0.0.1:1", token_file=tmp_path / "token")),
    ):
        pass


def test_without_kubectl_the_way_is_the_services_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    prefix = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
    with StandIn(prefix=prefix).running() as stand_in:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": stand_in.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        file = tmp_path / "config"
        file.write_text(yaml.safe_dump(config))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
        with connect(Access()) as server:
            assert server.runs(1) == []
            assert server.run_link("x") == ""
            assert server.home == "kubeflow"


def test_no_way_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no --host, no kubectl, and no kubeconfig"), connect(Access()):
        pass


DOCUMENTS = [
    {"components": {}},
    {
        "platforms": {
            "kubernetes": {
                "deploymentSpec": {
                    "executors": {"exec-a": {"secretAsEnv": [{"secretName": "s", "optional": False}]}}
                }
            }
        }
    },
]


def test_the_default_that_an_old_server_does_not_know_is_left_out() -> None:
    adapted = adapt(DOCUMENTS, (2, 14))
    assert "optional" not in str(adapted)
    assert "optional" in str(DOCUMENTS)
    config = adapted[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-a"]
    StandIn("2.14")._message(config, "kfp_kubernetes.KubernetesExecutorConfig", "exec-a")
    with pytest.raises(Refuse, match="optional"):
        StandIn("2.14")._message(
            DOCUMENTS[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-a"],  # type: ignore[index]
            "kfp_kubernetes.KubernetesExecutorConfig",
            "exec-a",
        )


@pytest.mark.parametrize(
    "config",
    [
        {"securityContext": {"runAsNonRoot": True}},
        {"secretAsEnv": [{"secretName": "s", "optional": True}]},
        {"pvcMount": [{"constant": "c", "subPath": "x"}]},
    ],
)
def test_what_an_old_server_does_not_know_is_refused(config: dict[str, object]) -> None:
    documents = [{}, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-a": config}}}}}]
    with pytest.raises(ConfigError, match=r"needs Kubeflow Pipelines 2\.17: \w"):
        adapt(documents, None)
    assert adapt(documents, (2, 17)) == documents


@pytest.mark.parametrize(
    ("tag", "version"), [("2.14.3", (2, 14)), ("v2.17.0-rc.1", (2, 17)), ("unknown", None), ("", None)]
)
def test_versions_are_read(tag: str, version: tuple[int, int] | None) -> None:
    assert parse_version(tag) == version
