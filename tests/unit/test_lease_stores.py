"""The same lease in a file and in a cluster; and what only a cluster has: races, versions, clocks, lost answers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtrec import kube
from mtrec.errors import InputError, RunError
from mtrec.lease import Away, FileStore, Held, Lease, LeaseStore, Lost, Store, holding, leave, of_run, working
from tests import kube_server
from tests.kube_server import KubeServer

Make = Callable[..., Lease]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    with kube_server.cluster(tmp_path, monkeypatch, namespace="shops") as server:
        yield server


@pytest.fixture(params=["file", "kubernetes"])
def store(request: pytest.FixtureRequest, tmp_path: Path, server: KubeServer) -> Store:
    return FileStore(tmp_path / "shop.json") if request.param == "file" else cluster()


class Time:
    """What passes for a store only when told."""

    def __init__(self, server: KubeServer) -> None:
        self.server, self.ahead = server, 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def passes(self, seconds: float) -> None:
        self.ahead += seconds
        self.server.ahead += seconds


def cluster() -> LeaseStore:
    return LeaseStore("shops", "mtrec-shop-training", labels={"mtrec/kind": "training"})


def lease_in(store: Store, clock: Time, **options: Any) -> Lease:
    if isinstance(store, FileStore):
        return Lease(store, clock=clock, **options)
    return Lease(store, **options)


# Both


def test_a_second_one_is_told_who_holds_it(store: Store) -> None:
    first, second = Lease(store), Lease(store)
    first.acquire("retraining of shop")
    said = r"^retraining of shop is under way already \(.*process \d+.*1[12]\d seconds until"
    with pytest.raises(Held, match=said):
        second.acquire("retraining of shop")
    found = second.holding()
    assert found is not None
    assert found.what == "retraining of shop"
    first.release()
    assert second.holding() is None
    assert second.acquire("retraining of shop") == 2


def test_it_ends_by_itself_and_the_late_holder_cannot_write(store: Store, server: KubeServer) -> None:
    clock = Time(server)
    first, second = (lease_in(store, clock, seconds=60) for _ in range(2))
    token = first.acquire("one")
    clock.passes(55)
    first.renew()
    clock.passes(55)
    with first.guarded() as own:
        assert own == token
    clock.passes(65)
    with pytest.raises(Lost, match="has expired"), first.guarded():
        pytest.fail("a late write")
    assert second.acquire("two") == token + 1
    for late in (first.renew, lambda: first.guarded().__enter__()):
        with pytest.raises(Lost, match="holds it now"):
            late()
    first.release()
    with second.guarded():
        pass


def test_tokens_grow_after_a_release_too(store: Store) -> None:
    tokens = []
    for _ in range(3):
        lease = Lease(store)
        tokens.append(lease.acquire("x"))
        lease.release()
    assert tokens == [1, 2, 3]


def test_holding_renews(store: Store) -> None:
    other = Lease(store)
    with holding(Lease(store, seconds=1), "long work"):
        time.sleep(2.5)
        with pytest.raises(Held):
            other.acquire("x")
    other.acquire("x")


def test_a_late_renewal_counts_where_nobody_has_taken_it(store: Store, server: KubeServer) -> None:
    clock = Time(server)
    lease = lease_in(store, clock, seconds=60)
    lease.acquire("a long write under the guard")
    clock.passes(65)
    assert lease.holding() is None
    lease.renew()
    with lease.guarded():
        pass


def test_a_step_in_another_process_writes_for_the_holder_until_another_has_begun(store: Store) -> None:
    lease = Lease(store, seconds=60)
    lease.acquire("one")
    for step in (Lease.from_text(lease.as_text()), Lease.join(lease.as_text(), "some run")):
        with step.guarded() as token:
            assert (token, step.holder) == (lease.token, lease.holder)
    lease.release()
    Lease(store).acquire("two")
    with pytest.raises(Lost, match="holds it now"), step.guarded():
        pytest.fail("a late write")
    with pytest.raises(RunError, match="not a lease"):
        Lease.from_text("{}")


def test_the_processes_of_a_run_share_its_token(store: Store) -> None:
    place = Lease(store, seconds=600).as_place()
    assert "token" not in json.loads(place)
    early = Lease.join(place, "run 7")
    with pytest.raises(Lost), early.guarded():
        pytest.fail("nobody holds it yet")
    first, second = Lease.join(place, "run 7"), Lease.join(place, "run 7")
    assert first.acquire("training of shop") == second.acquire("training of shop") == 1
    late = Lease.join(place, "run 7")
    late.renew()
    with late.guarded() as token:
        assert token == 1
    with pytest.raises(Held, match=r"\(run 7\)"):
        Lease.join(place, "run 8").acquire("training of shop")
    late.release()
    with pytest.raises(Lost), first.guarded():
        pytest.fail("the run is over")
    assert Lease.join(place, "run 8").acquire("training of shop") == 2


def test_a_run_keeps_it_from_step_to_step(store: Store, server: KubeServer) -> None:
    clock = Time(server)

    def step(run: str) -> Lease:
        lease = lease_in(store, clock, seconds=2, holder=run)
        return Lease.join(lease.as_place(), run) if isinstance(store, LeaseStore) else lease

    with working(step("run 7"), "training of shop") as first:
        time.sleep(3.5)
        with pytest.raises(Held, match=r"training of shop is under way already \(run 7\)"):
            step("run 8").acquire("training of shop")
    clock.passes(5)
    if isinstance(store, LeaseStore):
        with working(step("run 7"), "training of shop") as later:  # late, and nobody has come meanwhile
            assert later.token == first.token
    clock.passes(5)
    with working(step("run 8"), "training of shop") as other:
        assert other.token == 2
        with pytest.raises(Held), working(step("run 7"), "training of shop"):
            pytest.fail("another run trains")


def test_a_step_that_is_told_of_no_lease_or_of_one_with_a_holder_leaves_it_alone(store: Store) -> None:
    lease = Lease(store, seconds=60)
    lease.acquire("a run on one machine")
    before = lease.state()
    for text in ("", lease.as_text()):
        with of_run(text, "run 7", "training of shop"):
            assert lease.state() == before
        leave(text, "run 7")
        assert lease.state() == before


# A cluster


def test_the_steps_of_a_run_hold_it_until_the_last_one_leaves(server: KubeServer) -> None:
    place = Lease(cluster(), seconds=600).as_place()
    with of_run(place, "run 7", "training of shop"):
        pass
    with of_run(place, "run 7", "training of shop"):
        with pytest.raises(Held, match=r"\(run 7\)"), of_run(place, "run 8", "training of shop"):
            pytest.fail("two at once")
        leave(place, "run 8")  # it never had it
        assert Lease(cluster()).holding() is not None
    leave(place, "run 7")
    assert Lease(cluster()).holding() is None
    with of_run(place, "run 7", "training of shop"):  # a person tries the run again
        pass
    leave(place, "run 7")
    with of_run(place, "run 8", "training of shop"), pytest.raises(Held), of_run(place, "run 7", "training"):
        pytest.fail("another run trains")


HOLDER = (
    "import sys; from mtrec.lease import Held, Lease, LeaseStore\n"
    "sys.stdin.readline()\n"
    "try:\n    Lease(LeaseStore('shops', 'mtrec-shop-training')).acquire('work'); print('mine', flush=True)\n"
    "except Held:\n    print('held', flush=True)\n"
)


def test_of_many_processes_one_gets_it(server: KubeServer) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    both = [subprocess.Popen([sys.executable, "-c", HOLDER], **pipes, text=True) for _ in range(3)]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0].strip() for process in both) == ["held", "held", "mine"]
    assert server.objects["leases", "shops", "mtrec-shop-training"]["spec"]["leaseTransitions"] == 1


WORKER = (
    "import sys, time; from pathlib import Path; from mtrec.lease import Held, Lease, LeaseStore\n"
    "file = Path(sys.argv[1]); done = 0; until = time.monotonic() + 60\n"
    "while done < 5 and time.monotonic() < until:\n"
    "    lease = Lease(LeaseStore('shops', 'mtrec-shop-training'), seconds=30)\n"
    "    try:\n        token = lease.acquire('counting')\n"
    "    except Held:\n        time.sleep(0.01); continue\n"
    "    with lease.guarded():\n"
    "        seen = file.read_text(); time.sleep(0.005); file.write_text(f'{seen}{token} ')\n"
    "    lease.release(); done += 1\n"
)


def test_what_processes_do_under_it_they_do_one_after_the_other(server: KubeServer, tmp_path: Path) -> None:
    """Each reads the file and writes it with its token added: two at once would lose one."""
    file = tmp_path / "tokens"
    file.write_text("")
    both = [subprocess.Popen([sys.executable, "-c", WORKER, str(file)]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert [int(token) for token in file.read_text().split()] == list(range(1, 11))


def test_who_is_created_before_by_another_is_told_so(server: KubeServer) -> None:
    """Both have seen that there is none; the API server refuses the second."""
    first, second = Lease(cluster()), Lease(cluster())
    server.before("POST", "/leases", lambda: second.acquire("the faster one"))
    with pytest.raises(Held, match="the faster one is under way already"):
        first.acquire("the slower one")
    assert [r.method for r in server.seen].count("POST") == 2


def test_a_stale_version_is_refused(server: KubeServer) -> None:
    """Both have seen that it has expired; the API server refuses the second replacement."""
    Lease(cluster(), seconds=10).acquire("the one before")
    server.ahead += 60
    first, second = Lease(cluster()), Lease(cluster())
    server.before("PUT", "/leases/", lambda: second.acquire("the faster one"))
    with pytest.raises(Held, match="the faster one"):
        first.acquire("the slower one")
    assert second.token == 2
    assert all(r.body["metadata"]["resourceVersion"] for r in server.seen if r.method == "PUT")


def test_a_change_that_leaves_the_holder_is_no_loss(server: KubeServer) -> None:
    lease = Lease(cluster())
    lease.acquire("x")
    label = {"metadata": {"labels": {"seen": "yes"}}}
    server.before("PUT", "/leases/", lambda: server.change("leases", "mtrec-shop-training", "shops", **label))
    lease.renew()
    with lease.guarded():
        pass
    step = Lease.from_text(lease.as_text())
    step.renew()
    labels = server.objects["leases", "shops", "mtrec-shop-training"]["metadata"]["labels"]
    assert labels == {"mtrec/kind": "training", "seen": "yes"}


def test_time_is_the_api_servers(server: KubeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods whose clocks are hours off neither take it too early nor hold it too long."""
    holder = Lease(cluster(), seconds=60)
    holder.acquire("x")
    clock = time.time
    for off in (-7200, 7200):
        monkeypatch.setattr(time, "time", lambda off=off: clock() + off)
        with pytest.raises(Held, match=r" (5\d|6\d) seconds until"):
            Lease(cluster()).acquire("y")
    monkeypatch.setattr(time, "time", clock)
    server.ahead += 62
    assert Lease(cluster()).acquire("y") == 2


