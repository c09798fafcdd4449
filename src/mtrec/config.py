"""Scenarios: typed, frozen, checked on load.

A scenario is one YAML file that says where data comes from, which columns become text, features and labels,
which tasks are learned, how the data is split, and what the gate asks. `load_scenario` reads it, applies
overrides, and raises one `ConfigError` that lists every wrong key.

Label columns are written with their table: `items.category`, `users.segment`, `interactions.rating`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mtrec.errors import ConfigError

_PACKAGED_SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"

On = Literal["item", "user", "pair"]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What every random generator in use takes."""
Table = Literal["users", "items", "interactions"]


class Frozen(BaseModel):
    """A configuration object: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)


Settings = TypeVar("Settings", bound=Frozen)


# ------------------------------------------------------------------------------------------------- data


class TableMapping(Frozen):
    """How one file becomes one contract table (source type `tables`)."""

    file: str
    """Name of the file in the data folder, with or without its `.gz`."""
    columns: dict[str, str]
    """contract column → column in the file."""
    constants: dict[str, str] = {}
    """contract column → a fixed value, for example event: purchase."""
    where: list[str] = []
    """Row filters as SQL conditions over the file's columns, e.g. "Quantity > 0"; all must hold."""
    distinct: bool = False
    """Keep one row per key (the first), for tables read out of a transaction log."""
    lists: dict[str, str] = {}
    """contract column → separator, for columns that hold several values in one cell."""
    times: dict[str, str] = {}
    """contract column → format of its text times, e.g. timestamp: "%d.%m.%Y %H:%M"; ISO text needs none."""


class Source(Frozen):
    """Where the raw data comes from. `auto` recognises the known layouts by their files."""

    type: Literal["auto", "simulated", "movielens", "movietweetings", "amazon", "tables"] = "auto"
    """`tables` maps your own files, `simulated` makes data; the others are the layouts of public data sets."""
    options: dict[str, Any] = {}
    """Settings of the source itself, e.g. the dials of the simulator."""
    users: TableMapping | None = None
    """Type `tables` only. Without it the users are those of the interactions."""
    items: TableMapping | None = None
    """Type `tables` only, and needed there."""
    interactions: TableMapping | None = None
    """Type `tables` only, and needed there."""

    @model_validator(mode="after")
    def _tables_are_mapped(self) -> Source:
        if self.type == "tables" and (self.items is None or self.interactions is None):
            raise ValueError("type 'tables' needs 'items' and 'interactions' mappings")
        if self.options and self.type != "simulated":
            raise ValueError(
                f"options {', '.join(self.options)} have no effect: only type 'simulated' takes options, "
                f"this is '{self.type}'"
            )
        return self


class Expectation(Frozen):
    """One Great Expectations expectation on one table."""

    table: Table
    """The contract table that it is about."""
    type: str
    """Name in Great Expectations, snake case: expect_column_values_to_be_between."""
    severity: Literal["critical", "warning"] = "critical"
    """critical: the run stops when it does not hold; warning: the run goes on and says so."""
    quarantine: bool = False
    """Move the rows that break it into quarantine before severity is judged."""
    arguments: dict[str, Any] = {}
    """What Great Expectations takes, e.g. {column: price, min_value: 0}."""


class Validation(Frozen):
    """What the data must satisfy before anything is learned from it."""

    expectations: list[Expectation] = []
    """Checks beyond the contract's own rules."""
    max_quarantined: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Largest share of a table's rows that may be quarantined before the run stops."""
    min_rows: dict[Table, int] = {"users": 2, "items": 2, "interactions": 20}
    """Fewest rows per table; with fewer the run stops."""


class Columns(Frozen):
    """Which columns of a table are features, by kind."""

    numeric: list[str] = []
    """Columns of numbers."""
    categorical: list[str] = []
    """Columns of one value out of several, e.g. brand."""
    multi: list[str] = []
    """Columns that hold a list of values, e.g. genres."""

    @property
    def names(self) -> list[str]:
        """All feature columns, in order."""
        return [*self.numeric, *self.categorical, *self.multi]


class Items(Columns):
    """Item columns: the text template and the features."""

    text: str = "{title}"
    """Template filled per item; a missing value becomes nothing."""

    @field_validator("text")
    @classmethod
    def _text_is_a_template(cls, text: str) -> str:
        try:
            list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"{error}; write columns as {{title}}, and {{{{ for a brace") from error
        return text

    @property
    def text_fields(self) -> list[str]:
        """Columns named in the template."""
        return [name for _, name, _, _ in string.Formatter().parse(self.text) if name]


