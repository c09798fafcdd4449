import io

from rich.console import Console

from pipelines.display import showing
from pipelines.steps import Steps


def _watch(*, terminal: bool) -> str:
    output = io.StringIO()
    steps = Steps(["ingest_data", "fine_tune_model", "register_model"])
    with showing(steps, Console(file=output, force_terminal=terminal, width=100, color_system=None)):
        steps.read("Task ingest-data cache hit")
        steps.read("Executing task 'fine-tune-model'")
        steps.read('mtrec-progress {"stage": "fine_tune", "fraction": 0.5, "message": "epoch 1 of 2"}')
        steps.read("Task 'fine-tune-model' finished with status SUCCESS")
        steps.close(succeeded=True)
    return output.getvalue()


def test_a_terminal_gets_a_live_table_whose_last_state_stays() -> None:
    last = _watch(terminal=True).rsplit("\x1b[2K", 1)[-1].splitlines()
    assert [line.split()[:2] for line in last if line.strip()][:3] == [
        ["✓", "ingest_data"],
        ["✓", "fine_tune_model"],
        ["–", "register_model"],
    ]
    assert "unchanged, taken from the cache" in last[0]
    assert "the gate said no" in last[2]


def test_a_pipe_gets_plain_lines_without_control_characters() -> None:
    text = _watch(terminal=False)
    assert "\x1b" not in text
    assert [line.split()[:2] for line in text.splitlines()] == [
        ["ingest_data", "done"],
        ["fine_tune_model", "started"],
        ["fine_tune_model", "done"],
        ["register_model", "skipped"],
    ]