def test_an_object_that_was_deleted_and_made_again_is_another(server: KubeServer) -> None:
    """Its tokens begin anew, so the token alone would let the old holder in."""
    old = Lease(cluster())
    assert old.acquire("x") == 1
    server.remove("leases", "mtrec-shop-training", "shops")
    with pytest.raises(Lost, match="is gone"):
        old.renew()
    new = Lease(cluster(), holder=old.holder)
    assert new.acquire("x") == 1
    with pytest.raises(Lost, match="this lock was lost"), old.guarded():
        pytest.fail("a late write")


def test_one_deleted_between_reading_and_writing_is_made_anew_by_who_acquires(server: KubeServer) -> None:
    before = Lease(cluster())
    before.acquire("x")
    before.release()
    server.before("PUT", "/leases/", lambda: server.remove("leases", "mtrec-shop-training", "shops"))
    assert Lease(cluster()).acquire("y") == 1


def test_an_answer_that_was_lost_is_no_failure(server: KubeServer) -> None:
    lease = Lease(cluster())
    server.unanswered.add("POST")
    lease.acquire("x")
    server.unanswered.add("PUT")
    lease.renew()
    server.unanswered.add("PUT")
    with lease.guarded():
        pass
    lease.release()
    assert Lease(cluster()).acquire("y") == 2


