"""One declared task of every kind, as the tests of metrics and comparisons need them."""

from typing import Any

from mtrec.config import Task, parse_scenario


def task(**declared: Any) -> Task:
    return parse_scenario({"name": "test", "tasks": {"it": declared}}).tasks["it"]


KINDS = {
    "regression": task(type="regression", on="pair", label="interactions.rating"),
    "binary": task(type="binary", on="item", label="items.flag"),
    "classification": task(type="classification", on="item", label="items.category"),
    "multilabel": task(type="multilabel", on="item", label="items.tags"),
    "profile": task(type="profile", on="user", label="items.tags"),
    "next_item": task(type="next_item"),
}
ROW_KINDS = [kind for kind in KINDS if kind != "next_item"]
"""Kinds whose examples are rows with a target."""