class Split(Frozen):
    """How interactions are divided into training, validation and test.

    - time: the last `test` share of rows by time is the test part, the `valid` share before it validates;
    - random: rows by a hash of user, item, event, time and `seed`, so that a row keeps its part in later data and
      the shares hold on average (history of a pair is then every other training row of its user);
    - leave_last_out: per user the test part begins where the last new item appears, the validation part where the
      new item before that one appears;
    - cold_items: items by a hash of their id and `seed`, with all interactions on them, so that the test part asks
      about items that nobody took in training (history of a pair is then every training row of its user).
    """

    by: Literal["time", "random", "leave_last_out", "cold_items"] = "time"
    """How rows are drawn; see above."""
    valid: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of rows (cold_items: of items) that validate; no effect on leave_last_out."""
    test: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of rows (cold_items: of items) that test; no effect on leave_last_out."""
    seed: Seed = 0
    """Another seed draws other rows (random) and other items and users (cold_items, and item and user labels)."""


# ------------------------------------------------------------------------------------------------- tasks


class TaskBase(Frozen):
    """What every task has: its place, its label and its weight α in the joint loss."""

    on: On
    """What the task is about: an item, a user, or a pair of user and item (an interaction)."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """The task's weight in the joint loss."""
    label: str | None = None
    """Label column as table.column: items.… on items, users.… or items.… on users, interactions.… on pairs."""
    horizon: Annotated[int, Field(ge=1)] = 10
    """User tasks with an item label: the user's next `horizon` interactions define the target."""

    @field_validator("label")
    @classmethod
    def _label_names_its_table(cls, label: str | None) -> str | None:
        if label is not None:
            table, _, column = label.partition(".")
            if table not in ("users", "items", "interactions") or not column:
                raise ValueError(f"'{label}' must be written table.column, e.g. items.category")
        return label

    @model_validator(mode="after")
    def _label_fits_its_place(self) -> TaskBase:
        allowed = {"item": ("items",), "user": ("users", "items"), "pair": ("interactions",)}[self.on]
        if self.label is not None and self.label.partition(".")[0] not in allowed:
            raise ValueError(f"on: {self.on} takes a label from {' or '.join(allowed)}, not '{self.label}'")
        return self

    @property
    def label_column(self) -> str:
        """The label's column without its table."""
        return (self.label or "").partition(".")[2]

    @property
    def label_table(self) -> str:
        """The label's table."""
        return (self.label or "").partition(".")[0]


class Regression(TaskBase):
    """A real number, e.g. a rating. Loss: mean squared error."""

    type: Literal["regression"]
    label: str


class Binary(TaskBase):
    """Yes or no. Loss: binary cross-entropy.

    Either `label` (with `threshold` when it is a number: yes from there up) or, on pairs, `positive` events:
    among rows whose event is in `exposure`, yes when the same user has a positive event on the item later, in the
    same part. This needs split.by: time, where what follows an exposure is in its part or in a later one.
    """

    type: Literal["binary"]
    threshold: float | None = None
    """A numeric label counts as yes from here up."""
    exposure: list[str] = []
    """Events that are examples, e.g. [view]."""
    positive: list[str] = []
    """Events that make an example a yes when they follow, e.g. [purchase]."""
    after: str | None = None
    """A binary task over the same exposures that must be a yes first, as a cart comes before a purchase.

    This task then learns P(yes | yes there) and answers with the product, over all exposures (ESMM).
    """

    @model_validator(mode="after")
    def _one_kind_of_label(self) -> Binary:
        if (self.label is None) == (not self.positive):
            raise ValueError("give either 'label' or 'positive' events")
        if self.positive and not self.exposure:
            raise ValueError("'positive' events need 'exposure' events, e.g. exposure: [view]")
        if self.positive and self.on != "pair":
            raise ValueError("'positive' events describe pairs: set on: pair")
        return self


class Classification(TaskBase):
    """One of several classes. Loss: cross-entropy over softmax."""

    type: Literal["classification"]
    label: str


class MultiLabel(TaskBase):
    """Any number of labels out of many. Loss: binary cross-entropy over sigmoid."""

    type: Literal["multilabel"]
    label: str
    min_count: Annotated[int, Field(ge=1)] = 5
    """Labels that fewer training items carry are left out."""
    strategy: Literal["independent", "label_embeddings"] = "independent"
    """independent: a linear output per label (binary relevance); label_embeddings: labels are vectors that start
    from the text of their names, scored by one map that all labels share.
    """
    thresholds: Literal["fixed", "per_label"] = "per_label"
    """From which probability a label is given: one half, or a share per label with the best F1 on the validation
    part.
    """