def test_an_api_server_that_is_away_for_a_while_costs_nothing(server: KubeServer) -> None:
    lease = Lease(cluster(), seconds=30)
    lease.acquire("x")
    said = r"^Lease shops/mtrec-shop-training: .* cannot be reached"
    with lease.guarded(), server.gone(), pytest.raises(Away, match=said):
        lease.renew()
    with lease.guarded():
        server.away = True
    server.away = False
    assert lease.holding() is not None
    with server.gone(), pytest.raises(Away):
        Lease(cluster()).acquire("y")


def test_who_cannot_tell_whether_it_was_late_says_so(server: KubeServer) -> None:
    lease = Lease(cluster(), seconds=1)
    lease.acquire("x")

    def write_too_long() -> None:
        server.away = True
        time.sleep(1.1)

    said = "whether what was written came in time is not known"
    with pytest.raises(Lost, match=said), lease.guarded():
        write_too_long()


def test_what_was_lost_within_the_guard_is_told(server: KubeServer) -> None:
    lease = Lease(cluster(), seconds=600)
    lease.acquire("x")
    other = Lease(cluster(), seconds=600)

    def sleep_too_long() -> None:
        server.ahead += 700
        other.acquire("y")

    said = r"holds it now\. What was written meanwhile may have come late"
    with pytest.raises(Lost, match=said), lease.guarded():
        sleep_too_long()


