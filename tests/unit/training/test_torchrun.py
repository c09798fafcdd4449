"""Agents on this machine. What they run here is a few lines; tests/unit/stages/test_launching.py trains."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mtrec.errors import RunError
from mtrec.stages import retrying
from mtrec.training import torchrun
from mtrec.training.nodes import End, Job, Place, follow

CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
"""Leaves a process of its own behind, as torchrun does where it is killed."""


@dataclass(frozen=True, kw_only=True)
class Script(Job):
    """Runs a script in place of the training."""

    code: str

    @property
    def command(self) -> list[str]:
        return ["python", "-uc", self.code]


def script(code: str, num_nodes: int = 2, seconds: int = 60) -> Script:
    place = Place(num_nodes=num_nodes, runtime="local", work=Path("work"), deadline_seconds=seconds)
    return Script(name="n", label="l", place=place, arguments=(), code=code, env={"MTREC_TOLD": "this"})


def run(job: Job) -> tuple[End, list[tuple[int, str]]]:
    lines: list[tuple[int, str]] = []
    end = follow(job, lambda node, line: lines.append((node, line)))
    return end, sorted(lines)


def test_every_node_is_told_its_place() -> None:
    names = ["PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "MTREC_TOLD"]
    code = f"import os; print(*map(os.environ.get, {names}))"
    end, lines = run(script(code))
    assert end == End(complete=True)
    assert lines == [(0, "2 0 127.0.0.1 this"), (1, "2 1 127.0.0.1 this")]


def test_what_they_say_does_not_keep_the_step_from_being_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys; from mtrec.stages import retrying; print(retrying.earlier()); retrying.note('one was lost')"
    monkeypatch.setenv("MTREC_FAILURES", str(tmp_path))
    for number in range(2):
        monkeypatch.setenv("MTREC_NODE", f"w.root.fine-tune-model.executor({number})")
        assert retrying.earlier() is None, number
        assert run(script(f"{code}; sys.exit(1)"))[1] == [(0, "None"), (1, "None")]
    monkeypatch.setenv("MTREC_NODE", "w.root.fine-tune-model.executor(0)")
    retrying.note("the input is wrong")
    run(script(code))
    monkeypatch.setenv("MTREC_NODE", "w.root.fine-tune-model.executor(1)")
    assert retrying.earlier() == "the input is wrong", "the step's own note stays"


def test_they_meet_at_one_port() -> None:
    _, lines = run(script("import os; print(os.environ['PET_MASTER_PORT'])"))
    assert len({line for _, line in lines}) == 1


def test_both_streams_are_heard_whatever_bytes_they_hold() -> None:
    code = r"import sys; sys.stdout.buffer.write(b'a\xff\n'); sys.stderr.write('b'); sys.exit()"
    assert run(script(code, num_nodes=1))[1] == [(0, "a\ufffd"), (0, "b")]


def test_one_that_fails_is_the_end_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun, "_GRACE_SECONDS", 1.0)
    code = "import os, sys, time\nif os.environ['PET_NODE_RANK'] == '1': sys.exit(3)\ntime.sleep(99)"
    began = time.monotonic()
    end, _ = run(script(code))
    assert time.monotonic() - began < 20
    assert not end.complete
    assert not end.lost
    assert "node 1 ended with exit code 3" in end.reason


def test_a_process_that_was_killed_is_no_failure_of_the_training(tmp_path: Path) -> None:
    (tmp_path / "kill.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    @dataclass(frozen=True, kw_only=True)
    class Killed(Job):
        @property
        def command(self) -> list[str]:
            return ["torchrun", "--nproc-per-node", "1", str(tmp_path / "kill.py")]

    given = script("", num_nodes=1)
    end, _ = run(Killed(name="n", label="l", place=given.place, arguments=()))
    assert end == End(
        complete=False, reason="a process of node 0 was killed, most often for want of memory", lost=True
    )


def test_they_are_ended_when_their_time_is_over() -> None:
    began = time.monotonic()
    end, _ = run(script("import time; time.sleep(99)", seconds=1))
    assert end == End(complete=False, reason="not done after 1 s", lost=True)
    assert time.monotonic() - began < 20


def test_without_torchrun_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    place = Place(num_nodes=2, runtime="local", work=Path("work"))
    with pytest.raises(RunError, match="torchrun is not installed"):
        follow(Job(name="n", label="l", place=place, arguments=()), print)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_them_and_what_they_started(number: signal.Signals) -> None:
    code = (
        "from tests.unit.training.test_torchrun import CHILD, script\n"
        "from mtrec.training.nodes import follow, stoppable\n"
        "job = script(CHILD + 'import os, time; print(os.getpid()); time.sleep(99)')\n"
        "with stoppable():\n    follow(job, lambda node, line: print(line, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    agents = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
    family = [*agents, *(child for agent in agents for child in agent.children())]
    assert len(family) == 4
    os.kill(process.pid, number)
    assert process.wait(timeout=30) == (143 if number == signal.SIGTERM else -signal.SIGINT)
    assert psutil.wait_procs(family, timeout=5)[1] == []
