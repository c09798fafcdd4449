"""People approve, reject and roll back; whatever is killed in between, the next decision goes on from there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.errors import InputError, ModelError, RunError
from mtrec.lease import Lease
from mtrec.tracking.connection import connected
from mtrec.tracking.deciding import LEASE_SECONDS, lease_of
from tests.unit.stocked import NEWER, OTHER, REFUSED, stock


@pytest.fixture(scope="module")
def stocked(
    prepared_store: Path, tiny_model: Path, scenario: Scenario, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return stock(tmp_path_factory.mktemp("stocked"), prepared_store, tiny_model, scenario)


@pytest.fixture
def store(uri: str, stocked: Path, tmp_path: Path) -> str:
    shutil.copy(stocked, tmp_path / ".mtrec" / "mlflow.db")
    return uri


def champion(uri: str) -> str:
    with connected(uri) as client:
        return str(client.get_model_version_by_alias("ecommerce", "champion").version)


def versions(uri: str, name: str = "ecommerce") -> list[str]:
    with connected(uri) as client:
        return sorted(str(version.version) for version in client.search_model_versions(f"name = '{name}'"))


def test_approving_moves_the_champion_and_is_remembered(store: str) -> None:
    done = tracking.approve("ecommerce-candidate/2", who="ada", why="better on cold items")
    assert (done.changed, done.champion, done.before) == (True, "ecommerce/2", "ecommerce/1")
    assert champion(store) == "2"
    first, second = tracking.history("ecommerce")
    assert (first.action, first.before, first.after, first.candidate) == (
        "first",
        "none",
        "ecommerce/1",
        "ecommerce-candidate/1",
    )
    assert (second.action, second.who, second.why) == ("approve", "ada", "better on cold items")
    assert (second.before, second.after, second.candidate) == ("ecommerce/1", "ecommerce/2", NEWER)
    assert not second.forced
    with connected(store) as client:
        model, version = client.get_registered_model("ecommerce"), client.get_model_version("ecommerce", "2")
    assert version.tags["code_revision"] == "1"
    assert version.tags["copied_from"] == NEWER
    assert json.loads(model.tags["mtrec.history.0002"])["who"] == "ada"
    assert version.tags["mtrec.history.0002"] == model.tags["mtrec.history.0002"]
    assert "mtrec.pending" not in model.tags


def test_approving_twice_makes_one_version_and_one_entry(store: str) -> None:
    tracking.approve(NEWER, who="ada")
    again = tracking.approve(NEWER, who="ben")
    assert (again.changed, again.champion) == (False, "ecommerce/2")
    assert versions(store) == ["1", "2"]
    assert [change.who for change in tracking.history("ecommerce")] == ["mtrec", "ada"]


def test_a_scenario_means_its_newest_candidate(store: str) -> None:
    with pytest.raises(tracking.Refused, match=r"^ecommerce-candidate/4: its gate says fail; see 'mtrec models "):
        tracking.approve("ecommerce", who="ada")
    assert tracking.approve("ecommerce", who="ada", why="known fault of the test part", force=True).changed
    assert tracking.history("ecommerce")[-1].forced


def test_a_champion_that_changed_since_is_no_basis(store: str) -> None:
    tracking.approve(NEWER, who="ada")
    with pytest.raises(
        tracking.Refused,
        match=r"^ecommerce-candidate/3: it was compared with ecommerce/1, and the champion is ecommerce/2 now; "
        r"run 'mtrec run' again .* --force --why$",
    ):
        tracking.approve(OTHER, who="ben", why="mine")
    assert champion(store) == "2"
    assert versions(store) == ["1", "2"]
    assert len(tracking.history("ecommerce")) == 2
    assert tracking.approve(OTHER, who="ben", why="both were measured by hand", force=True).before == "ecommerce/2"
    assert champion(store) == "3"


@pytest.mark.parametrize(
    ("tag", "message"), [("gate", "its gate says x"), ("sha256.report", "gate is broken: report.html was changed")]
)
def test_a_candidate_is_looked_at_again_once_nobody_else_decides(
    store: str, monkeypatch: pytest.MonkeyPatch, tag: str, message: str
) -> None:
    """The tag changes after the candidate was found and before the lease is had."""
    acquire = Lease.acquire

    def late(lease: Lease, what: str) -> int:
        with connected(store) as client:
            client.set_model_version_tag("ecommerce-candidate", "2", tag, "x")
        return acquire(lease, what)

    monkeypatch.setattr(Lease, "acquire", late)
    with pytest.raises(tracking.Refused, match=f"^{NEWER}: {message}"):
        tracking.approve(NEWER, who="ada")
    assert champion(store) == "1"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tracking.approve(NEWER, who=" "), "nobody is named: give --who"),
        (lambda: tracking.approve(NEWER, who="ada", force=True), "--force needs a reason: give --why"),
        (lambda: tracking.reject(NEWER, who="ada", why=" "), "rejecting needs a reason: give --why"),
        (lambda: tracking.rollback("ecommerce", who="ada", why=""), "rolling back needs a reason: give --why"),
        (lambda: tracking.reject(NEWER, who="ada", why="x" * 2001), "--why: 2001 characters, at most 2000"),
    ],
)
def test_who_and_why_are_asked_for(store: str, call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
    assert len(tracking.history("ecommerce")) == 1


def test_what_is_no_candidate(store: str) -> None:
    with pytest.raises(ModelError, match=r"ecommerce/1: a version of the serving model.*rollback ecommerce --to 1"):
        tracking.approve("ecommerce/1", who="ada")
    with pytest.raises(ModelError, match="no such version"):
        tracking.approve("ecommerce-candidate/9", who="ada")
    with pytest.raises(ModelError, match=r"video-candidate@candidate: no such registered model \(known: ecommerce"):
        tracking.approve("video", who="ada")
    with pytest.raises(ModelError, match="video: no such registered model"):
        tracking.history("video")


def test_rejecting_lasts_until_somebody_overrides_it(store: str) -> None:
    done = tracking.reject(NEWER, who="ben", why="worse for new users")
    assert (done.changed, done.champion) == (True, "ecommerce/1")
    assert not tracking.reject(NEWER, who="eve", why="me too").changed
    with pytest.raises(tracking.Refused, match=r"/2: ben rejected it on 20\d\d-\d\d-\d\d \(worse for new users\);"):
        tracking.approve(NEWER, who="ada")
    with pytest.raises(tracking.Refused, match="is the champion; take it back with 'mtrec models rollback ecom"):
        tracking.reject("ecommerce-candidate/1", who="ben", why="no")
    assert tracking.approve(NEWER, who="ada", why="ben agrees now", force=True).changed
    with connected(store) as client:
        entered = [client.get_model_version("ecommerce", version).tags for version in ("1", "2")]
    keys = [sorted(key.removeprefix("mtrec.history.") for key in tags if "history" in key) for tags in entered]
    assert keys == [["0001", "0002", "0003"], ["0003"]]
    assert [change.action for change in tracking.history("ecommerce")] == ["first", "reject", "approve"]


def test_rejections_are_kept_where_only_approvers_write(store: str) -> None:
    with connected(store) as client:
        before = (
            client.get_registered_model("ecommerce-candidate").tags,
            client.get_model_version(*NEWER.split("/")),
        )
        tracking.reject(NEWER, who="ben", why="worse")
        after = client.get_registered_model("ecommerce-candidate").tags, client.get_model_version(*NEWER.split("/"))
        assert after[0] == before[0]
        assert after[1].tags == before[1].tags
        assert json.loads(client.get_registered_model("ecommerce").tags["mtrec.history.0002"])["who"] == "ben"


def test_a_rejection_that_an_mtrec_of_before_entered_is_still_known(store: str) -> None:
    tracking.reject(NEWER, who="ben", why="worse")
    key = "mtrec.history.0002"
    with connected(store) as client:
        text = client.get_registered_model("ecommerce").tags[key]
        client.set_registered_model_tag("ecommerce-candidate", "mtrec.history.0001", text)
        client.delete_registered_model_tag("ecommerce", key)
    assert not tracking.reject(NEWER, who="eve", why="me too").changed
    assert tracking.statuses("ecommerce")[NEWER] == "rejected"


def test_a_scenario_without_a_serving_model_can_reject_too(store: str) -> None:
    with connected(store) as client:
        client.delete_registered_model("ecommerce")
    assert tracking.reject(NEWER, who="ben", why="worse").champion == "none"
    assert [(change.action, change.before) for change in tracking.history("ecommerce")] == [("reject", "none")]
    with pytest.raises(tracking.Refused, match="ben rejected it"):
        tracking.approve(NEWER, who="ada")


def test_rolling_back_walks_back_and_asks_before_the_same_again(store: str) -> None:
    tracking.approve(NEWER, who="ada")
    tracking.approve(OTHER, who="ada", why="faster", force=True)
    back = tracking.rollback("ecommerce", who="ben", why="wrong prices")
    assert (back.before, back.champion, champion(store)) == ("ecommerce/3", "ecommerce/2", "2")
    with pytest.raises(tracking.Refused, match=r"candidate/3: ben rolled it back on .* \(wrong prices\)"):
        tracking.approve(OTHER, who="ada")
    assert tracking.rollback("ecommerce", who="ben", why="still wrong").champion == "ecommerce/1"
    with pytest.raises(tracking.Refused, match="nothing was champion before ecommerce/1"):
        tracking.rollback("ecommerce", who="ben", why="again")
    assert tracking.rollback("ecommerce", who="ben", why="this one", to="3").champion == "ecommerce/3"
    assert not tracking.rollback("ecommerce", who="ben", why="this one", to="3").changed
    with pytest.raises(ModelError, match="ecommerce/9: no such version"):
        tracking.rollback("ecommerce", who="ben", why="x", to="9")
    assert versions(store) == ["1", "2", "3"]
    assert [change.action for change in tracking.history("ecommerce")][-3:] == ["rollback"] * 3


def test_a_champion_of_unknown_origin_needs_a_named_version(store: str) -> None:
    with connected(store) as client:
        client.copy_model_version(f"models:/{NEWER}", "ecommerce")
        client.set_registered_model_alias("ecommerce", "champion", "2")
    with pytest.raises(tracking.Refused, match=r"does not say what was champion before ecommerce/2.* --to$"):
        tracking.rollback("ecommerce", who="ada", why="x")
    with connected(store) as client:
        client.delete_registered_model_alias("ecommerce", "champion")
    with pytest.raises(tracking.Refused, match="no version is champion, nothing to roll back"):
        tracking.rollback("ecommerce", who="ada", why="x")


def test_a_copy_that_never_served_is_gone_to_by_force_only(store: str) -> None:
    with connected(store) as client:
        client.copy_model_version(f"models:/{NEWER}", "ecommerce")
    with pytest.raises(
        tracking.Refused, match=r"^ecommerce/2: never was champion; approve its candidate, .* --force$"
    ):
        tracking.rollback("ecommerce", who="ada", why="x", to="2")
    assert tracking.rollback("ecommerce", who="ada", why="x", to="2", force=True).champion == "ecommerce/2"


def test_the_status_of_every_version(store: str) -> None:
    assert tracking.statuses("ecommerce") == {
        "ecommerce/1": "champion",
        "ecommerce-candidate/1": "champion",
        NEWER: "awaiting review",
        OTHER: "awaiting review",
        REFUSED: "refused by the gate",
    }
    tracking.approve(NEWER, who="ada")
    tracking.reject(REFUSED, who="ada", why="no")
    assert tracking.statuses("ecommerce") == {
        "ecommerce/2": "champion",
        "ecommerce/1": "former champion",
        "ecommerce-candidate/1": "former champion",
        NEWER: "champion",
        OTHER: "out of date",
        REFUSED: "rejected",
    }


def test_a_damaged_entry_is_named(store: str) -> None:
    with connected(store) as client:
        client.set_registered_model_tag("ecommerce", "mtrec.history.0001", "{")
    with pytest.raises(RunError, match=r"^tag mtrec.history.0001: not an entry of the history"):
        tracking.history("ecommerce")


# ------------------------------------------------------------------------------------------- processes

LEASE_OF_THE_KILLED = 3.0
SCRIPT = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from mtrec import tracking
from mtrec.tracking import deciding
point, candidate = sys.argv[1:3]
deciding.LEASE_SECONDS = float(sys.argv[3])
if point == "late":
    locked = deciding.locked
    def late(uri):
        Path("stopped").touch()
        os.kill(os.getpid(), signal.SIGSTOP)
        return locked(uri)
    deciding.locked = late
elif point != "none":
    before, name, *history = point.split()
    real = getattr(MlflowClient, name)
    def die(*arguments, **named):
        if history and not arguments[3].startswith("mtrec.history."):
            return real(*arguments, **named)
        if before == "after":
            real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(MlflowClient, name, die)
Path(f"ready-{os.getpid()}").touch()
while point == "none" and not Path("go").exists():
    pass
print(tracking.approve(candidate, who="ada", why=point).champion)
"""


