from collections.abc import Iterator
from pathlib import Path

import pytest

from mtrec.config import load_scenario
from mtrec.errors import InputError
from pipelines.cli import main
from pipelines.kfp_server import Access, Away, Missing, Server, connect
from pipelines.kfp_session import Interrupted
from pipelines.scheduling import Scheduled, create, find, shown, six_fields
from pipelines.submitting import Order
from tests.kfp_stand_in import Request, StandIn
from tests.pipelines.test_kfp_stand_in import CRONS


@pytest.fixture(params=["2.14", "2.17"])
def stand_in(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with StandIn(request.param).running() as server:
        yield server


@pytest.fixture
def server(stand_in: StandIn) -> Iterator[Server]:
    with connect(Access(host=stand_in.url)) as server:
        yield server


def monitoring(**changed: object) -> Order:
    given = {"kind": "monitoring", "scenario": load_scenario("ecommerce"), "parameters": {"drop": "/mtrec/drops"}}
    return Order(**(given | changed))  # type: ignore[arg-type]


def _makes(request: Request) -> bool:
    return (request.method, request.path[-13:]) == ("POST", "recurringruns")


def test_a_schedule_runs_one_at_a_time_and_makes_up_for_nothing(stand_in: StandIn, server: Server) -> None:
    made = create(monitoring(service_account="mtrec-monitor"), "30 3 * * *", server)
    schedule = stand_in.schedules[made.id]
    assert schedule["trigger"] == {"cron_schedule": {"cron": "0 30 3 * * *"}}
    assert schedule["max_concurrency"] == "1"
    assert schedule["no_catchup"] is True
    assert schedule["mode"] == "ENABLE"
    assert schedule["service_account"] == "mtrec-monitor"
    assert schedule["display_name"] == "mtrec-monitoring-ecommerce"
    assert set(schedule["runtime_config"]["parameters"]) == {
        "scenario",
        "drop",
    }  # no pipeline_run: each job has its own


def test_there_is_one_per_pipeline_and_scenario(stand_in: StandIn, server: Server) -> None:
    first = create(monitoring(), "0 3 * * *", server)
    with pytest.raises(
        InputError, match=r"mtrec-monitoring-ecommerce is there already \(0 3 \* \* \*\): give --replace"
    ):
        create(monitoring(), "0 4 * * *", server)
    again = create(monitoring(), "0 4 * * *", server, replace=True)
    assert list(stand_in.schedules) == [again.id] != [first.id]
    assert again.replaced == 1
    create(monitoring(kind="training", parameters={"data": "dvc:abc"}), "0 5 * * 0", server)
    assert len(stand_in.schedules) == 2


def test_a_refused_replacement_leaves_the_old_one(stand_in: StandIn, server: Server) -> None:
    first = create(monitoring(), "0 3 * * *", server)
    stand_in.trouble = lambda request: 400 if _makes(request) else None
    with pytest.raises(InputError, match=r"refuses the request \(400\)"):
        create(monitoring(), "0 4 * * *", server, replace=True)
    assert list(stand_in.schedules) == [first.id]


@pytest.mark.parametrize("replace", [False, True])
def test_of_two_made_at_the_same_moment_one_is_kept(stand_in: StandIn, server: Server, replace: bool) -> None:
    """The other one comes between the look at what is there and the making."""
    if replace:
        create(monitoring(), "0 2 * * *", server)
    others: list[Scheduled] = []

    def other(request: Request) -> None:
        if _makes(request):
            stand_in.trouble = lambda request: None
            others.append(create(monitoring(), "0 3 * * *", server, replace=replace))

    stand_in.trouble = other
    with pytest.raises(InputError, match="somebody else made it at the same moment, and this one was taken back"):
        create(monitoring(), "0 4 * * *", server, replace=replace)
    assert list(stand_in.schedules) == [one.id for one in others]


def test_a_server_that_goes_away_in_between_is_told_with_what_was_made(stand_in: StandIn, server: Server) -> None:
    create(monitoring(), "0 3 * * *", server)

    def away(request: Request) -> int | None:
        if _makes(request):
            stand_in.trouble = lambda request: 503
        return None

    stand_in.trouble = away
    with pytest.raises(Away) as error:
        create(monitoring(), "0 4 * * *", server, replace=True)
    new = next(made for made, schedule in stand_in.schedules.items() if "0 4" in str(schedule["trigger"]))
    assert f"schedule mtrec-monitoring-ecommerce is made ({new}), and so may be the one of before" in str(
        error.value
    )
    assert "delete by its id what is too much" in str(error.value)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_a_start_without_an_answer_says_what_may_be_there(
    stand_in: StandIn, server: Server, monkeypatch: pytest.MonkeyPatch, replace: bool, lost: bool
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if replace:
        create(monitoring(), "0 3 * * *", server)
    if lost:
        stand_in.trouble = lambda request: "lose" if _makes(request) else None
    else:
        monkeypatch.setattr(server._client, "create_recurring_run", stopped)
    kind = Away if lost else Interrupted
    beside = " beside the one of before" if replace else ""
    look = "look with 'mtrec schedule list' whether mtrec-monitoring-ecommerce is made after all"
    with pytest.raises(kind, match=f"{look}{beside}$"):
        create(monitoring(), "0 4 * * *", server, replace=replace)


def test_ctrl_c_after_it_is_made_says_so(
    stand_in: StandIn, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(schedule: str) -> None:
        raise KeyboardInterrupt

    create(monitoring(), "0 3 * * *", server)
    monkeypatch.setattr(server, "delete", stopped)
    with pytest.raises(Interrupted, match=r"is made \(schedule-\d+\), and so may be the one of before; then"):
        create(monitoring(), "0 4 * * *", server, replace=True)
    assert len(stand_in.schedules) == 2


def test_what_takes_the_place_of_a_paused_one_is_paused(stand_in: StandIn, server: Server) -> None:
    first = create(monitoring(), "0 3 * * *", server)
    assert not first.paused
    assert not create(monitoring(), "0 4 * * *", server, replace=True).paused
    server.pause(find(server, first.name).id)
    again = create(monitoring(), "0 5 * * *", server, replace=True)
    assert again.paused
    assert [one["mode"] for one in stand_in.schedules.values()] == ["DISABLE"]
    server.resume(again.id)
    assert not create(monitoring(), "0 6 * * *", server, replace=True).paused


def test_it_is_paused_resumed_and_deleted(stand_in: StandIn, server: Server) -> None:
    made = create(monitoring(), "0 3 * * *", server)
    assert find(server, made.name).enabled
    server.pause(made.id)
    assert not find(server, made.id).enabled
    server.resume(made.id)
    assert find(server, made.id).enabled
    server.delete(made.id)
    with pytest.raises(Missing, match=r"schedule mtrec-.*: no such schedule on .* \(known: none\)"):
        find(server, made.name)


@pytest.mark.parametrize("cron", ["", "* * * *", "@daily", "1 2 3 4 5 6 7"])
def test_what_is_no_cron_expression(cron: str) -> None:
    with pytest.raises(InputError, match="five fields are expected"):
        six_fields(cron)


@pytest.mark.parametrize("given", ["0 3 * * *", "30 0 3 * * *", "0,30 0 3 * * *"])
def test_an_expression_is_shown_as_it_was_given(given: str) -> None:
    assert shown(six_fields(given)) == given


@pytest.mark.parametrize("cron", CRONS)
def test_fields_are_looked_at_as_the_server_does(cron: str) -> None:
    if CRONS[cron]:
        assert six_fields(cron) == cron
    else:
        with pytest.raises(InputError, match="is no "):
            six_fields(cron)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 25 * * *", "--cron '0 25 * * *': '25' is no hour (0 to 23, with * , - and /)"),
        ("0 3 * * 7", "--cron '0 3 * * 7': '7' is no weekday (0 to 6 or SUN to SAT, with * , - and /)"),
    ],
)
def test_a_field_out_of_its_range_is_one_line(cron: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        six_fields(cron)
    assert str(error.value) == message


def test_users_have_their_own(tmp_path: Path) -> None:
    with StandIn(multi_user=True).running() as stand_in:
        with connect(Access(host=stand_in.url, namespace="team")) as server:
            create(monitoring(), "0 3 * * *", server)
            assert len(server.schedules()) == 1
        with connect(Access(host=stand_in.url, namespace="others")) as server:
            assert server.schedules() == []


def test_the_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["schedule", *arguments])
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out

    name = "mtrec-monitoring-ecommerce"
    with StandIn().running() as stand_in:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", stand_in.url)
        assert "No schedule is there yet" in told("list")
        out = told("create", "monitoring", "--data", "/mtrec/drops", "--cron", "0 3 * * *")
        (made,) = stand_in.schedules
        assert out == f"schedule {name} created: 0 3 * * * ({made})\n{stand_in.url}/#/recurringrun/details/{made}\n"
        assert told("pause", name) == f"schedule {name} paused\n"
        line = told("list").splitlines()[1]
        assert " 0 3 * * *  paused " in line
        assert line.endswith(f"  {made}  /mtrec/drops")
        again = told("create", "monitoring", "--data", "/mtrec/drops", "--cron", "0 4 * * *", "--replace")
        (made,) = stand_in.schedules
        assert again.splitlines()[0] == f"schedule {name} replaced: 0 4 * * * ({made}); it stays paused"
        assert told("resume", made) == f"schedule {name} goes on\n"
        assert told("delete", name) == f"schedule {name} deleted\n"
        assert stand_in.schedules == {}