def test_an_error_under_the_guard_is_what_is_raised(server: KubeServer) -> None:
    lease = Lease(cluster(), seconds=1)
    lease.acquire("x")

    def fail() -> None:
        server.away = True
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), lease.guarded():
        fail()
    server.away = False
    server.ahead += 60
    with pytest.raises(ZeroDivisionError), holding(Lease(cluster()), "y"):
        fail()


def test_a_long_write_under_the_guard_keeps_the_lease(server: KubeServer) -> None:
    lease = Lease(cluster(), seconds=1)
    lease.acquire("x")
    with lease.guarded():
        time.sleep(2.5)
        with pytest.raises(Held):
            Lease(cluster()).acquire("y")


def test_what_the_object_says(server: KubeServer) -> None:
    """Read by kubectl and by people."""
    lease = Lease(cluster(), seconds=0.5)
    lease.acquire("training of shop")
    found = server.objects["leases", "shops", "mtrec-shop-training"]
    assert found["metadata"]["labels"] == {"mtrec/kind": "training"}
    assert found["metadata"]["annotations"]["mtrec/what"] == "training of shop"
    assert found["spec"] | {"renewTime": ""} == {
        "holderIdentity": lease.holder, "leaseDurationSeconds": 2, "leaseTransitions": 1, "renewTime": "",
    }  # fmt: skip
    lease.release()
    released = server.objects["leases", "shops", "mtrec-shop-training"]["spec"]
    assert "holderIdentity" not in released
    assert released["leaseTransitions"] == 1


def test_a_lease_of_somebody_elses_is_respected(server: KubeServer) -> None:
    """Without our annotations, and without transitions."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    spec = {"holderIdentity": "another", "leaseDurationSeconds": 30, "renewTime": stamp}
    server.add("leases", "mtrec-shop-training", "shops", spec=spec)
    with pytest.raises(Held, match=r"^something else is under way already \(another\)"):
        Lease(cluster()).acquire("x")


def test_what_is_refused_is_told(server: KubeServer) -> None:
    with pytest.raises(Away, match="there is no namespace elsewhere; make it"):
        Lease(LeaseStore("elsewhere", "x")).acquire("x")
    server.forbidden.add(("create", "leases"))
    with pytest.raises(RunError, match=r"Lease shops/mtrec-shop-training: .* 403 .*cannot create resource"):
        Lease(cluster()).acquire("x")
    server.forbidden.clear()
    with pytest.raises(RunError, match="Invalid value: a lowercase RFC 1123"):
        Lease(LeaseStore("shops", "Shop_1")).acquire("x")
    with pytest.raises(RunError, match="not a lease"):
        Lease.join('{"kubernetes": {"namespace": "shops"}}', "run")


def test_without_a_cluster_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "KUBECONFIG" in os.environ
    kube.api_client.cache_clear()
    with pytest.raises(InputError, match=r"no Kubernetes cluster to use: .*Set KUBECONFIG"):
        Lease(cluster()).acquire("x")
