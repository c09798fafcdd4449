"""The stages of sharded preprocessing: what a shell or a component hands them, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest

from mtrec.config import Scenario
from mtrec.errors import ConfigError, DataError
from mtrec.progress import Progress, listening
from mtrec.stages.execution import run_stage


def stage(name: str, scenario: Scenario, inputs: dict[str, Any], **outputs: Path) -> dict[str, Any]:
    return run_stage(name, inputs=inputs, outputs=outputs, scenario=scenario)


def test_the_three_stages_make_what_preprocess_makes(shop_run: Path, shop: Scenario, tmp_path: Path) -> None:
    heard: list[Progress] = []
    shards, items, parts = (tmp_path / name for name in ("shards", "items", "parts"))
    with listening(heard.append):
        given = {"tables": str(shop_run / "tables"), "num_shards": "2"}
        assert stage("shard", shop, given, shards=shards, items=items)["num_shards"] == 2
        for number in ("0", "1"):
            told = stage("preprocess_shard", shop, {"shards": shards, "shard": number}, part=parts / number)
            assert told == {
                "shard": int(number),
                "num_shards": 2,
                "duplicate_interactions": 0,
                "added_users": 0,
            }
        as_folder = stage("join_shards", shop, {"parts": str(parts), "items": items}, dataset=tmp_path / "one")
    both = [str(parts / "0"), str(parts / "1")]
    as_list = stage("join_shards", shop, {"parts": both, "items": items}, dataset=tmp_path / "two")
    assert as_folder == as_list
    for path in (shop_run / "dataset").iterdir():
        for made in ("one", "two"):
            assert (tmp_path / made / path.name).read_bytes() == path.read_bytes(), path.name
    assert [said.stage for said in heard] == ["shard", "preprocess_shard", "preprocess_shard", "join_shards"]


@pytest.mark.parametrize(
    ("name", "inputs", "error", "message"),
    [
        ("shard", {"num_shards": "0"}, ConfigError, "num_shards is '0': write a whole number from 1 to 1000"),
        ("shard", {"num_shards": "1001"}, ConfigError, "num_shards is '1001': write a whole number"),
        ("shard", {"num_shards": "some"}, ConfigError, "num_shards is 'some': write a whole number"),
        ("shard", {"num_shards": "2"}, DataError, r"interactions\.parquet: no such file"),
        ("preprocess_shard", {"shard": "first"}, ConfigError, "shard is 'first': write its number"),
        ("preprocess_shard", {"shard": "0"}, DataError, r"interactions\.parquet: no such file"),
        ("join_shards", {}, DataError, "nowhere: no such folder"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    shop: Scenario, tmp_path: Path, name: str, inputs: dict[str, str], error: type[Exception], message: str
) -> None:
    paths = {
        "shard": (["tables"], ["shards", "items"]),
        "preprocess_shard": (["shards"], ["part"]),
        "join_shards": (["parts", "items"], ["dataset"]),
    }
    given = {key: str(tmp_path / "nowhere") for key in paths[name][0]}
    with pytest.raises(error, match=message) as caught:
        stage(name, shop, given | inputs, **{key: tmp_path / key for key in paths[name][1]})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
