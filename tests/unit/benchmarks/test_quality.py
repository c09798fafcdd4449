"""The quality benchmark: what it measures on a small MovieLens folder, its result files and its tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("surprise", reason="scikit-surprise is not installed (pip install 'mtrec[dev]')")

from benchmarks import baselines, quality, sasrec
from benchmarks.ratings import from_tables, load_tables, split


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MovieLens folder of 40 users, 30 films and 12 ratings each; tastes follow the film's genre."""
    folder = tmp_path_factory.mktemp("small-films")
    rng = np.random.default_rng(0)
    genres = ["Comedy", "Drama", "Horror"]
    films = [f"{i},Film number {i} ({1980 + i}),{genres[i % 3]}|{genres[i % 2]}" for i in range(30)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]) + "\n")
    rows = ["userId,movieId,rating,timestamp"]
    for user in range(40):
        for turn, film in enumerate(rng.permutation(30)[:12]):
            rating = 4.5 if film % 3 == user % 3 else float(rng.choice([1.0, 2.0, 3.0]))
            rows.append(f"{user},{film},{rating},{1_000_000 + turn * 1000 + user}")
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def small_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "BIAS_GRID", {"reg_user": (1, 15), "reg_item": (1,), "epochs": (5,)})
    monkeypatch.setattr(baselines, "SVD_GRID", {"factors": (2, 4), "epochs": (5,)})
    monkeypatch.setattr(baselines, "SVDPP_GRID", {"epochs": (2,), "reg": (0.05, 0.1)})
    monkeypatch.setattr(baselines, "SVDPP_FACTORS", (2, 3))
    monkeypatch.setattr(baselines, "SVDPP_LONGER", (2, 4))
    monkeypatch.setattr(sasrec, "DROPOUTS", (0.2,))
    monkeypatch.setattr(sasrec, "WIDTHS", (8,))
    monkeypatch.setattr(sasrec, "LOOKS", 1)
    monkeypatch.setattr(baselines, "KNN_GRID", {"neighbours": (3, 10), "shrink": (0.0,)})


@pytest.mark.usefixtures("small_grids")
def test_baselines_are_tuned_and_measured_per_split_and_seed(films: Path) -> None:
    found = list(quality.measure(films, ["random", "leave_last_out"], [0, 1], only="baselines"))
    methods = [(r["split"], r["seed"], r["method"]) for r in found]
    raters = ["bias-only", "bias-only, tuned", "SVD", "SVD, tuned", "SVD++", "SVD++, tuned"]
    rankers = ["popularity", "item-kNN, tuned", "item-kNN with recency, tuned"]
    networks = ["SASRec as published", "SASRec, full softmax, tuned"]
    assert methods == [
        *[("random", seed, name) for seed in (0, 1) for name in raters],
        *[("leave_last_out", 0, name) for name in (*rankers, *networks)],
        *[("leave_last_out", 1, name) for name in networks],  # the others have no chance in them
    ]
    by_name = {(r["method"], r["seed"]): r for r in found}
    ratings, frame = from_tables(load_tables(films))
    chosen = baselines.choose(split(ratings, frame, "random", seed=0), "random")
    for seed in (0, 1):  # seed 1 is measured with what seed 0 chose
        assert by_name["bias-only, tuned", seed]["setting"] == chosen["bias"]
        assert by_name["SVD, tuned", seed]["setting"] == {**chosen["svd"], "seed": seed}
        assert by_name["SVD++, tuned", seed]["setting"] == {**chosen["svdpp"], "seed": seed}
        parts = split(ratings, frame, "random", seed=seed)
        again = baselines.rating_rmse(baselines.svd(seed=seed), parts.before_test, parts.test)
        assert by_name["SVD", seed]["rmse"] == again
    assert by_name["SVD++", 0]["rmse"] != by_name["SVD++", 1]["rmse"]
    assert by_name[networks[1], 0]["setting"] == {**by_name[networks[1], 1]["setting"], "seed": 0}
    popular = by_name["popularity", 0]
    assert popular["users"] == 40
    assert popular["hr@10_se"] == pytest.approx(np.sqrt(popular["hr@10"] * (1 - popular["hr@10"]) / 39))