class Profile(TaskBase):
    """A user's preference distribution over an item column, matched by cosine.

    Loss: mean of max(0, cos_gt − c) / cos_gt with c the cosine between prediction and target.
    """

    type: Literal["profile"]
    on: Literal["user"] = "user"
    label: str
    cos_gt: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The cosine at which the loss is zero."""


class NextItem(TaskBase):
    """Rank the item that the user takes next. Loss: softmax over items (sampled beyond `full_softmax`)."""

    type: Literal["next_item"]
    on: Literal["user"] = "user"
    events: list[str] = []
    """Events that count as taking an item; empty means all."""
    full_softmax: int = 20_000
    """Catalogues up to this size use every item as a negative."""
    num_negatives: Annotated[int, Field(ge=1)] = 2_000
    """Items that a larger catalogue's loss draws per step."""

    @model_validator(mode="after")
    def _no_label(self) -> NextItem:
        if self.label is not None:
            raise ValueError("next_item takes no label: the next item is the label")
        return self


Task = Annotated[
    Regression | Binary | Classification | MultiLabel | Profile | NextItem, Field(discriminator="type")
]


# ------------------------------------------------------------------------------------------------- model


class Lora(Frozen):
    """Low-rank adapters for decoder encoders (Hu et al. 2021, arXiv:2106.09685)."""

    rank: Annotated[int, Field(ge=1)] = 8
    """Rank of the adapters."""
    alpha: Annotated[int, Field(ge=1)] = 16
    """Their scale is alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters."""
    modules: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get adapters."""


class Encoder(Frozen):
    """The shared language model over text."""

    name: str = "minilm"
    """`minilm` (bundled), a local folder, or a hub id."""
    revision: str | None = None
    """Hub revision; a commit hash makes a run reproducible."""
    pooling: Literal["auto", "mean", "last"] = "auto"
    """auto: mean for bidirectional encoders, last token for decoders."""
    max_length: Annotated[int, Field(ge=4, le=8192)] = 128
    """Longest text in tokens; the rest is cut off."""
    train_layers: Annotated[int, Field(ge=0)] = 2
    """How many of the top layers are fine-tuned; the rest stay frozen."""
    lora: Lora | None = None
    """Adapters in place of fine-tuned layers; none without it."""


class Model(Frozen):
    """Sizes of the shared model."""

    encoder: Encoder = Encoder()
    """The language model that reads item texts."""
    sharing: Literal["shared_bottom", "mmoe", "ple"] = "shared_bottom"
    """How tasks share what they learn."""
    experts: Annotated[int, Field(ge=1)] = 4
    """Experts that all tasks of a place share (mmoe, ple)."""
    private_experts: Annotated[int, Field(ge=1)] = 1
    """Experts of each task alone (ple)."""
    levels: Annotated[int, Field(ge=1)] = 1
    """Stacked extraction levels (ple); 1 is customized gate control."""
    width: Annotated[int, Field(ge=4)] = 64
    """Size of the item and user vectors; a multiple of `user_heads`."""
    history: Annotated[int, Field(ge=1)] = 50
    """How many of a user's most recent interactions the user representation reads."""
    user_layers: Annotated[int, Field(ge=0)] = 1
    """Transformer layers over the history."""
    user_heads: Annotated[int, Field(ge=1)] = 2
    """Attention heads of these layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout outside the encoder."""
    label_attention: Annotated[int, Field(ge=0)] = 256
    """Item tasks with at most this many labels look for each of them in the text by itself
    (`mtrec.models.label_attention`); 0: none does. Nothing is looked for where the encoder does not learn.
    """
    item_ids: bool = True
    """Learn something of each item beyond its text and features."""
    user_ids: bool = True
    """Learn something of each user beyond history and attributes."""
    id_start: Literal["random", "svd", "nmf"] = "random"
    """What items' ids begin with: small random numbers, or factors of who took what in training, by singular value
    decomposition or non-negative factorisation (`mtrec.models.id_start`); only with `item_ids`.
    """
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of ids hidden per step, so that the model can do without for new ones."""
    neighbours: Annotated[int, Field(ge=0)] = 100
    """Similar items that ranking looks up for each recent one, by who took both; 0: none. Only for next-item tasks
    within `full_softmax`, and only with `item_ids`.
    """
    posterior_factors: Annotated[int, Field(ge=0)] = 16
    """Factors of users and items, with their uncertainty, that regression on pairs starts from in closed form
    (`mtrec.models.posterior`). A user's follow from the history at once. 0, or without `item_ids`: none, they are
    learned with the rest.
    """
    id_shrinkage: Annotated[float, Field(ge=0)] = 20.0
    """Training interactions at which what was learned of a user's id counts half; 0 trusts every id in full."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Model:
        if self.width % self.user_heads:
            raise ValueError(f"width {self.width} is not divisible by user_heads {self.user_heads}")
        return self

    @model_validator(mode="after")
    def _only_ids_have_a_start(self) -> Model:
        if self.id_start != "random" and not self.item_ids:
            raise ValueError(f"id_start: {self.id_start} has no effect without item_ids; set item_ids: true")
        return self


