"""Building, saving and loading a model with all it needs to answer on its own.

A model folder holds:
    scenario.json         what it was trained for
    encoding.json         vocabularies and statistics of its training rows
    model.safetensors     every weight, the encoder's included
    training.json         epochs, seconds, number of parameters
    encoder/              architecture and tokenizer of the encoder
    vectors.safetensors   the text vector of every item in `memory/`
    memory/               users, items, each user's recent interactions and the newest one with every earlier item,
                          for answers by user id that leave out what the user took before
No file is a pickle. The folder of an ensemble (`mtrec.models.ensemble_store`) holds such folders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtrec.config import Regression, Scenario, parse_scenario
from mtrec.data.contract import replacing_folder
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import TRAIN
from mtrec.errors import InputError, ModelError
from mtrec.models.beliefs import start_posteriors
from mtrec.models.biases import as_log_odds, fit_biases
from mtrec.models.encoder import (
    TextEncoder,
    choose_device,
    choose_precision,
    load_encoder,
    load_saved_encoder,
    save_encoder,
)
from mtrec.models.habits import start_habits
from mtrec.models.heads import Head
from mtrec.models.id_start import item_factors
from mtrec.models.inputs import View
from mtrec.models.label_embeddings import LabelEmbeddings
from mtrec.models.recommender import Catalogue, Recommender
from mtrec.models.state_cache import StateCache


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model, the encoding it reads data through, and its scenario."""

    model: Recommender
    encoding: Encoding
    scenario: Scenario

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def view(self, dataset: Dataset, labels: Encoding | None = None) -> View:
        """The dataset as this model sees it; targets in the vocabulary of `labels` (default: the model's own)."""
        return View.of(dataset, self.encoding, self.scenario, self.device, labels)


def new_model(
    dataset: Dataset,
    encoding: Encoding,
    scenario: Scenario,
    *,
    to_train: bool = True,
    text_cache: Path | None = None,
    encoder: TextEncoder | None = None,
    spread: Callable[[TextEncoder], None] = lambda encoder: None,
) -> tuple[Bundle, View, Catalogue]:
    """The model before fine-tuning: pretrained encoder, item vectors by text, heads at the training priors.

    What the training rows tell in closed form is in it too: posteriors of ratings (`mtrec.models.posterior`),
    biases of the other pair tasks (`mtrec.models.biases`) and item neighbours (`mtrec.models.neighbours`), so that
    fine-tuning is compared with a start that is hard to beat.

    The same seed gives the same weights, so evaluation can rebuild what training started from.

    Args:
        dataset: what preprocess made.
        encoding: its encoding.
        scenario: model, tasks and training.
        to_train: keep what the encoder's frozen layers give for each text, within `training.cache_mb`.
        text_cache: folder to keep it in for later runs; None: in memory.
        encoder: takes the place of the one that the scenario names.
        spread: called with the encoder before it encodes anything, to let several processes share its work.

    Raises:
        ModelError: the encoder cannot be loaded or compiled, or the device is not there.
    """
    device = choose_device(scenario.training.device)
    torch.manual_seed(scenario.training.seed)
    encoder = encoder or load_encoder(scenario.model.encoder)
    encoder.precision = choose_precision(scenario.training.precision, device)
    encoder.texts_at_once = scenario.training.texts_at_once
    if to_train and scenario.training.texts_per_step and scenario.training.cache_mb:
        encoder.reuse(StateCache(text_cache, scenario.training.cache_mb * 2**20))
    spread(encoder)
    bundle = Bundle(model=Recommender(scenario, encoding, encoder).to(device), encoding=encoding, scenario=scenario)
    if to_train and scenario.training.compile:
        encoder.compile_layers()
    elif to_train and device.type != "cpu":
        encoder.leave_masks_unread()
        encoder.pack_texts()
    view = bundle.view(dataset)
    catalogue = bundle.model.catalogue(dataset.items["text"].to_list(), view.items)
    bundle.model.items.start_from(catalogue.text_NE[view.items.ids > 0, : encoder.width])
    _start_biases(bundle, view)
    start_posteriors(bundle.model, view)
    losses, by_time = lambda name: bundle.model.head(name).loss, scenario.split.by == "time"
    start_habits(bundle.model.habits, view, scenario.model.history, losses, by_time=by_time)
    _start_labels(bundle)
    train = dataset.part == TRAIN
    slots = view.items.ids.cpu().numpy()[dataset.item[train]]
    if bundle.model.neighbours is not None:
        bundle.model.neighbours.start_from(dataset.user[train], slots, np.flatnonzero(train))
    if scenario.model.id_start != "random" and bundle.model.items.ids is not None:
        sizes = dataset.users.height, len(encoding.items.ids) + 1
        table = item_factors(scenario.model.id_start, dataset.user[train], slots, sizes, scenario.model.width)
        bundle.model.items.start_ids(torch.from_numpy(table))
    return bundle, view, catalogue


def _start_biases(bundle: Bundle, view: View) -> None:
    """Set the biases of pair tasks to what the training rows say in closed form."""
    model, train = bundle.model, view.dataset.part == TRAIN
    if model.factors is None:
        return
    user_R, item_R = (
        ids.cpu().numpy()[rows]
        for ids, rows in ((view.users.ids, view.dataset.user), (view.items.ids, view.dataset.item))
    )
    sizes = len(bundle.encoding.users.ids) + 1, len(bundle.encoding.items.ids) + 1
    chained = {name for name, _ in model.chained}  # what comes first carries their biases too
    for k, name in enumerate(model.factored):
        if name in chained:
            continue
        label_R = view.labels[name].cpu().numpy().astype(np.float64)
        rows = train & ~np.isnan(label_R)
        label = bundle.encoding.labels[name]
        biases = fit_biases((user_R[rows], item_R[rows]), label_R[rows] - label.prior[0], sizes)
        if isinstance(model.tasks[name], Regression):
            user_bias, item_bias = (bias / label.scale for bias in biases)
        else:
            user_bias, item_bias = (as_log_odds(bias, label.prior[0]) for bias in biases)
        model.factors.start_from(k, user_bias, item_bias)


