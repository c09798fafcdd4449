"""Looks come when they are due, one at a time, also after restarts and failures."""

import json
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mtrec.errors import InputError, RunError
from pipelines.kfp_session import Interrupted
from pipelines.watching import _due, interval, watch

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1d", 86400)])
def test_intervals(text: str, seconds: int) -> None:
    assert interval(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "6", "h", "0h", "-1h", "1.5h", "6 hours"])
def test_no_intervals(text: str) -> None:
    with pytest.raises(InputError, match="write a number and s, m, h or d"):
        interval(text)


def test_looks_come_one_after_the_other_whatever_their_exit_codes(tmp_path: Path) -> None:
    begun: list[float] = []
    codes = iter([1, 0, 3])

    def look(asked: threading.Event) -> int:
        begun.append(time.monotonic())
        time.sleep(0.4 if len(begun) == 1 else 0.0)  # longer than the interval
        return next(codes)

    assert watch(look, 0.2 * SECOND, tmp_path / "watch.json", lambda line: None, times=3) == 3
    assert begun[1] - begun[0] >= 0.4
    assert begun[2] - begun[1] >= 0.15
    assert json.loads((tmp_path / "watch.json").read_text())["code"] == 3


@pytest.mark.parametrize(("hours", "code", "waits"), [(1, 0, True), (25, 0, False), (1, None, False)])
def test_after_a_restart_the_next_look_comes_when_it_is_due(
    tmp_path: Path, hours: float, code: int | None, waits: bool
) -> None:
    """One that was cut off, which has no exit code, is made again at once."""
    begun = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    (tmp_path / "watch.json").write_text(json.dumps({"begun": begun, "code": code}))
    told: list[str] = []

    class Waits(Exception):
        pass

    def tell(line: str) -> None:
        told.append(line)
        raise Waits

    looks: list[bool] = []

    def look(asked: threading.Event) -> int:
        looks.append(True)
        return 0

    if waits:
        with pytest.raises(Waits):
            watch(look, timedelta(days=1), tmp_path / "watch.json", tell, times=1)
        assert told[0].startswith("next look at ")
        assert looks == []
    else:
        watch(look, timedelta(days=1), tmp_path / "watch.json", tell, times=1)
        assert looks == [True]


@pytest.mark.parametrize(("code", "hours"), [(0, 6), (None, 0)])
def test_a_clock_that_was_ahead_delays_by_one_interval_at_most(
    tmp_path: Path, code: int | None, hours: float
) -> None:
    begun = datetime.now(UTC) + timedelta(days=400)
    (tmp_path / "watch.json").write_text(json.dumps({"begun": begun.isoformat(), "code": code}))
    due = _due(tmp_path / "watch.json", timedelta(hours=6))
    assert abs(due - datetime.now(UTC) - timedelta(hours=hours)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "state",
    [
        "{",
        "[]",
        '{"begun": "2999-01-01T00:00:00", "code": 0}',
        '{"begun": "soon", "code": 0}',
        '{"begun": "9999-12-31T23:59:59.5+00:00", "code": 0}',
    ],
)
def test_a_damaged_state_is_no_reason_not_to_look(tmp_path: Path, state: str) -> None:
    (tmp_path / "watch.json").write_text(state)
    looks: list[int] = []
    watch(lambda asked: looks.append(1) or 0, SECOND, tmp_path / "watch.json", lambda line: None, times=1)
    assert looks == [1]


def test_two_do_not_watch_at_once(tmp_path: Path) -> None:
    def look(asked: threading.Event) -> int:
        with pytest.raises(RunError, match="another mtrec watch is going on"):
            watch(lambda asked: 0, SECOND, tmp_path / "watch.json", lambda line: None, times=1)
        return 0

    watch(look, SECOND, tmp_path / "watch.json", lambda line: None, times=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_asked_and_takes_its_look_with_it(tmp_path: Path, number: signal.Signals) -> None:
    """The look is a process that sleeps; its end shows that it was stopped, too."""
    code = (
        "import signal, subprocess, sys, time; from datetime import timedelta; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pipelines import watching\n"
        "popen = subprocess.Popen\n"
        "def sleeping(command, **more):\n"
        "    process = popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "    print(process.pid, flush=True); return process\n"
        "watching.subprocess.Popen = sleeping\n"
        "try:\n"
        "    watching.watch(watching.monitor_in_a_process([]), timedelta(hours=1), Path(sys.argv[1]), print)\n"
        "except watching.Interrupted as error:\n"
        "    print(error, flush=True); sys.exit(130)"
    )
    state = tmp_path / "watch.json"
    watching = subprocess.Popen([sys.executable, "-c", code, str(state)], stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    look = int(watching.stdout.readline())
    watching.send_signal(number)
    assert watching.stdout.readline() == "stopped; the same command goes on watching\n"
    assert watching.wait(20) == 130
    assert not Path(f"/proc/{look}").exists()
    assert json.loads(state.read_text())["code"] is None, "it is made again"


def test_a_wait_ends_when_asked(tmp_path: Path) -> None:
    def tell(line: str) -> None:
        signal.raise_signal(signal.SIGTERM)

    (tmp_path / "watch.json").write_text(json.dumps({"begun": datetime.now(UTC).isoformat(), "code": 0}))
    with pytest.raises(Interrupted):
        watch(lambda asked: 0, timedelta(hours=1), tmp_path / "watch.json", tell)
