"""What the benchmark scripts share: folders and result lines, told in one line when something is wrong."""

import argparse
from pathlib import Path

import pytest

from benchmarks import common


def test_public_data_is_looked_for_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTREC_DATA", str(tmp_path))
    (tmp_path / "films").mkdir()
    parser = argparse.ArgumentParser()
    assert common.folders_of(parser, {"shop": None, "a": "films"}) == {"shop": None, "a": tmp_path / "films"}
    with pytest.raises(SystemExit):
        common.folders_of(parser, {"a": "films", "b": "tweets"})
    assert f"error: no such folder: {tmp_path / 'tweets'}; set MTREC_DATA\n" in capsys.readouterr().err
    monkeypatch.delenv("MTREC_DATA")
    assert common.folder_of("films") == common.ROOT.parent / "shared" / "data" / "films"


def test_results_are_printed_added_to_a_file_and_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs" / "found.jsonl"
    for seed in (0, 1):
        results = common.Results(file)
        results.add({"seed": seed, "rmse": 0.5})
        assert capsys.readouterr().out == f'{{"seed": {seed}, "rmse": 0.5}}\n'
    assert list(common.read_results([file], ["seed"])) == [{"seed": seed, "rmse": 0.5} for seed in (0, 1)]
    parser = argparse.ArgumentParser()
    common.print_tables(parser, [file], lambda rows: f"{len(rows)} rows", ["seed"])
    assert capsys.readouterr().out == "2 rows\n"
    for keys, path, said in (
        (["mae"], file, f"{file}:1: not a result line"),
        ([], tmp_path / "no", "No such file"),
    ):
        with pytest.raises(SystemExit):
            common.print_tables(parser, [path], lambda rows: str(rows), keys)
        assert said in capsys.readouterr().err
