"""Model folders: the same answers in a fresh process, no pickle, and one line for whatever is broken."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mtrec.config import Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.errors import ModelError
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle, load_memory, load_model, new_model, save_model
from mtrec.serving.predictor import Predictor

ASK = """
import json, sys
from pathlib import Path
from mtrec.serving.predictor import Predictor

predictor = Predictor.load(Path(sys.argv[1]))
items = predictor.item_ids[:20]
users = ["u00001", "u00007", "nobody", None]
print(json.dumps({
    "recommend": [predictor.recommend(user_id=user, num_items=5) for user in users],
    "history": predictor.recommend(history=items[:3], num_items=5),
    "score": [predictor.score(items, user_id=user) for user in users],
}))
"""


@pytest.fixture(scope="module")
def folder(shop_run: Path) -> Path:
    return shop_run / "model"


def test_a_fresh_process_gives_identical_answers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = subprocess.run(
        [sys.executable, "-c", ASK, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=True,
    )
    monkeypatch.setattr(sys, "argv", ["ask", str(folder)])
    exec(ASK, {})
    here = json.loads(capsys.readouterr().out)
    assert json.loads(fresh.stdout) == here
    assert len(here["recommend"][0]) == 5
    assert set(here["score"][0]) == {"rating", "like", "purchase"}


def test_weights_encoding_and_scenario_come_back_exactly(folder: Path, shop: Scenario, shop_run: Path) -> None:
    bundle = load_model(folder)
    assert bundle.scenario == shop
    assert bundle.encoding == Encoding.read(shop_run / "dataset" / "encoding.json")
    assert not bundle.model.training
    again = load_model(folder)
    for name, value in bundle.model.state_dict().items():
        assert value.equal(again.model.state_dict()[name])
    # The encoder was saved with what fine-tuning made of it.
    start = new_model(Dataset.read(shop_run / "dataset"), bundle.encoding, shop)[0]
    moved = [
        name
        for name, value in start.model.state_dict().items()
        if not value.equal(bundle.model.state_dict()[name]) and name.startswith("encoder.")
    ]
    assert any(".layer.1." in name for name in moved)


def test_saving_what_was_loaded_gives_the_same_weights(folder: Path, shop_run: Path, tmp_path: Path) -> None:
    bundle = load_model(folder)
    dataset = Dataset.read(shop_run / "dataset")
    catalogue = bundle.model.catalogue(dataset.items["text"].to_list(), bundle.view(dataset).items)
    save_model(tmp_path / "again", bundle, dataset, catalogue, {"epochs": 2})
    same = ["scenario.json", "encoding.json", "model.safetensors", "encoder/config.json"]
    for name in same:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    assert [p.name for p in tmp_path.iterdir()] == ["again"]


def test_a_model_saved_before_there_were_temperatures_has_none(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "old")
    weights = load_file(folder / "model.safetensors")
    temperatures = {name for name in weights if name.endswith(".temperature")}
    assert len(temperatures) == 6
    assert all(float(weights[name]) != 1 for name in temperatures)
    thresholds = "heads.tags.thresholds"
    old = {name: value for name, value in weights.items() if name not in (*temperatures, thresholds)}
    save_file(old, tmp_path / "old" / "model.safetensors")
    model = load_model(tmp_path / "old").model
    assert all(float(model.state_dict()[name]) == 1 for name in temperatures)
    assert set(model.state_dict()[thresholds].tolist()) == {0.5}
    # Scores are those of the new folder before its temperature.
    items = Predictor.load(folder).item_ids[:20]
    scores = [Predictor.load(f).score(items, user_id="u00001")["like"] for f in (folder, tmp_path / "old")]
    logits = [torch.tensor(s).logit() for s in scores]
    torch.testing.assert_close(logits[0] * weights["heads.like.temperature"], logits[1], rtol=1e-4, atol=1e-5)


def test_a_model_saved_before_labels_were_looked_for_looks_for_none(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "old")
    scenario = json.loads((folder / "scenario.json").read_text())
    del scenario["model"]["label_attention"]
    (tmp_path / "old" / "scenario.json").write_text(json.dumps(scenario))
    for name in ("model", "vectors"):
        tensors = load_file(folder / f"{name}.safetensors")
        kept = {key: value for key, value in tensors.items() if not key.startswith("encoder.labels.")}
        if name == "vectors":
            kept["text"] = kept["text"][:, :32].contiguous()
        save_file(kept, tmp_path / "old" / f"{name}.safetensors")
    assert load_model(folder).model.looked_for
    assert not load_model(tmp_path / "old").model.looked_for
    items = Predictor.load(folder).item_ids[:20]
    ratings = [Predictor.load(f).score(items, user_id="u00001")["rating"] for f in (folder, tmp_path / "old")]
    assert ratings[0] == ratings[1]


def test_a_model_saved_before_new_items_were_told_apart_answers_alike_for_all(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "old")
    weights = load_file(folder / "model.safetensors")
    later = {name for name in weights if name.startswith("bottoms.new_pair.") or ".new." in name}
    assert {name.split(".")[1] for name in later} == {"new_pair", "rating", "like", "purchase"}
    save_file({n: w for n, w in weights.items() if n not in later}, tmp_path / "old" / "model.safetensors")
    found = load_model(tmp_path / "old").model.state_dict()
    for name in later:
        known = name.replace("bottoms.new_pair.", "bottoms.pair.").replace(".new.", ".linear.")
        assert found[name].equal(weights[known]), name


def test_the_folder_holds_what_is_promised_and_no_pickle(folder: Path) -> None:
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    promised = {"scenario.json", "encoding.json", "model.safetensors", "training.json", "vectors.safetensors"}
    assert promised <= set(files)
    assert {f"memory/{name}.parquet" for name in ("users", "items", "interactions")} <= set(files)
    assert {path.suffix for path in files.values()} <= {".json", ".safetensors", ".parquet", ".txt"}
    for name, path in files.items():
        head = path.read_bytes()[:9]
        if path.suffix == ".safetensors":  # a length of any bytes, then JSON
            assert head[8:] == b"{", name
        else:
            assert not head.startswith((b"\x80", b"PK")), f"{name} looks like a pickle or an archive of pickles"


def test_the_memory_keeps_each_users_recent_rows_and_every_item(
    folder: Path, shop_run: Path, shop: Scenario
) -> None:
    bundle = load_model(folder)
    memory, catalogue = load_memory(folder, bundle)
    dataset = Dataset.read(shop_run / "dataset")
    length = shop.model.history
    for user in range(dataset.users.height):
        rows = dataset.interactions.filter(dataset.interactions["user_id"] == dataset.users["user_id"][user])
        kept = memory.interactions.filter(memory.interactions["user_id"] == dataset.users["user_id"][user])
        assert kept.tail(length).equals(rows.tail(length))
        # Further back, the newest row with each item: enough to know what was taken.
        assert set(kept["item_id"]) == set(rows["item_id"])
        early = kept.head(-length)["item_id"]
        assert early.n_unique() == len(early)
        assert not set(early) & set(rows.tail(length)["item_id"])
    assert catalogue.text_NE.shape[0] == memory.items.height == dataset.items.height
    # Half precision on disk is close to what the encoder says.
    fresh = bundle.model.catalogue(memory.items["text"].to_list(), catalogue.features)
    torch.testing.assert_close(catalogue.text_NE, fresh.text_NE, rtol=0, atol=1e-3)


Damage = Callable[[Path], object]


def cut(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:50])


def gone(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Damage:
    return lambda folder: (folder / name).write_text(text)


def one_item_less(folder: Path) -> None:
    import polars as pl

    path = folder / "memory" / "items.parquet"
    pl.read_parquet(path).head(-1).write_parquet(path)


def other_width(folder: Path) -> None:
    raw = json.loads((folder / "scenario.json").read_text())
    raw["model"]["width"] = 32
    (folder / "scenario.json").write_text(json.dumps(raw))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no folder": (shutil.rmtree, "not a model folder"),
    **{
        f"{name} is gone": (gone(name), name)
        for name in (
            "scenario.json",
            "encoding.json",
            "model.safetensors",
            "encoder/config.json",
            "vectors.safetensors",
            "memory/users.parquet",
            "memory/interactions.parquet",
        )
    },
    **{
        f"{name} is cut": (cut(name), name.partition("/")[0])
        for name in (
            "scenario.json",
            "encoding.json",
            "model.safetensors",
            "encoder/config.json",
            "encoder/tokenizer.json",
            "vectors.safetensors",
            "memory/items.parquet",
        )
    },
    "the tokenizer is gone": (gone("encoder/tokenizer.json"), "encoder"),
    "the scenario is none": (write("scenario.json", "[]"), "scenario.json"),
    "the scenario is of another version": (write("scenario.json", '{"name": "x", "colour": 1}'), "scenario.json"),
    "the encoding is none": (write("encoding.json", "{}"), "encoding.json"),
    "the weights are of another size": (other_width, "the weights do not fit the model"),
    "the weights are text": (write("model.safetensors", "weights"), "the weights do not fit the model"),
    "an item is missing": (one_item_less, "50 text vectors for 49 items"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line(damage: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    harm, said = DAMAGES[damage]
    harm(tmp_path / "model")
    with pytest.raises(ModelError) as caught:
        Predictor.load(tmp_path / "model")
    text = str(caught.value)
    assert said in text
    assert str(tmp_path / "model") in text
    assert "\n" not in text


def test_the_same_seed_gives_the_same_start(
    shop: Scenario, shop_data: tuple[Dataset, Encoding], shop_start: tuple[Bundle, View, Catalogue]
) -> None:
    torch.manual_seed(99)
    again, _, catalogue = new_model(*shop_data, shop)
    for name, value in shop_start[0].model.state_dict().items():
        assert value.equal(again.model.state_dict()[name]), name
    assert catalogue.text_NE.equal(shop_start[2].text_NE)
    changed = shop.model_copy(update={"training": shop.training.model_copy(update={"seed": 1})})
    other = new_model(*shop_data, changed)[0]
    assert any(not v.equal(other.model.state_dict()[n]) for n, v in again.model.state_dict().items())


def test_the_untrained_model_recommends_by_content(shop_start: tuple[Bundle, View, Catalogue]) -> None:
    """Item vectors start as the principal components of the texts: near texts are near items."""
    bundle, view, catalogue = shop_start
    items = bundle.model.item_vectors(catalogue.text_NE, view.items)
    text = catalogue.text_NE - catalogue.text_NE.mean(0)
    near = torch.corrcoef(torch.stack([torch.pdist(text), torch.pdist(items.text_ND)]))[0, 1]
    assert float(near.detach()) > 0.9
    assert np.isfinite(items.fused_ND.detach().numpy()).all()
