"""What fine-tuning starts from: the pretrained encoder, perhaps pretrained further, a student, or the champion."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.config import Scenario
from mtrec.errors import ConfigError, ModelError
from mtrec.progress import report
from mtrec.stages.parents import Parent

if TYPE_CHECKING:
    from mtrec.data.dataset import Dataset, Encoding
    from mtrec.models.encoder import TextEncoder
    from mtrec.models.inputs import View
    from mtrec.models.recommender import Catalogue
    from mtrec.models.store import Bundle
    from mtrec.training.distil import Guide
    from mtrec.training.distributed import Processes
    from mtrec.training.loop import Progress, Validate


log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Start:
    """A model before fine-tuning."""

    bundle: Bundle
    view: View
    catalogue: Catalogue
    lines: list[dict[str, Any]] = field(default_factory=list)
    """What was learned before the tasks, for losses.jsonl."""
    guide: Guide | None = None
    teacher_text: Catalogue | None = None
    started_from: dict[str, str] | None = None
    """Of a warm start: champion (`name/version`) and digest (sha256 of its weights)."""


def start_for(
    dataset: Dataset,
    encoding: Encoding,
    scenario: Scenario,
    *,
    teacher: Parent | None = None,
    champion: Parent | None = None,
    text_cache: Path | None = None,
    resumes: bool = False,
    processes: Processes | None = None,
) -> Start:
    """Build the model that fine-tuning starts from.

    Args:
        dataset: what preprocess made.
        encoding: its encoding.
        scenario: model, tasks, pretraining and distillation.
        teacher: from `mtrec.stages.parents.find_teacher`.
        champion: from `mtrec.stages.parents.find_champion`; None: the model starts from the pretrained encoder.
        text_cache: see `mtrec.models.store.new_model`.
        resumes: a checkpoint will replace the weights, so that nothing is learned here.
        processes: those that train together; the first one pretrains for all.

    Raises:
        ConfigError: a student without a teacher or in several processes, or an encoder that cannot be pretrained.
        ModelError: the encoder cannot be loaded or cut, or the champion is built otherwise than the scenario says.
    """
    import torch

    from mtrec.models.copying import copy_towers
    from mtrec.models.encoder import transformer_layers
    from mtrec.models.store import new_model
    from mtrec.models.student import cut_encoder
    from mtrec.training.distributed import Processes

    processes = processes or Processes()
    if scenario.distillation.layers and processes.size > 1:
        raise ConfigError("distillation.layers: a student is trained in one process; start it without torchrun")
    if scenario.distillation.layers and teacher is None:
        raise ConfigError(
            "distillation.layers: a search trains without a teacher; set it to 0, and distil with what is found"
        )
    if teacher is not None:
        return _student(dataset, encoding, scenario, teacher, text_cache, resumes)
    encoder: TextEncoder | None = None
    lines: list[dict[str, Any]] = []
    if scenario.pretraining.epochs and not resumes:
        encoder, lines = _pretrained(dataset, scenario, processes)
    if champion is not None:
        torch.manual_seed(scenario.training.seed)  # new adapters are drawn
        theirs = champion.bundle.model.encoder
        encoder = cut_encoder(theirs, len(transformer_layers(theirs.backbone)), scenario.model.encoder)
    if processes.leads:
        report("fine_tune", 0.0, "encoding the item texts")
    bundle, view, catalogue = new_model(
        dataset, encoding, scenario, text_cache=text_cache, encoder=encoder, spread=processes.spread
    )
    start = Start(bundle=bundle, view=view, catalogue=catalogue, lines=lines)
    if champion is not None:
        if not copy_towers(champion.bundle, bundle):
            raise ModelError(
                f"training.start: {champion.name} has other tasks, features or sizes than the scenario; set them "
                "alike, or set training.start to pretrained"
            )
        catalogue.text_NE = bundle.model.encoder.encode_all(catalogue.tokens)  # what scores labels was copied too
        start.started_from = {"champion": champion.name, "digest": champion.digest}
    return start


def _pretrained(
    dataset: Dataset, scenario: Scenario, processes: Processes
) -> tuple[TextEncoder, list[dict[str, Any]]]:
    import torch

    from mtrec.models.encoder import choose_device, choose_precision, load_encoder
    from mtrec.training.pretrain import pretrain

    device = choose_device(scenario.training.device)
    torch.manual_seed(scenario.training.seed)
    encoder = load_encoder(scenario.model.encoder).to(device)
    encoder.precision = choose_precision(scenario.training.precision, device)
    lines: list[dict[str, Any]] = []
    if processes.leads:
        lines = pretrain(
            encoder,
            dataset.items["text"].to_list(),
            scenario.pretraining,
            seed=scenario.training.seed,
            watch=lambda share: report("fine_tune", 0.0, f"pretraining on the item texts, {share:.0%}"),
        )
    processes.start_alike(encoder)
    return encoder, lines


def _student(
    dataset: Dataset,
    encoding: Encoding,
    scenario: Scenario,
    teacher: Parent,
    text_cache: Path | None,
    resumes: bool,
) -> Start:
    from mtrec.data.text import fill_template
    from mtrec.models.copying import copy_towers
    from mtrec.models.encoder import choose_device, choose_precision
    from mtrec.models.store import new_model
    from mtrec.models.student import cut_encoder
    from mtrec.training.distil import Guide, match_vectors

    settings, device = scenario.distillation, choose_device(scenario.training.device)
    master = teacher.bundle.model.to(device).eval().requires_grad_(False)
    master.encoder.precision = choose_precision(scenario.training.precision, device)
    report("fine_tune", 0.0, "encoding the item texts with the teacher")
    texts = fill_template(dataset.items, teacher.bundle.scenario.items.text).to_list()
    theirs = master.catalogue(texts, teacher.bundle.view(dataset, replace(encoding, labels={})).items)
    encoder = cut_encoder(master.encoder, settings.layers, scenario.model.encoder)
    encoder.texts_at_once = scenario.training.texts_at_once
    lines: list[dict[str, Any]] = []
    if not resumes:
        lines = match_vectors(
            encoder,
            encoder.tokenize(dataset.items["text"].to_list()),
            theirs.text_NE[:, : master.encoder.width],
            settings,
            seed=scenario.training.seed,
            watch=lambda share: report("fine_tune", 0.0, f"matching the teacher's text vectors, {share:.0%}"),
        )
    bundle, view, catalogue = new_model(dataset, encoding, scenario, text_cache=text_cache, encoder=encoder)
    copied = copy_towers(teacher.bundle, bundle)
    if not copied:
        log.warning("the student's towers and heads start anew: its tasks, features or sizes are not the teacher's")
    elif bundle.model.looked_for:  # what scores labels was copied too
        catalogue.text_NE = bundle.model.encoder.encode_all(catalogue.tokens)
    guide = Guide(teacher.bundle, dataset, theirs.text_NE, bundle, settings, same_space=copied)
    return Start(bundle=bundle, view=view, catalogue=catalogue, lines=lines, guide=guide, teacher_text=theirs)


def about_student(teacher: Parent, start: Start, end: Progress, validate: Validate) -> dict[str, Any]:
    """What people are told of a student beside its metrics.

    Args:
        teacher: its teacher.
        start: what it started from.
        end: how its training went.
        validate: gives the skills of a model on the validation part.

    Returns:
        teacher and digest (its name and hash), `layers`, `parameters` and `skills` of both ({teacher, student};
        skills by task, empty where the two read the data through different encodings), `text_distance` (1 − cosine
        from the teacher's vectors, before and after they were matched) and what `encoding_speed` gives.
    """
    from mtrec.models.encoder import transformer_layers
    from mtrec.models.encoding_speed import encoder_parameters, encoding_speed

    both = {"teacher": teacher.bundle.model, "student": start.bundle.model}
    theirs: dict[str, float] = {}
    same_tasks = teacher.bundle.scenario.tasks == start.bundle.scenario.tasks
    if same_tasks and teacher.bundle.encoding == start.bundle.encoding and start.teacher_text is not None:
        theirs = validate(both["teacher"], teacher.bundle.view(start.view.dataset), start.teacher_text)
    matched = [line["loss"] for line in end.lines if line["kind"] == "match"]
    return {
        "teacher": teacher.name,
        "digest": teacher.digest,
        "layers": {name: len(transformer_layers(model.encoder.backbone)) for name, model in both.items()},
        "parameters": {name: encoder_parameters(model.encoder) for name, model in both.items()},
        "skills": {name: {"teacher": skill, "student": end.best_skills[name]} for name, skill in theirs.items()},
        "text_distance": [matched[0], matched[-1]] if matched else None,
        **encoding_speed(
            {name: model.encoder for name, model in both.items()}, start.view.dataset.items["text"].to_list()
        ),
    }
