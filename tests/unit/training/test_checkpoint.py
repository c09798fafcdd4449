"""Checkpoints: whole or not there, and damage is told."""

import json
from pathlib import Path

import pytest
import torch

from mtrec.errors import RunError
from mtrec.training.checkpoint import (
    FILES,
    has_checkpoint,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
)

TENSORS = {
    "model": {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)},
    "best": {"a.weight": torch.ones(1)},
}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    state = {"progress": {"step": 3, "best_score": float("-inf"), "lines": [{"loss": 0.1}]}, "key": "k"}
    save_checkpoint(tmp_path / "run", TENSORS, state)
    found = load_checkpoint(tmp_path / "run")
    assert found is not None
    tensors, again = found
    assert again == state
    assert {group: set(named) for group, named in tensors.items()} == {
        "model": {"a.weight", "b"},
        "best": {"a.weight"},
    }
    assert tensors["model"]["a.weight"].equal(TENSORS["model"]["a.weight"])
    assert tensors["model"]["b"].dtype == torch.int64


def test_a_later_checkpoint_takes_the_place_of_the_earlier(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path / "run", TENSORS, {"step": step})
    found = load_checkpoint(tmp_path / "run")
    assert found is not None
    assert found[1] == {"step": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_failed_save_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", TENSORS, {"step": 1})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "run", TENSORS, {"step": object()})
    found = load_checkpoint(tmp_path / "run")
    assert found is not None
    assert found[1] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_checkpoint_that_a_killed_save_had_moved_aside_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", TENSORS, {"step": 1})
    (tmp_path / "run").rename(tmp_path / ".run.0123456789abcdef.old")
    (tmp_path / ".run.fedcba9876543210.tmp").mkdir()
    found = load_checkpoint(tmp_path / "run")
    assert found is not None
    assert found[1] == {"step": 1}
    assert (tmp_path / "run").is_dir()


def test_whose_checkpoint_there_is(tmp_path: Path) -> None:
    assert not has_checkpoint(None, "")
    assert not has_checkpoint(tmp_path / "run", "k")
    save_checkpoint(tmp_path / "run", TENSORS, {"key": "k"})
    assert has_checkpoint(tmp_path / "run", "k")
    assert not has_checkpoint(tmp_path / "run", "other")
    (tmp_path / "run").rename(tmp_path / ".run.0123456789abcdef.old")
    assert has_checkpoint(tmp_path / "run", "k"), "a killed save had moved it aside"
    (tmp_path / "run" / "state.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        has_checkpoint(tmp_path / "run", "k")


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None
    (tmp_path / "empty").mkdir()
    assert load_checkpoint(tmp_path / "empty") is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_file_is_told_with_the_way_out(name: str, content: bytes | None, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    save_checkpoint(folder, TENSORS, {"step": 1})
    (folder / name).write_bytes((folder / name).read_bytes()[:20][:-3] if content is None else content)
    with pytest.raises(RunError, match=r"the checkpoint is damaged .*; delete the folder to start") as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_optimiser_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    def start() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        groups = [{"params": [layer.weight], "lr": 0.1}, {"params": [layer.bias], "lr": 0.01}]
        return layer, torch.optim.AdamW(groups, fused=True)

    def steps(layer: torch.nn.Linear, optimiser: torch.optim.AdamW, numbers: range) -> None:
        for n in numbers:
            optimiser.zero_grad()
            (layer(torch.full((1, 3), float(n))) ** 2).sum().backward()
            optimiser.step()

    whole, optimiser = start()
    steps(whole, optimiser, range(6))
    half, optimiser = start()
    steps(half, optimiser, range(3))
    save_checkpoint(tmp_path / "run", {"model": half.state_dict(), "optimiser": optimiser_tensors(optimiser)}, {})
    found = load_checkpoint(tmp_path / "run")
    assert found is not None
    resumed, optimiser = start()
    resumed.load_state_dict(found[0]["model"])
    restore_optimiser(optimiser, found[0]["optimiser"])
    steps(resumed, optimiser, range(3, 6))
    assert resumed.weight.equal(whole.weight)
    assert resumed.bias.equal(whole.bias)


def test_state_is_plain_json(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", TENSORS, {"step": 1})
    assert json.loads((tmp_path / "run" / FILES[1]).read_text()) == {"step": 1}
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(FILES)
