import contextlib

import pytest

from mtrec import progress
from mtrec.progress import Progress, line_writer, listening, read_line, report


def test_a_report_without_a_listener_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    report("fine_tune", 0.5, "epoch 1")
    assert capfd.readouterr() == ("", "")


def test_a_listener_gets_each_report_and_clipped_fractions() -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        report("fine_tune", 1.5, "over")
        report("ingest", None, "reading")
    report("fine_tune", 0.1, "after the block")
    assert [(p.stage, p.fraction, p.message) for p in heard] == [
        ("fine_tune", 1.0, "over"),
        ("ingest", None, "reading"),
    ]


def test_the_innermost_listener_wins_and_is_removed_on_an_error() -> None:
    outer: list[Progress] = []
    inner: list[Progress] = []
    with listening(outer.append):
        with contextlib.suppress(KeyError), listening(inner.append):
            report("a", 0.1)
            raise KeyError
        report("b", 0.2)
    assert [p.stage for p in inner] == ["a"]
    assert [p.stage for p in outer] == ["b"]


def test_a_written_line_reads_back_equal(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(line_writer()):
        report("fine_tune", 0.25, 'epoch 1, loss "1.9" → é\nsecond line')
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    expected = Progress(stage="fine_tune", fraction=0.25, message='epoch 1, loss "1.9" → é\nsecond line')
    assert read_line(line) == expected
    assert read_line("Calculating:  50%|████" + line) == expected


def test_lines_are_throttled_but_the_last_one_passes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_MIN_SECONDS", 60.0)
    with listening(line_writer()):
        for step in range(101):
            report("fine_tune", step / 100)
    fractions = [read_line(line).fraction for line in capsys.readouterr().err.splitlines()]  # type: ignore[union-attr]
    assert fractions == [0.0, 1.0]


@pytest.mark.parametrize(
    "line", ["", "epoch 1", "mtrec-progress", "mtrec-progress {", 'mtrec-progress {"stage": "a"}']
)
def test_other_lines_hold_no_progress(line: str) -> None:
    assert read_line(line) is None
