"""Scenarios: what is wrong is named in one line, what is right is kept as it is."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mtrec import config
from mtrec.config import (
    Parameter,
    Scenario,
    Split,
    Training,
    load_scenario,
    parse_scenario,
    read_yaml,
    scenario_path,
)
from mtrec.errors import ConfigError, InputError

GOOD: dict[str, Any] = {
    "name": "shop",
    "users": {"numeric": ["age"]},
    "items": {"text": "{title}", "categorical": ["brand"]},
    "events": ["view", "purchase"],
    "tasks": {
        "rating": {"type": "regression", "on": "pair", "label": "interactions.rating"},
        "category": {"type": "classification", "on": "item", "label": "items.category"},
        "buys": {"type": "binary", "on": "pair", "exposure": ["view"], "positive": ["purchase"]},
        "next_item": {"type": "next_item", "events": ["view"]},
    },
    "gate": {"floors": {"rating.rmse": 1.2}},
}


def changed(place: str, value: Any) -> dict[str, Any]:
    """The good scenario with one key set, or taken out when the value is Ellipsis."""
    raw = copy.deepcopy(GOOD)
    node: Any = raw
    *parents, last = place.split("/")
    for part in parents:
        node = node.setdefault(part, {})
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return raw


def pair(**task: Any) -> dict[str, Any]:
    return {"type": "binary", "on": "pair", **task}


WRONG: dict[str, tuple[str, Any, str]] = {
    "no name": ("name", ..., "name: Field required"),
    "a name with blanks": ("name", "My Shop", "name: String should match pattern"),
    "an unknown section": ("colour", 1, "colour: unknown key"),
    "an unknown key in a section": ("training/epoch", 3, "training.epoch: unknown key"),
    "no epoch at all": (
        "training/epochs",
        0,
        "training.epochs: Input should be greater than or equal to 1 (got 0)",
    ),
    "epochs in words": ("training/epochs", "five", "training.epochs: Input should be a valid integer"),
    "a negative rate": ("training/lr", -1, "training.lr: Input should be greater than 0 (got -1)"),
    "an unknown precision": (
        "training/precision",
        "fp8",
        "training.precision: Input should be 'auto', 'fp32' or 'bf16'",
    ),
    "heads that do not divide": ("model/user_heads", 3, "width 64 is not divisible by user_heads 3"),
    "dropout of everything": ("model/dropout", 1.0, "model.dropout: Input should be less than 1 (got 1.0)"),
    "an unknown sharing": ("model/sharing", "mmoe2", "model.sharing: Input should be 'shared_bottom'"),
    "a tiny text": ("model/encoder", {"max_length": 1}, "model.encoder.max_length: Input should be greater"),
    "an unknown split": (
        "split/by",
        "week",
        "split.by: Input should be 'time', 'random', 'leave_last_out' or 'cold_items'",
    ),
    "a test part of half": ("split/test", 0.5, "split.test: Input should be less than 0.5 (got 0.5)"),
    "no tasks": ("tasks", {}, "tasks: declare at least one"),
    "tasks forgotten": ("tasks", ..., "tasks: Field required"),
    "tasks as a list": ("tasks", [1], "tasks: a mapping of keys is expected"),
    "a task without a type": ("tasks/new", {"on": "item"}, "tasks.new: Unable to extract tag"),
    "a task of no known type": ("tasks/new", {"type": "magic"}, "tasks.new: Input tag 'magic' found"),
    "a task name with a dash": (
        "tasks/new-task",
        {"type": "next_item"},
        "tasks.new-task: a task name must be letters",
    ),
    "a label without its table": (
        "tasks/rating/label",
        "rating",
        "'rating' must be written table.column, e.g. items.category",
    ),
    "a label of the wrong table": (
        "tasks/category/label",
        "users.segment",
        "on: item takes a label from items, not 'users.segment'",
    ),
    "a label on a pair from items": (
        "tasks/rating/label",
        "items.price",
        "on: pair takes a label from interactions, not 'items.price'",
    ),
    "a label in its own text": (
        "items/text",
        "{title} {category}",
        "tasks.category: 'items.category' is in items.text too and would leak; remove one",
    ),
    "a label among the user's features": (
        "tasks/age",
        {"type": "regression", "on": "user", "label": "users.age"},
        "tasks.age: 'users.age' is a user feature too and would leak; remove one",
    ),
    "a negative weight": ("tasks/rating/weight", -1, "weight: Input should be greater than or equal to 0 (got -1)"),
    "no horizon": ("tasks/rating/horizon", 0, "horizon: Input should be greater than or equal to 1"),
    "a binary task of nothing": ("tasks/new", pair(), "give either 'label' or 'positive' events"),
    "a binary task of both": (
        "tasks/new",
        pair(label="interactions.rating", exposure=["view"], positive=["purchase"]),
        "give either 'label' or 'positive' events",
    ),
    "positives without exposure": (
        "tasks/new",
        pair(positive=["purchase"]),
        "'positive' events need 'exposure' events",
    ),
    "positives on items": (
        "tasks/new",
        pair(on="item", exposure=["view"], positive=["purchase"]),
        "'positive' events describe pairs: set on: pair",
    ),
    "a chain after a task that is none": (
        "tasks/new",
        pair(exposure=["view"], positive=["purchase"], after="rating"),
        "tasks.new.after: 'rating' is no binary task on pairs with 'positive' events",
    ),
    "a chain of other exposures": (
        "tasks/new",
        pair(exposure=["purchase"], positive=["view"], after="buys"),
        "tasks.new.after: 'buys' has other exposures; both tasks need the same",
    ),
    "a chain that bites its tail": (
        "tasks/buys",
        pair(exposure=["view"], positive=["purchase"], after="buys"),
        "tasks.buys.after: 'buys' would come after itself",
    ),
    "an event nobody declared": (
        "tasks/next_item/events",
        ["like"],
        "tasks.next_item: event 'like' is not one of events ['view', 'purchase']",
    ),
    "a positive nobody declared": (
        "tasks/buys/positive",
        ["order"],
        "tasks.buys: event 'order' is not one of events",
    ),
    "outcomes of events under a random split": (
        "split/by",
        "random",
        "tasks.buys: 'positive' events need split.by: time, for by random the outcome of an exposure can lie in "
        "another part or in its history; set split.by to time, or give the task a label",
    ),
    "outcomes of events under leave-last-out": (
        "split/by",
        "leave_last_out",
        "tasks.buys: 'positive' events need split.by: time",
    ),
    "outcomes of events among a user's other rows": (
        "split/by",
        "cold_items",
        "tasks.buys: 'positive' events need split.by: time",
    ),
    "a ranking with a label": (
        "tasks/next_item/label",
        "items.category",
        "next_item takes no label: the next item is the label",
    ),
    "a ranking of pairs": ("tasks/next_item/on", "pair", "tasks.next_item.on: Input should be 'user'"),
    "a profile beyond likeness": (
        "tasks/profile",
        {"type": "profile", "label": "items.tags", "cos_gt": 1.5},
        "cos_gt: Input should be less than or equal to 1 (got 1.5)",
    ),
    "a floor of no task": ("gate/floors", {"price.rmse": 1}, "gate.floors.price.rmse: no task 'price'"),
    "a floor in words": (
        "gate/floors",
        {"rating.rmse": "low"},
        "gate.floors.rating.rmse: Input should be a valid number",
    ),
    "certainty of one half": ("gate/confidence", 0.5, "gate.confidence: Input should be greater than 0.5"),
    "ratings upside down": ("rating_range", [5, 1], "rating_range: the first number must be the smaller"),
    "ratings of one number": ("rating_range", [5], "rating_range"),
    "an unknown source": ("source/type", "sql", "source.type: Input should be 'auto', 'simulated', 'movielens'"),
    "tables without mappings": ("source/type", "tables", "type 'tables' needs 'items' and 'interactions' mappings"),
    "a mapping without its file": ("source/items", {"columns": {}}, "source.items.file: Field required"),
    "an expectation of nothing": (
        "validation/expectations",
        [{"type": "x"}],
        "validation.expectations.0.table: Field",
    ),
    "an unknown severity": (
        "validation/expectations",
        [{"table": "items", "type": "x", "severity": "fatal"}],
        "validation.expectations.0.severity: Input should be 'critical' or 'warning' (got 'fatal')",
    ),
    "quarantine of more than all": (
        "validation/max_quarantined",
        2,
        "validation.max_quarantined: Input should be less",
    ),
    "features as text": ("users", {"numeric": "age"}, "users.numeric: a list is expected"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_scenario_is_refused_with_its_place(case: str) -> None:
    place, value, said = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        parse_scenario(changed(place, value), where="scenarios/shop.yaml")
    text = str(caught.value)
    assert text.startswith("scenarios/shop.yaml: ")
    assert said in text
    assert "\n" not in text
    assert caught.value.exit_code == 2


def test_every_wrong_key_is_listed_at_once() -> None:
    raw = changed("training", {"epochs": 0, "colour": "red"}) | {"split": {"by": "week"}}
    with pytest.raises(ConfigError) as caught:
        parse_scenario(raw)
    for said in ("training.epochs: ", "training.colour: unknown key", "split.by: "):
        assert said in str(caught.value)
    many = changed("tasks/next_item/events", ["like", "order"]) | {"rating_range": [5, 1]}
    with pytest.raises(ConfigError) as caught:
        parse_scenario(many)
    for said in ("event 'like'", "event 'order'", "rating_range"):
        assert said in str(caught.value)


@pytest.mark.parametrize("raw", [[], "text", None, 3])
def test_what_is_no_mapping_is_no_scenario(raw: Any) -> None:
    with pytest.raises(ConfigError):
        parse_scenario(raw)


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: [shop", r"shop\.yaml:\d+: not valid YAML"),
        (b"- a\n- b\n", "a scenario is a mapping of keys, found list"),
        (b"", "a scenario is a mapping of keys, found nothing"),
        (b"name: \xff\xfe", "not UTF-8 text"),
        (b"name: shop\nname: \t@", "not valid YAML"),
        (b"name: shop\n", "tasks: Field required"),
    ],
)
def test_a_broken_file_is_refused_with_its_path(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        load_scenario(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unknown_names_list_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--scenario ecomerce: unknown; choose one of .*ecommerce"):
        load_scenario("ecomerce")
    with pytest.raises(ConfigError, match=r"missing\.yaml: no such scenario file"):
        load_scenario(tmp_path / "missing.yaml")
    # A scenario beside the user is found by name, before the ones that are shipped.
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "ecommerce.yaml").write_text(json.dumps(GOOD))
    monkeypatch.chdir(tmp_path)
    assert load_scenario("ecommerce").name == "shop"
    assert load_scenario("video").name == "video"
    assert scenario_path("ecommerce") == Path("scenarios/ecommerce.yaml")


@pytest.mark.parametrize("name", ["amazon", "ecommerce", "online-retail", "video"])
def test_every_shipped_scenario_loads(name: str, repository: Path) -> None:
    scenario = load_scenario(repository / "scenarios" / f"{name}.yaml")
    assert scenario.name == name
    assert scenario.description
    assert scenario.tasks
    assert parse_scenario(scenario.as_dict()) == scenario


def test_no_shipped_scenario_is_forgotten(repository: Path) -> None:
    found = {path.stem for path in (repository / "scenarios").glob("*.yaml")}
    assert found == {"amazon", "ecommerce", "online-retail", "video"}


def test_on_and_off_are_text_and_true_is_not() -> None:
    assert read_yaml("{on: item, off: yes, a: true, b: False, c: no}") == {
        "on": "item",
        "off": "yes",
        "a": True,
        "b": False,
        "c": "no",
    }


# ------------------------------------------------------------------------------------------------ overrides


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(json.dumps(GOOD))
    return path


def test_overrides_reach_any_depth_and_are_read_as_yaml(path: Path) -> None:
    found = load_scenario(
        path,
        [
            "training.epochs=2",
            "training.lr=1e-3",
            "model.encoder={name: minilm, max_length: 16}",
            "tasks.rating.weight=0.5",
            "description=a=b",
            "events=[view, purchase, cart]",
            "rating_range=null",
            "gate.must_improve=false",
            "name='shop2'",
        ],
    )
    assert (found.training.epochs, found.training.lr) == (2, 1e-3)
    assert found.model.encoder.max_length == 16
    assert found.tasks["rating"].weight == 0.5
    assert found.description == "a=b"
    assert found.events == ["view", "purchase", "cart"]
    assert found.rating_range is None
    assert found.gate.must_improve is False
    assert found.name == "shop2"


def test_the_last_of_equal_overrides_counts(path: Path) -> None:
    assert load_scenario(path, ["training.epochs=2", "training.epochs=7"]).training.epochs == 7


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epochs", "--set training.epochs: write it as key.sub=value, e.g. training.epochs=2"),
        ("=3", "--set =3: write it as key.sub=value"),
        ("name.first=x", "--set name.first=x: 'name' is not a section"),
        ("tasks.rating.label.x=1", "'label' is not a section"),
        ("training.epochs=[1", "--set training.epochs=[1: the value is not valid YAML"),
        ("training.epochs=zero", "training.epochs: Input should be a valid integer"),
        ("trainin.epochs=1", "--set trainin: unknown key; did you mean training?"),
        ("training.epoch=1", "--set training.epoch: unknown key; did you mean training.epochs?"),
        ("tasks.rating.weigth=1", "--set tasks.rating.weigth: unknown key; did you mean tasks.rating.weight?"),
        ("validation.expectations=[{tabl: x}]", "unknown key; did you mean validation.expectations.0.table?"),
        ("tasks.new.type=magic", "--set tasks.new: Input tag 'magic' found"),
        ("training={epochs: 0}", "--set training.epochs: Input should be greater"),
        ("training.seed=-1", "--set training.seed: Input should be greater than or equal to 0 (got -1)"),
        ("split.seed=99999999999999999999", "--set split.seed: Input should be less than or equal to 4294967295"),
        ("items.text='{title'", "--set items.text: expected '}' before end of string; write columns as {title}"),
        ("source.options.x=1", "options x have no effect: only type 'simulated' takes options"),
        ("source.options.x=1", "(with --set source.options.x)"),
    ],
)
def test_wrong_overrides_are_refused(override: str, said: str, path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_scenario(path, [override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["training.epoch=1", "training.seed=-1", "items.text='{title'"])
def test_a_wrong_override_does_not_blame_the_file(override: str, path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_scenario(path, [override])
    assert str(path) not in str(caught.value)
    assert str(caught.value).startswith(f"--set {override.partition('=')[0]}: ")


def test_wrong_keys_of_the_file_and_of_the_command_line_are_told_apart(path: Path) -> None:
    raw = read_yaml(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(raw | {"task": {}, "splits": {}}), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_scenario(path, ["training.epoch=1"])
    assert str(caught.value) == (
        f"{path}: task: unknown key; did you mean tasks?; splits: unknown key; did you mean split?; "
        "--set training.epoch: unknown key; did you mean training.epochs?"
    )


# ------------------------------------------------------------------------------------------------ the object


def test_a_scenario_survives_json() -> None:
    scenario = parse_scenario(GOOD)
    again = parse_scenario(json.loads(json.dumps(scenario.as_dict())))
    assert again == scenario
    assert again.digest == scenario.digest


def test_the_digest_is_that_of_the_content() -> None:
    scenario = parse_scenario(GOOD)
    reordered = {key: GOOD[key] for key in reversed(GOOD)}
    assert parse_scenario(reordered).digest == scenario.digest
    assert len(scenario.digest) == 64
    digests = {scenario.digest}
    for place, value in {
        "description": "x",
        "training/seed": 1,
        "tasks/rating/weight": 0.5,
        "gate/max_regression": 0.5,
        "split/seed": 7,
        "model/encoder": {"revision": "abc"},
    }.items():
        digests.add(parse_scenario(changed(place, value)).digest)
    assert len(digests) == 7
    # Saying a default aloud changes nothing.
    assert parse_scenario(changed("split/by", "time")).digest == scenario.digest


def test_the_digest_is_the_same_in_another_process(path: Path) -> None:
    code = "import sys; from mtrec.config import load_scenario; print(load_scenario(sys.argv[1]).digest)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == load_scenario(path).digest


def test_nothing_can_be_changed_afterwards() -> None:
    scenario = parse_scenario(GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        scenario.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        scenario.training.epochs = 9


def test_labels_know_their_table_and_templates_their_fields() -> None:
    scenario: Scenario = parse_scenario(changed("items/text", "{title}. {description} ({year})"))
    assert scenario.items.text_fields == ["title", "description", "year"]
    rating = scenario.tasks["rating"]
    assert (rating.label_table, rating.label_column) == ("interactions", "rating")
    assert scenario.tasks["next_item"].label_column == ""
    assert scenario.items.names == ["brand"]


def test_errors_of_the_input_end_with_code_two() -> None:
    assert issubclass(ConfigError, InputError)
    assert (ConfigError.exit_code, Split().by) == (2, "time")


# ------------------------------------------------------------------------------------------------ search


def searched(*overrides: str, **section: Any) -> Scenario:
    """The small scenario with a search over the learning rate, overridden by `--set`."""
    space = {"training.lr": {"low": 0.001, "high": 0.1, "log": True}}
    raw = {**GOOD, "search": {"space": space, **section}}
    for item in overrides:
        config._apply_override(raw, item)
    return parse_scenario(raw)


def test_a_space_can_be_overridden_by_its_dotted_paths() -> None:
    first = searched().search.space
    assert first == {"training.lr": Parameter(low=0.001, high=0.1, log=True)}
    lower = searched("search.space.training.lr.low=0.01").search.space
    assert lower == {"training.lr": Parameter(low=0.01, high=0.1, log=True)}
    other = searched("search.space.training.lr={choices: [1e-3, 0.5, true, null]}").search.space
    assert other == {"training.lr": Parameter(choices=[0.001, 0.5, True, None])}
    more = searched("search.space.model.dropout={low: 0, high: 0.5, step: 0.1}", "search.space.training.lr=null")
    assert more.search.space == {"model.dropout": Parameter(low=0, high=0.5, step=0.1)}
    assert parse_scenario(more.as_dict()) == more


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("{low: null}", "give 'low' and 'high', or 'choices'"),
        ("3", "a mapping of keys is expected"),
        ("{low: 1, log: true}", "empty range: low 1 must be less than high 0.1"),
        ("{low: 2, high: 2}", "empty range: low 2 must be less than high 2"),
        ("{low: .nan, high: 2}", "empty range"),
        ("{low: 1, high: .inf}", "empty range"),
        ("{low: 0, high: 2, log: true}", "'log' needs a low above 0 and takes no 'step'"),
        ("{low: 1, high: 2, log: true, step: 1}", "'log' needs a low above 0 and takes no 'step'"),
        ("{low: 1, high: 2, step: 0}", "greater than 0"),
        ("{choices: []}", "'choices' must name at least one value, each once"),
        ("{choices: [1, 1]}", "'choices' must name at least one value, each once"),
        ("{choices: [1], low: 2}", "give either 'choices' or 'low' and 'high'"),
        ("{low: 1, high: 2, width: 3}", "width: unknown key"),
    ],
)
def test_a_wrong_parameter_of_a_search_is_refused(parameter: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        searched(f"search.space.training.lr={parameter}")
    assert "search.space.training.lr" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_search_would_try_is_no_part_of_what_a_model_was_made_from() -> None:
    plain = parse_scenario(GOOD)
    assert searched(trials=3).digest == plain.digest
    assert "search" in plain.as_dict()
    assert "search" not in plain.settings


def test_pretraining_and_a_student_exclude_each_other() -> None:
    both = changed("pretraining", {"epochs": 1}) | {"distillation": {"layers": 2}}
    with pytest.raises(ConfigError, match=r"pretraining.epochs: a student .* set one of the two to 0$"):
        parse_scenario(both)
    assert parse_scenario(changed("pretraining", {"epochs": 1})).distillation.layers == 0
    assert parse_scenario(changed("distillation", {"layers": 2})).pretraining.epochs == 0


@pytest.mark.parametrize("key", ["pretraining.epochs", "distillation.layers"])
def test_a_start_from_the_champion_excludes_what_would_change_its_encoder(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"training.start: .*, which {key} would change; set {key} to 0, or"):
        load_scenario("ecommerce", ["training.start=champion", f"{key}=1"])
    assert load_scenario("ecommerce", [f"{key}=1"]).training.start == "pretrained"


@pytest.mark.parametrize("setting", ["r_drop", "adversarial", "text_augmentation"])
def test_regularisation_is_off_and_takes_no_negative_weight(setting: str) -> None:
    assert getattr(Training(), setting) == 0
    with pytest.raises(ConfigError, match=rf"training\.{setting}: Input should be greater than or equal to 0"):
        load_scenario("ecommerce", [f"training.{setting}=-0.1"])


def test_a_key_that_is_there_twice_is_named_with_both_places(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text("name: shop\ntraining: {epochs: 1, lr: 0.1, epochs: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load_scenario(str(path))
    said = "not valid YAML (key 'epochs' is there twice, first in line 2)"
    assert str(caught.value) == f"{path}:2: {said}"
    both = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, x: 4}\n"
    assert read_yaml(both)["c"] == {"x": 4, "y": 3}