def _start_labels(bundle: Bundle) -> None:
    """Set label vectors to the text vectors of the labels' names."""
    encoder = bundle.model.encoder
    for name, head in bundle.model.heads.items():
        if isinstance(head, Head) and isinstance(head.linear, LabelEmbeddings):
            names = bundle.encoding.labels[name].values
            text_VE = encoder.encode_all(encoder.tokenize(names))[:, : encoder.width]
            for linear in (head.linear, head.new):
                if isinstance(linear, LabelEmbeddings):
                    linear.start_from(text_VE)


def save_model(
    folder: Path,
    bundle: Bundle,
    dataset: Dataset,
    catalogue: Catalogue,
    training: dict[str, Any],
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write a model folder, complete or not at all.

    Args:
        folder: where.
        bundle: the model.
        dataset: whose memory goes with it.
        catalogue: its text vectors.
        training: a summary for people.
        weights: the model's weights where it does not hold them whole itself.
    """
    with replacing_folder(folder) as temporary:
        (temporary / "scenario.json").write_text(json.dumps(bundle.scenario.as_dict()), encoding="utf-8")
        (temporary / "training.json").write_text(json.dumps(training), encoding="utf-8")
        bundle.encoding.write(temporary / "encoding.json")
        weights = bundle.model.state_dict() if weights is None else weights
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in weights.items()},
            temporary / "model.safetensors",
        )
        save_encoder(bundle.model.encoder, temporary / "encoder")
        save_memory(temporary, dataset, catalogue, bundle.scenario.model.history)


def save_memory(folder: Path, dataset: Dataset, catalogue: Catalogue, length: int) -> None:
    """Write what a model remembers into its folder: text vectors, users, items, `length` recent interactions."""
    save_file({"text": catalogue.text_NE.cpu().half().contiguous()}, folder / "vectors.safetensors")
    memory = folder / "memory"
    memory.mkdir()
    dataset.users.write_parquet(memory / "users.parquet")
    dataset.items.write_parquet(memory / "items.parquet")
    from_end = np.flatnonzero(np.r_[dataset.user[1:] != dataset.user[:-1], True])
    last = from_end[np.searchsorted(from_end, np.arange(len(dataset.user)))]
    recent = pl.Series(np.arange(len(dataset.user)) > last - length)
    newest = pl.int_range(pl.len()).over("user_id", "item_id") == pl.len().over("user_id", "item_id") - 1
    dataset.interactions.filter(recent | newest).write_parquet(memory / "interactions.parquet")


def load_model(folder: Path) -> Bundle:
    """Load a model folder or that of an ensemble; nothing but the folder is needed.

    Raises:
        ModelError: a file is missing or does not fit the others.
    """
    if (folder / "ensemble.json").is_file():
        from mtrec.models.ensemble_store import load_ensemble

        return load_ensemble(folder)
    for name in ("scenario.json", "encoding.json", "model.safetensors", "encoder/config.json"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: not a model folder, {name} is missing")
    with reading(folder / "scenario.json"):
        raw = json.loads((folder / "scenario.json").read_text(encoding="utf-8"))
        raw["model"].setdefault("label_attention", 0)  # models that were saved before it was there have none
        scenario = parse_scenario(raw, str(folder / "scenario.json"))
    with reading(folder / "encoding.json"):
        encoding = Encoding.read(folder / "encoding.json")
    with reading(folder / "encoder"):
        encoder = load_saved_encoder(folder / "encoder", scenario.model.encoder)
    device = choose_device("auto" if scenario.training.device == "cuda" else scenario.training.device)
    encoder.precision = choose_precision(scenario.training.precision, device)
    model = Recommender(scenario, encoding, encoder)
    with reading(folder / "model.safetensors", "the weights do not fit the model"):
        model.load_state_dict(load_file(folder / "model.safetensors"))
    return Bundle(model=model.to(device).eval(), encoding=encoding, scenario=scenario)


def load_memory(folder: Path, bundle: Bundle) -> tuple[Dataset, Catalogue]:
    """The users, items and interactions that a model folder remembers, with its text vectors.

    Raises:
        ModelError: a table or the vectors are missing or damaged, or do not fit each other.
    """
    with reading(folder / "memory"):
        dataset = Dataset.read(folder / "memory")
    with reading(folder / "vectors.safetensors"):
        vectors = load_file(folder / "vectors.safetensors")["text"].float()
    if len(vectors) != dataset.items.height:
        raise ModelError(f"{folder}: {len(vectors)} text vectors for {dataset.items.height} items")
    catalogue = Catalogue(
        features=bundle.view(dataset).items, tokens=[[] for _ in vectors], text_NE=vectors.to(bundle.device)
    )
    return dataset, catalogue


@contextmanager
def reading(path: Path, trouble: str = "not readable") -> Iterator[None]:
    """Turn whatever a reader raises into one line about the part of the model folder that it reads."""
    try:
        yield
    except InputError as error:
        raise ModelError(str(error)) from error
    except Exception as error:  # json, transformers, safetensors and torch each raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: {trouble} ({reason})") from error
