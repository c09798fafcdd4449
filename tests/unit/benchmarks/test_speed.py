"""The speed benchmark: every variant does the same work, and the tables say what was measured."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import speed
from mtrec.config import Scenario
from mtrec.models import encoder as module


@pytest.fixture(scope="module")
def work(small: Scenario) -> speed.Work:
    return speed.Work(small, None, 1)


def test_every_variant_has_its_savings_and_no_others(work: speed.Work) -> None:
    before = module.distinct, module.length_groups, work.encoder.frozen
    assert work.encoder.frozen is not None
    tokens = work.catalogue.tokens[:6] * 2
    work.encoder.eval()
    found = {}
    for variant in (*speed.VARIANTS, "pieces"):
        with work.switched(variant):
            found[variant] = work.encoder(tokens).detach()
            assert (work.encoder.frozen is not None) == (variant in ("cache", "all", "pieces"))
            assert (len(module.distinct(tokens)[0]) == 6) == (variant in ("dedup", "all", "pieces"))
            assert (len(module.length_groups([1, 900], 1)) == 2) == (variant in ("length", "all", "pieces"))
    for vectors in found.values():
        torch.testing.assert_close(vectors, found["none"], rtol=0, atol=0.02)
    work.encoder.frozen = before[2]
    assert before[:2] == (module.distinct, module.length_groups)


def test_the_results_and_their_tables(work: speed.Work) -> None:
    about = {"data": "shop", "items": 40, "texts_per_step": 32, "precision": "float32", "threads": 1, "torch": "2"}
    timed = list(speed.measure(work, blocks=2, refreshes=1, variants=["all", "cache"]))
    assert [(r["kind"], r["variant"]) for r in timed] == [
        (kind, variant) for kind in speed.KINDS for variant in ("none", "all", "cache")
    ]
    for result in timed:
        assert result["seconds"] > 0
        assert result["blocks"] == (1 if result["kind"] == "refresh" else 2)
        assert result["variant"] != "none" or result["speedup"] == result["cpu_speedup"] == 1
    apart = list(speed.distances(work.encoder, work.catalogue.tokens))
    assert [r["variant"] for r in apart] == ["fp32, kept states", "bf16", "bf16, kept states"]
    assert apart[0]["largest"] < 1e-5 < apart[1]["largest"]
    text = speed.table([about | result for result in (*timed, *apart)])
    assert "**shop**: 40 texts, 32 per step, float32, 1 thread, torch 2" in text
    assert text.count("\n| step |") == 3
    assert f"| bf16 | {apart[1]['largest']} |" in text


def test_the_command_writes_lines_and_refuses_absent_data(
    work: speed.Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "Work", lambda *_: work)
    before = torch.get_num_threads()
    out = tmp_path / "runs" / "speed.jsonl"
    amounts = ["--blocks", "1", "--refreshes", "0", "--variants", "all", "--out", str(out)]
    speed.main(["--data", "ecommerce", *amounts])
    torch.set_num_threads(before)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"step", "encoding", "distance"}
    assert {line["data"] for line in lines} == {"ecommerce"}
    assert "| step | all |" in capsys.readouterr().out
    monkeypatch.setenv("MTREC_DATA", str(tmp_path))
    with pytest.raises(SystemExit):
        speed.main(["--data", "movielens-latest-small"])
    assert "no such folder: " in capsys.readouterr().err