class Training(Frozen):
    """The optimiser and the loop."""

    start: Literal["pretrained", "champion"] = "pretrained"
    """What fine-tuning starts from. champion: the weights of the scenario's champion, with rows of tables by id,
    category and label value; what it never met starts as in a new model. Without a champion: as pretrained.
    """
    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the training users, at most; see `patience`."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """User sequences per step; see `accumulate`."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches per step: their mean gradient makes one update, with the memory of one batch. What is left at the end
    of an epoch makes a step, too.
    """
    texts_per_step: Annotated[int, Field(ge=0)] = 32
    """Distinct item texts encoded with gradient per batch; the others use slightly stale vectors."""
    texts_at_once: Annotated[int, Field(ge=0)] = 0
    """Bound on memory: a step holds the encoder's activations of at most so many of these texts at a time, and
    computes them a second time for the gradients. 0: of all, once.
    """
    refresh_epochs: Annotated[int, Field(ge=1)] = 4
    """Every so many epochs the whole catalogue is encoded anew, and always at the end."""
    cache_mb: Annotated[int, Field(ge=0)] = 2048
    """Room for what the encoder's frozen layers give for each text, so that they run once per text: megabytes of
    memory, or of the folder where one is given. Texts beyond it run through all layers; 0: all do.
    """
    lr_encoder: Annotated[float, Field(gt=0)] = 2e-5
    """Learning rate of the encoder's top layer."""
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Learning rate of everything outside the encoder and the id tables."""
    lr_ids: Annotated[float, Field(gt=0)] = 2e-3
    """Learning rate of embeddings (ids, biases, categories): a row is met far less often than a matrix."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of matrices."""
    weight_decay_ids: Annotated[float, Field(ge=0)] = 0.1
    """Weight decay of embeddings (ids, categories), by which a rarely seen id falls back to zero.

    Biases do not decay: they start shrunken.
    """
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The encoder's learning rate shrinks by this factor per layer below the top."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all steps over which the learning rate rises from zero."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients longer than this are shortened to it."""
    balancing: Literal[
        "static", "log_sum", "uncertainty", "geometric_mean", "imtl_l", "stch", "dwa", "random", "famo",
        "gradnorm", "pcgrad", "cagrad", "mgda", "upgrad", "dualproj", "nash_mtl", "imtl_g", "aligned_mtl",
        "gradvac", "graddrop", "config", "fairgrad",
    ] = "static"  # fmt: skip
    """How the tasks' losses become one update; see `mtrec.balancing.methods`. All start from α times the loss."""
    balancing_options: dict[str, float] = {}
    """Settings of the method, such as `c` of cagrad."""
    compare_every: Annotated[int, Field(ge=0)] = 10
    """Steps between two comparisons of the tasks' gradients, which the report draws; 0: never."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Epochs without a better validation score before training stops."""
    r_drop: Annotated[float, Field(ge=0)] = 0.0
    """Every step takes a second pass with other dropout and this much of the distance between the two answers is
    added to each task's loss (R-Drop); about twice the time. 0: off.
    """
    adversarial: Annotated[float, Field(ge=0)] = 0.0
    """How far text vectors (of length 1) are moved to where the tasks' loss grows, for a second pass to learn from
    (fast gradient method). 0: off.
    """
    text_augmentation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of words dropped from, or swapped in, half of the texts that a step encodes. 0: off."""
    calibrate: bool = True
    """After training, fit one temperature per task on the validation part, so that its probabilities can be
    believed (yes-no, classification and multi-label tasks); rankings and chosen classes stay as they are.
    """
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the processor multiplies in it, fp32 elsewhere."""
    compile: bool = False
    """Run the encoder's layers that learn as `torch.compile` makes them, after some minutes of compiling: for long
    runs. Needs a C++ compiler, on a GPU triton; not with `parallel: fsdp`.
    """
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU when there is one."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Of several processes (torchrun). ddp: each holds the whole model; fsdp: they split the encoder's weights,
    which may then be larger than one GPU has room for, and run all its layers at every step.
    """
    seed: Seed = 0
    """Seed of all that is drawn in training."""

    @model_validator(mode="after")
    def _whole_layers_are_compiled(self) -> Training:
        if self.compile and self.parallel == "fsdp":
            raise ValueError("compile does not go with parallel: fsdp; set compile to false, or parallel to ddp")
        return self


class Pretraining(Frozen):
    """Masked-language-model training on the item texts before fine-tuning.

    After Gururangan et al. 2020 (arXiv:2004.10964): 15 % of the tokens are asked for, all weights of the encoder
    learn. Decoders cannot take it.
    """

    epochs: Annotated[int, Field(ge=0)] = 0
    """Passes over the texts; 0: none. Where the encoder comes without a masked-language-model head, a new head
    learns alone over one more pass before them.
    """
    lr: Annotated[float, Field(gt=0)] = 5e-5
    """Learning rate of the encoder and, after its own pass, of the head."""


class Distillation(Frozen):
    """A student with fewer encoder layers, taught by a finished model (Hinton et al. 2015, arXiv:1503.02531).

    Its layers are taken from the teacher's at even distances and first learn to give the teacher's text vectors.
    Then all tasks are fine-tuned from the teacher's towers and heads, with the teacher's answers beside the labels.
    """

    layers: Annotated[int, Field(ge=0)] = 0
    """The student's encoder layers; 0: no distillation."""
    teacher: Annotated[str, Field(min_length=1)] = "champion"
    """`champion`, or a model folder."""
    epochs: Annotated[int, Field(ge=0)] = 8
    """Passes over the item texts to match the teacher's vectors, before fine-tuning."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate of these passes."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Softens the classes' and items' probabilities on both sides."""
    logit_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the teacher's answers beside each task's own loss."""
    representation_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the distance from the teacher's text vectors in fine-tuning."""


