"""The benchmark of ensembles: what it measures, and the sign of what it tells."""

from pathlib import Path

import pytest

from benchmarks.ensembles import measure, table
from tests.unit.tiny_shop import DIALS, TASKS, shop_scenario, shop_tables


def test_members_and_both_ensembles_are_measured_on_the_same_tasks(tiny_bert: Path) -> None:
    tasks = {name: TASKS[name] for name in ("rating", "category", "next_item")}
    found = measure(shop_tables(DIALS)[0], shop_scenario(tiny_bert, tasks=tasks), 2, 0)
    keys = {"rating.rmse", "category.accuracy", "next_item.ndcg@10"}
    assert [set(values) for values in (*found["alone"], found["equal"], found["fitted"])] == [keys] * 4
    assert found["alone"][0] != found["alone"][1]
    assert found["equal"] not in found["alone"]
    assert all(sum(shares) == pytest.approx(1) for shares in found["shares"].values())
    # A mean of two numbers is never further off than the two are on average (Jensen's inequality).
    assert found["equal"]["rating.rmse"] <= sum(member["rating.rmse"] for member in found["alone"]) / 2


def test_the_table_knows_which_way_is_better() -> None:
    alone = [{"rating.rmse": 1.0, "like.auc": 0.5}, {"rating.rmse": 0.8, "like.auc": 0.7}]
    joined = {"rating.rmse": 0.81, "like.auc": 0.66}
    lines = table([{"alone": alone, "equal": joined, "fitted": joined}] * 2).splitlines()
    assert lines[2] == "| rating.rmse | 0.9000 | 0.8000 | 0.8100 | 0.8100 | -10.0 ± 0.0 % |"
    assert lines[3] == "| like.auc | 0.6000 | 0.7000 | 0.6600 | 0.6600 | +10.0 ± 0.0 % |"