def start(point: str, candidate: str = NEWER) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, point, candidate, str(LEASE_OF_THE_KILLED)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("point", "happened"),
    [
        ("before copy_model_version", False),
        ("after copy_model_version", False),
        ("before set_registered_model_alias", False),
        ("after set_registered_model_alias", True),
        ("before set_model_version_tag of the history", True),
        ("before delete_registered_model_tag", True),
    ],
)
def test_a_killed_approval_is_taken_up_again(store: str, point: str, happened: bool) -> None:
    killed = start(point)
    assert killed.wait(timeout=120) == -signal.SIGKILL, killed.communicate()
    assert champion(store) == ("2" if happened else "1")
    assert len(tracking.history("ecommerce")) == (2 if happened else 1), "only what happened is told"
    done = tracking.approve(NEWER, who="ben", why="again")
    assert (done.changed, done.champion) == (not happened, "ecommerce/2")
    assert (champion(store), versions(store)) == ("2", ["1", "2"])
    assert [change.who for change in tracking.history("ecommerce")] == ["mtrec", "ada" if happened else "ben"]
    with connected(store) as client:
        tags = client.get_registered_model("ecommerce").tags
        both = [client.get_model_version("ecommerce", version).tags for version in ("1", "2")]
    assert "mtrec.pending" not in tags
    assert [own["mtrec.history.0002"] for own in both] == [tags["mtrec.history.0002"]] * 2