# ------------------------------------------------------------------------------------------------- gate


class Gate(Frozen):
    """What a candidate must reach."""

    floors: dict[str, float] = {}
    """`task.metric` → the worst value still accepted (a ceiling for metrics where lower is better)."""
    max_regression: Annotated[float, Field(ge=0)] = 0.02
    """Relative loss against the champion that a task's primary metric may show."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of the bootstrap interval; a regression counts only when the interval agrees."""
    must_improve: bool = True
    """No task's primary metric may be worse than before fine-tuning, beyond chance (paired bootstrap interval)."""
    allow_dropped_tasks: bool = False
    """Let a candidate pass that lacks a task which the champion has, or has one that cannot be compared with it."""
    auto_approve: bool = False
    """Make a candidate that passed the champion without a person; the history says so. Not where a person rejected
    it or rolled it back."""


# ------------------------------------------------------------------------------------------------- retraining


class Retraining(Frozen):
    """When new data is reason to train again; see `mtrec.drift.decision`."""

    window_days: Annotated[float, Field(gt=0)] = 7.0
    """Length of a window of new interactions, counted from the last one that the champion knows."""
    reference_windows: Annotated[int, Field(ge=1)] | None = 8
    """So many windows before that interaction are what new ones are compared with; none: all the champion's data.

    With all of it, one lasting change would look like drift long after a model has learned it.
    """
    windows: Annotated[int, Field(ge=1)] = 3
    """How many of the latest windows are looked at (M)."""
    drifted_windows: Annotated[int, Field(ge=1)] = 2
    """In how many of them a statistic must have drifted (N)."""
    false_alarms: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Probability that a window without drift shows any."""
    min_distance: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Jensen-Shannon distance, beyond what chance gives, from which a column's drift matters."""
    max_new_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of interactions with items, or of users, unknown to the champion, beyond what is usual at its age."""
    max_quality_loss: Annotated[float, Field(ge=0, le=1)] = 0.1
    """By what share a task may do worse than on the champion's own test part before it matters."""
    min_rows: Annotated[int, Field(ge=1)] = 1000
    """New interactions without which nothing is trained."""
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    """Train when the champion's data is so old, drift or not; none: never for age alone."""
    cool_down_hours: Annotated[float, Field(ge=0)] = 24.0
    """Rest after an attempt, whether it succeeded or failed."""
    budget: Annotated[int, Field(ge=0)] = 8
    """Attempts within `budget_days` at most."""
    budget_days: Annotated[float, Field(gt=0)] = 30.0
    """Days that the budget is for."""

    @model_validator(mode="after")
    def _some_of_them(self) -> Retraining:
        if self.drifted_windows > self.windows:
            raise ValueError(f"drifted_windows {self.drifted_windows} is more than windows {self.windows}")
        return self