def test_settings_written_down_are_used_and_svdpp_can_be_left_out(
    films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: baselines.Settings = {"bias": {"reg_user": 3}, "svd": {"factors": 2, "epochs": 1}}
    monkeypatch.setitem(quality.TUNED, (films.name, "time"), settings)
    monkeypatch.setattr(
        baselines, "tuned_rating_model", lambda *_: pytest.fail("chose settings that are written down")
    )
    found = list(quality.measure(films, ["time"], [5], only="baselines", plus_plus=False))
    assert [r["method"] for r in found] == ["bias-only", "bias-only, tuned", "SVD", "SVD, tuned"]
    assert [r["setting"] for r in found][1::2] == [{"reg_user": 3}, {"factors": 2, "epochs": 1, "seed": 5}]


@pytest.mark.usefixtures("small_grids")
def test_the_settings_that_are_not_written_down_are_chosen_and_printed(
    films: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: baselines.Settings = {"bias": {"reg_user": 3}, "svd": {"factors": 2, "epochs": 1}}
    monkeypatch.setitem(quality.TUNED, (films.name, "random"), given)
    words = ["--data", str(films), "--splits", "random", "--only", "settings"]
    quality.main(words)
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)["settings"]
    ratings, frame = from_tables(load_tables(films))
    parts = split(ratings, frame, "random", seed=0)

    def error(setting: dict[str, Any]) -> float:
        return baselines.rating_rmse(baselines.svd_plus_plus(**setting), parts.train, parts.valid)

    first = min(({"factors": 2, "epochs": 2, "reg": reg} for reg in (0.05, 0.1)), key=error)
    best = min(({**first, "factors": n} for n in (2, 3)), key=error)
    assert found == {**given, "svdpp": min(({**best, "epochs": n} for n in (2, 4)), key=error)}
    with pytest.raises(SystemExit):
        quality.main([*words, "--out", "lines.jsonl"])
    assert "--only settings" in capsys.readouterr().err


def test_settings_of_the_public_sets_come_from_the_grids() -> None:
    tuned = set(quality.SPLITS) - {"cold_items"}
    assert set(quality.TUNED) == {(data, by) for data in quality.DATA_SETS for by in tuned}
    grids = {"bias": baselines.BIAS_GRID, "svd": baselines.SVD_GRID, "knn": baselines.KNN_GRID}
    slow = {"svdpp", "sasrec", "sasrec_full"}
    grids["svdpp"] = {**baselines.SVDPP_GRID, "factors": baselines.SVDPP_FACTORS}
    grids["svdpp"]["epochs"] = (*baselines.SVDPP_GRID["epochs"], *baselines.SVDPP_LONGER)
    grids["recent"] = {**baselines.KNN_GRID, "half_life": baselines.HALF_LIVES}
    for (_, by), settings in quality.TUNED.items():
        assert set(settings) - slow == ({"knn", "recent"} if by == "leave_last_out" else {"bias", "svd"})
        for name in settings.keys() & grids.keys():
            setting = settings[name]
            assert all(value in grids[name][key] for key, value in setting.items())
            assert set(setting) == set(grids[name])


def test_mtrec_is_measured_with_its_overrides(films: Path) -> None:
    small = ["training.epochs=1", "model.encoder.train_layers=0", "model.width=8"]
    (found,) = quality.measure(films, ["leave_last_out"], [3], small, only="mtrec")
    assert found["method"] == "mtrec, all tasks, training.epochs=1, model.encoder.train_layers=0, model.width=8"
    assert (found["data"], found["split"], found["seed"], found["users"]) == (films.name, "leave_last_out", 3, 40)
    assert 0.3 < found["rmse"] < 2.5
    assert 0 < found["ndcg@10"] < found["hr@10"] < 1
    assert found["hr@10_se"] == pytest.approx(np.sqrt(found["hr@10"] * (1 - found["hr@10"]) / 39))


@pytest.mark.usefixtures("small_grids")
def test_cold_items_are_ranked_by_ids_and_by_the_whole_model(films: Path) -> None:
    small = ["training.epochs=2", "model.encoder.train_layers=0", "model.width=8"]
    found = list(quality.measure(films, ["cold_items"], [2], small))
    ours = [f"mtrec, {name}, {', '.join(small)}" for name in ("all tasks", "ids only")]
    ids = ["popularity", "item-kNN, tuned", "item-kNN with recency, tuned"]
    ids += ["SASRec as published", "SASRec, full softmax, tuned"]
    assert [r["method"] for r in found] == [*ids, *ours]
    ratings, frame = from_tables(load_tables(films))
    parts = split(ratings, frame, "cold_items", seed=2)
    held = set(parts.test.items.tolist())
    assert held.isdisjoint(parts.before_test.items.tolist())
    assert {(r["rows"], r["users"]) for r in found} == {(len(parts.test), len(np.unique(parts.test.users)))}
    # Popularity knows nothing of them: chance among themselves, the last places among all.
    assert found[0]["hr@10 among held-out"] == pytest.approx(min(10 / len(held), 1))
    assert found[0]["ndcg@10"] < found[0]["ndcg@10 among held-out"]
    assert "| method | hr@10 | ndcg@10 | hr@10 among held-out | ndcg@10 among held-out | runs |" in quality.table(
        found
    )


def rated(method: str, seed: int, rmse: float) -> dict[str, Any]:
    return {"data": "films", "split": "random", "method": method, "seed": seed, "rmse": rmse}


def ranked(method: str, seed: int, ndcg: float, error: float) -> dict[str, Any]:
    scores = {"hr@10": 0.5, "hr@10_se": 0.25, "ndcg@10": ndcg, "ndcg@10_se": error}
    return {"data": "films", "split": "leave_last_out", "method": method, "seed": seed, **scores}


def test_tables_show_means_spreads_and_the_best() -> None:
    results = [
        *(rated("SVD", seed, rmse) for seed, rmse in ((0, 0.9), (1, 0.8))),
        rated("ours", 0, 0.87),
        rated("SVD", 1, 0.7),  # measured again: the later one counts
        *(ranked("ours", seed, ndcg, se) for seed, ndcg, se in ((0, 0.2, 0.01), (1, 0.4, 0.03))),
        ranked("popularity", 0, 0.1, 0.005),
    ]
    assert quality.table(results).splitlines() == [
        "",
        "**films, split random** (± standard deviation over seeds)",
        "",
        "| method | rmse | runs |",
        "|---|---|---|",
        "| SVD | **0.8000** ± 0.1414 | 2 |",
        "| ours | 0.8700 | 1 |",
        "",
        "**films, split leave_last_out** (± standard error over test users)",
        "",
        "| method | hr@10 | ndcg@10 | runs |",
        "|---|---|---|---|",
        "| ours | **0.5000** ± 0.2500 | **0.3000** ± 0.0200 | 2 |",
        "| popularity | **0.5000** ± 0.2500 | 0.1000 ± 0.0050 | 1 |",
    ]


def test_runs_add_to_a_file_whose_tables_can_be_printed(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(quality.TUNED, (films.name, "random"), {"bias": {}, "svd": {"epochs": 1}})
    out = tmp_path / "runs" / "films.jsonl"
    for seed in ("0", "1"):
        words = ["--data", str(films), "--splits", "random", "--seeds", seed, "--only", "baselines", "--no-svdpp"]
        quality.main([*words, "--out", str(out)])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["seed"], r["method"]) for r in lines][::4] == [(0, "bias-only"), (1, "bias-only")]
    assert len(lines) == 8
    capsys.readouterr()
    quality.main(["--table", str(out)])
    shown = capsys.readouterr().out
    assert shown.strip() == quality.table(lines).strip()
    assert shown.count("| 2 |") == 4


@pytest.mark.parametrize("line", ["nonsense", '{"data": "films"}', "[1]"])
def test_a_line_that_is_no_result_is_refused_by_its_place(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text(json.dumps(rated("SVD", 0, 1.0)) + "\n" + line + "\n")
    with pytest.raises(SystemExit):
        quality.main(["--table", str(file)])
    assert f"{file}:2: not a result line" in capsys.readouterr().err
