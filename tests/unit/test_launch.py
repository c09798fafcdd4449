"""What is read from the environment of a launcher."""

import pytest

from mtrec.errors import ConfigError
from mtrec.launch import Launch, launched

TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def given(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Launch:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return launched()


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, {}) == Launch(rank=0, local_rank=0, size=1)
    assert given(monkeypatch, {"WORLD_SIZE": "1", "RANK": "0"}) == Launch()
    assert Launch().leads


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, TORCHRUN) == Launch(rank=3, local_rank=1, size=4)
    assert not given(monkeypatch, TORCHRUN).leads


def test_several_processes_need_a_way_to_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"but RANK, MASTER_PORT is not set; start .* with torchrun"):
        given(monkeypatch, {"WORLD_SIZE": "4", "MASTER_ADDR": "localhost"})


def test_a_variable_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="RANK: 'first' is no number"):
        given(monkeypatch, TORCHRUN | {"RANK": "first"})