# ------------------------------------------------------------------------------------------------- search

Value = bool | int | float | str | None


class Parameter(Frozen):
    """The values of one setting that a search may try: from `low` to `high`, or one of `choices`.

    A setting that holds a whole number gets whole numbers.
    """

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value, included."""
    log: bool = False
    """Draw on a logarithmic scale, for values that span several powers of ten."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Only `low` plus multiples of it."""
    choices: list[Value] | None = None
    """The values themselves, in place of a range."""

    @field_validator("choices", mode="before")
    @classmethod
    def _numbers(cls, choices: Any) -> Any:
        """YAML reads 1e-3, without a point, as text."""
        number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
        if not isinstance(choices, list):
            return choices
        return [float(c) if isinstance(c, str) and number.fullmatch(c) else c for c in choices]

    @model_validator(mode="after")
    def _one_kind(self) -> Parameter:
        if self.choices is not None:
            if len(set(self.choices)) < max(len(self.choices), 1):  # 1 and true are equal
                raise ValueError("'choices' must name at least one value, each once")
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("give either 'choices' or 'low' and 'high'")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give 'low' and 'high', or 'choices'")
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low >= self.high:
            raise ValueError(f"empty range: low {self.low:g} must be less than high {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("'log' needs a low above 0 and takes no 'step'")
        return self


class Search(Frozen):
    """What `mtrec tune` tries."""

    space: dict[str, Parameter] = {}
    """Dotted setting → its values, e.g. training.lr: {low: 0.0003, high: 0.01, log: true}.

    Settings under model and training, and the weights of tasks, can be searched. A later entry of the same setting
    replaces the earlier one, one with only some keys changes these, and null takes the setting out.
    """
    sampler: Literal["tpe", "grid", "random"] = "tpe"
    """tpe: tree-structured Parzen estimator (Bergstra et al. 2011); grid: every combination once."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """What stops a trial early, by its value after each epoch."""
    trials: Annotated[int, Field(ge=1)] = 20
    """Trials of a study in all; a grid has as many as it has points."""
    seed: int = 0
    """Of the sampler."""

    @field_validator("space", mode="before")
    @classmethod
    def _flat(cls, space: Any) -> Any:
        return _flat_space(space, "", {}) if isinstance(space, Mapping) else space


def _flat_space(space: Mapping[str, Any], prefix: str, flat: dict[str, Any]) -> dict[str, Any]:
    """Parameters by their dotted paths; `--set search.space.training.lr.low=…` makes sections out of a path."""
    for key, value in space.items():
        path = f"{prefix}{key}"
        if value is None:
            flat.pop(path, None)
        elif not isinstance(value, Mapping):
            flat[path] = value
        elif not value or set(value) & set(Parameter.model_fields):
            whole = "choices" in value or {"low", "high"} <= set(value)
            flat[path] = dict(value) if whole else {**flat.get(path, {}), **value}
        else:
            _flat_space(value, f"{path}.", flat)
    return flat


# ------------------------------------------------------------------------------------------------- scenario


class Scenario(Frozen):
    """Everything one recommender needs to know."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    """Name of the experiment and the registered model: small letters, digits and hyphens."""
    description: str = ""
    """One line for the report and the model card."""
    source: Source = Source()
    """Where the raw data comes from."""
    users: Columns = Columns()
    """User columns that are features."""
    items: Items = Items()
    """Item columns that are text and features."""
    events: list[str] = []
    """Allowed values of interactions.event; empty means any."""
    rating_range: tuple[float, float] | None = None
    """Lowest and highest rating; rows outside go to quarantine."""
    validation: Validation = Validation()
    """What the data must satisfy."""
    split: Split = Split()
    """Training, validation and test part."""
    tasks: dict[str, Task]
    """Task name → task, at least one."""
    model: Model = Model()
    """Encoder and sizes."""
    training: Training = Training()
    """Optimiser and loop."""
    pretraining: Pretraining = Pretraining()
    """What the encoder learns from the texts alone, before the tasks."""
    distillation: Distillation = Distillation()
    """A small student of a finished model."""
    gate: Gate = Gate()
    """What a candidate must reach."""
    retraining: Retraining = Retraining()
    """When new data is reason to train again."""
    search: Search = Search()
    """The search of `mtrec tune`."""

    @model_validator(mode="after")
    def _tasks_do_not_leak(self) -> Scenario:
        problems = []
        if not self.tasks:
            problems.append("tasks: declare at least one")
        for name, task in self.tasks.items():
            if not name.isidentifier():
                problems.append(f"tasks.{name}: a task name must be letters, digits and underscores")
            column = task.label_column
            if task.on == "item" and column in self.items.text_fields:
                problems.append(f"tasks.{name}: '{task.label}' is in items.text too and would leak; remove one")
            if task.on == "user" and task.label_table == "users" and column in self.users.names:
                problems.append(f"tasks.{name}: '{task.label}' is a user feature too and would leak; remove one")
            if isinstance(task, Binary) and task.positive and self.split.by != "time":
                problems.append(
                    f"tasks.{name}: 'positive' events need split.by: time, for by {self.split.by} the outcome of "
                    "an exposure can lie in another part or in its history; set split.by to time, or give the task "
                    "a label"
                )
            if isinstance(task, Binary) and task.after:
                problems += [f"tasks.{name}.after: {problem}" for problem in self._wrong_chain(name, task)]
            if self.events:
                used = [
                    *getattr(task, "events", []),
                    *getattr(task, "positive", []),
                    *getattr(task, "exposure", []),
                ]
                for event in used:
                    if event not in self.events:
                        problems.append(f"tasks.{name}: event '{event}' is not one of events {self.events}")
        for key in self.gate.floors:
            if key.partition(".")[0] not in self.tasks:
                problems.append(f"gate.floors.{key}: no task '{key.partition('.')[0]}'")
        if self.pretraining.epochs and self.distillation.layers:
            problems.append(
                "pretraining.epochs: a student (distillation.layers) starts from its teacher's encoder, which "
                "pretraining would change; set one of the two to 0"
            )
        if self.training.start == "champion" and (self.pretraining.epochs or self.distillation.layers):
            key = "pretraining.epochs" if self.pretraining.epochs else "distillation.layers"
            problems.append(
                f"training.start: the champion's encoder is taken as it is, which {key} would change; set {key} "
                "to 0, or training.start to pretrained"
            )
        if self.rating_range and self.rating_range[0] >= self.rating_range[1]:
            problems.append("rating_range: the first number must be the smaller")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _wrong_chain(self, name: str, task: Binary) -> Iterator[str]:
        seen, step = {name}, task.after
        while step is not None:
            first = self.tasks.get(step)
            if not isinstance(first, Binary) or first.on != "pair" or not first.positive:
                yield f"'{step}' is no binary task on pairs with 'positive' events"
                return
            if task.on != "pair" or set(first.exposure) != set(task.exposure):
                yield f"'{step}' has other exposures; both tasks need the same"
                return
            if step in seen:
                yield f"'{step}' would come after itself"
                return
            seen.add(step)
            step = first.after

    def as_dict(self) -> dict[str, Any]:
        """The scenario as plain JSON types; `parse_scenario` turns it back into an equal object."""
        return self.model_dump(mode="json")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides how a model turns out: the scenario as plain JSON types, without what a search would try."""
        return {key: value for key, value in self.as_dict().items() if key != "search"}

    @property
    def digest(self) -> str:
        """sha256 of the settings: the parameters hash in a model's lineage."""
        text = json.dumps(self.settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """YAML with the booleans of 1.2, only true and false, so that the key `on` stays text; and with no key twice.

    PyYAML would let the second silently win.
    """

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:  # as written: what << brings may be overwritten
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    told = f"key '{key.value}' is there twice, first in line {seen[key.value]}"
                    raise yaml.composer.ComposerError(None, None, told, key.start_mark)
                seen[key.value] = key.start_mark.line + 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(text: str) -> Any:
    """Parse YAML where only true and false are booleans; `on`, `off`, `yes` and `no` are text.

    Raises:
        yaml.YAMLError: it is none, or a mapping has a key twice.
    """
    return yaml.load(text, Loader=_Loader)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: the file.
        what: what it should be, for the message: a scenario.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; give the YAML file of {what}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', error)})") from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: {what} is a mapping of keys, found {'nothing' if raw is None else type(raw).__name__}"
        )
    return raw


def scenario_path(name_or_path: str | Path) -> Path:
    """Find a scenario file by path, by name under ./scenarios, or by name among those shipped.

    Raises:
        ConfigError: nothing is there; the message lists the known names.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(f"{path}: no such scenario file")
    for folder in (Path("scenarios"), _PACKAGED_SCENARIOS):
        candidate = folder / f"{name_or_path}.yaml"
        if candidate.is_file():
            return candidate
    known = sorted({p.stem for f in (Path("scenarios"), _PACKAGED_SCENARIOS) for p in f.glob("*.yaml")})
    raise ConfigError(
        f"--scenario {name_or_path}: unknown; choose one of {', '.join(known) or '(none found)'}, "
        "or give the path of a .yaml file"
    )


def load_scenario(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """Read a scenario by name or path.

    Args:
        name_or_path: `ecommerce`, or `path/to/shop.yaml`.
        overrides: dotted settings such as `training.epochs=2`; values are read as YAML.

    Raises:
        ConfigError: no such scenario, broken YAML, or wrong keys (all listed in one message).
    """
    path = scenario_path(name_or_path)
    raw = read_mapping(path, "a scenario")
    for item in overrides:
        _apply_override(raw, item)
    return parse_scenario(raw, where=str(path), overridden=[item.partition("=")[0] for item in overrides])


def parse_scenario(raw: Mapping[str, Any], where: str = "scenario", overridden: Sequence[str] = ()) -> Scenario:
    """Check a scenario given as plain data.

    Args:
        raw: the keys and values.
        where: file or name, for the message.
        overridden: dotted keys whose values came from `--set`; the message blames that instead of `where`.

    Raises:
        ConfigError: one line that lists every wrong key with its place.
    """
    return parse(Scenario, raw, where, overridden)


def parse(kind: type[Settings], raw: Mapping[str, Any], where: str, overridden: Sequence[str] = ()) -> Settings:
    """Check plain data against any configuration; see `parse_scenario`."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explain(error, kind, where, overridden)) from error


_WORDS = {
    "model_type": "a mapping of keys is expected",
    "dict_type": "a mapping of keys is expected",
    "list_type": "a list is expected",
    "string_type": "text is expected",
}
"""For kinds of pydantic's errors whose own words are about Python."""


def _explain(error: ValidationError, kind: type[Frozen], where: str, overridden: Sequence[str]) -> str:
    """One line for every wrong key: first those of the file, then those of `--set`."""
    in_file, in_set = [], []
    for item in error.errors():
        place, known = _place(item["loc"], kind)
        message = _WORDS.get(item["type"], item["msg"].removeprefix("Value error, "))
        if item["type"] == "extra_forbidden":
            message = "unknown key" + _suggestion(place, known)
        elif item["type"] != "missing" and not isinstance(item.get("input"), (dict, list, BaseModel)):
            message += f" (got {item.get('input')!r})"
        line = f"{place}: {message}" if place else message
        exact = f"{place}.type" if item["type"].startswith("union_tag") else place
        below = [key for key in overridden if place and key.startswith(f"{place}.")]
        if any(f"{exact}.".startswith(f"{key}.") for key in overridden) or (below and "unknown key" in message):
            in_set.append(f"--set {line}")
        else:
            in_file.append(f"{line} (with --set {', '.join(below)})" if below else line)
    return "; ".join([f"{where}: {'; '.join(in_file)}", *in_set] if in_file else in_set)


def _place(parts: Sequence[int | str], root: type[BaseModel]) -> tuple[str, list[str]]:
    """A place as it is written in the file, without the types that pydantic adds, and the keys known there."""
    kinds: list[type[BaseModel]] = [root]
    names: list[str] = []
    known: list[str] = []
    for part in parts:
        known = sorted({name for kind in kinds for name in kind.model_fields})
        tagged = [kind for kind in kinds if part in get_args(_annotation(kind, "type"))]
        if len(kinds) > 1 and tagged:
            kinds = tagged
            continue
        names.append(str(part))
        if isinstance(part, str) and names[:-1] not in _NAMED:  # a place in a list or a task's own name is no key
            kinds = [found for kind in kinds for found in _models(_annotation(kind, str(part)))]
    return ".".join(names), known


_NAMED = (["tasks"], ["steps"])
"""Mappings whose keys are names of the user's."""


def _annotation(kind: type[BaseModel], name: str) -> Any:
    field = kind.model_fields.get(name)
    return None if field is None else field.annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type, however deep in unions, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models(inner)]


def _suggestion(place: str, known: Sequence[str]) -> str:
    *parents, last = place.split(".")
    close = difflib.get_close_matches(last, known, n=1)
    return f"; did you mean {'.'.join([*parents, close[0]])}?" if close else ""


def _apply_override(raw: dict[str, Any], item: str) -> None:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {item}: write it as key.sub=value, e.g. training.epochs=2")
    node: Any = raw
    *parents, last = key.split(".")
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"--set {item}: '{part}' is not a section")
    try:
        node[last] = read_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {item}: the value is not valid YAML; put quotes inside quotes around text: '{key}=\"…\"'"
        ) from error