def test_of_two_approvals_at_once_one_wins(store: str) -> None:
    both = [start("none", candidate) for candidate in (NEWER, OTHER)]
    while len(list(Path().glob("ready-*"))) < 2:
        assert all(process.poll() is None for process in both), both[0].communicate()
        time.sleep(0.01)
    Path("go").touch()
    said = [process.communicate(timeout=200) for process in both]
    (winner,) = (i for i in (0, 1) if both[i].returncode == 0)
    assert said[winner][0] == "ecommerce/2\n"
    refused = said[1 - winner][1]
    assert "is under way already" in refused or "the champion is ecommerce/2 now" in refused
    assert versions(store) == ["1", "2"]
    assert [change.candidate for change in tracking.history("ecommerce")][1:] == [(NEWER, OTHER)[winner]]


def test_one_that_slept_through_its_lease_writes_nothing(store: str) -> None:
    slow = start("late", OTHER)
    while not Path("stopped").exists():
        assert slow.poll() is None, slow.communicate()
        time.sleep(0.01)
    time.sleep(LEASE_OF_THE_KILLED)
    tracking.approve(NEWER, who="ben")
    os.kill(slow.pid, signal.SIGCONT)
    _, error = slow.communicate(timeout=120)
    assert slow.returncode != 0
    assert "this lock was lost" in error or "this lock has expired" in error
    assert (champion(store), versions(store)) == ("2", ["1", "2"])
    assert [change.who for change in tracking.history("ecommerce")] == ["mtrec", "ben"]


def test_the_lease_lies_beside_the_store(store: str, tmp_path: Path) -> None:
    assert lease_of("shop", store).path == tmp_path / ".mtrec" / "locks" / "shop.promotion.json"
    assert lease_of("shop", "http://mlflow").path == Path(".mtrec/locks/shop.promotion.json")
    assert lease_of("shop", store).seconds == LEASE_SECONDS
