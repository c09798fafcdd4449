"""Where the leases of a scenario are, and who decides where they are a cluster's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mtrec.errors import InputError
from mtrec.lease import Held, Lease, holding
from mtrec.tracking import resolve_uri, training_lease, trainings
from mtrec.tracking.connection import connected
from mtrec.tracking.deciding import LEASE_SECONDS, deciding, lease_of, run_lease
from tests import kube_server
from tests.kube_server import KubeServer


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    monkeypatch.chdir(tmp_path)
    with kube_server.cluster(tmp_path, monkeypatch, namespace="shops") as server:
        server.add("namespaces", "others")
        yield server


@pytest.mark.parametrize(("given", "namespace"), [("kubernetes", "shops"), ("kubernetes:others", "others")])
def test_a_cluster_holds_them_where_it_is_said(
    cluster: KubeServer, monkeypatch: pytest.MonkeyPatch, given: str, namespace: str
) -> None:
    monkeypatch.setenv("MTREC_LEASES", given)
    lease = training_lease("tiny-shop", "http://mlflow")
    assert (lease.store.shown, lease.seconds) == (f"Lease {namespace}/mtrec-tiny-shop-training", LEASE_SECONDS)
    with holding(lease, "training of tiny-shop"), holding(lease_of("tiny-shop", "http://mlflow"), "approving"):
        assert trainings("http://mlflow") == [f"training of tiny-shop ({lease.holder})"]
        with pytest.raises(Held, match="training of tiny-shop is under way"):
            training_lease("tiny-shop", "sqlite:///another").acquire("x")
    assert trainings("http://mlflow") == []
    assert sorted(name for kind, _, name in cluster.objects if kind == "leases") == [
        "mtrec-tiny-shop-promotion",
        "mtrec-tiny-shop-training",
    ]
    assert not Path(".mtrec/locks").exists()


def test_a_run_on_a_cluster_is_told_where_its_lease_is(
    cluster: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Lease.join(run_lease("tiny-shop", "others", hours=2), "run 7")
    step.acquire("training of tiny-shop")
    monkeypatch.setenv("MTREC_LEASES", "kubernetes:others")
    cluster.ahead += 7100
    assert trainings("http://mlflow") == ["training of tiny-shop (run 7)"]
    cluster.ahead += 200
    assert trainings("http://mlflow") == []


def test_one_decides_at_a_time(cluster: KubeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTREC_LEASES", "kubernetes")
    uri = resolve_uri()
    what = "approving tiny-shop-candidate/1"
    said = pytest.raises(Held, match=f"{what} is under way")
    with connected(uri) as client, deciding(client, uri, "tiny-shop", what), said:
        lease_of("tiny-shop", uri).acquire("another")
    assert lease_of("tiny-shop", uri).acquire("another") == 2


def test_a_wrong_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("redis", "files:here"):
        monkeypatch.setenv("MTREC_LEASES", given)
        with pytest.raises(InputError, match=f"MTREC_LEASES={given}: unknown; give files, kubernetes or"):
            training_lease("shop", "http://mlflow")
    for given in ("", "files"):
        monkeypatch.setenv("MTREC_LEASES", given)
        assert training_lease("shop", "http://mlflow").path == Path(".mtrec/locks/shop.training.json")
