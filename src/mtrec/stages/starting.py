"""What fine-tuning starts from: the scenario's encoder, pretrained further if asked, or a teacher's student."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.config import Scenario
from mtrec.errors import ConfigError, ModelError
from mtrec.progress import report

if TYPE_CHECKING:
    from mtrec.data.dataset import Dataset, Encoding
    from mtrec.models.encoder import TextEncoder
    from mtrec.models.inputs import View
    from mtrec.models.recommender import Catalogue
    from mtrec.models.store import Bundle
    from mtrec.training.distil import Guide
    from mtrec.training.distributed import Processes
    from mtrec.training.loop import Progress, Validate


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A finished model that a student learns from."""

    name: str
    """For people: a champion with its version, or a folder."""
    bundle: Bundle
    digest: str
    """sha256 of its weights."""


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


def no_champion(scenario: str) -> str:
    """What to say where a student's teacher should be the champion and there is none."""
    return (
        f"distillation.teacher: scenario {scenario} has no champion yet. Train one first with "
        "distillation.layers=0, or give the folder of a trained model"
    )


def find_teacher(scenario: Scenario, tracking_uri: str | None = None) -> Teacher | None:
    """Load the teacher that a scenario names.

    Args:
        scenario: `distillation` says whether there is to be one.
        tracking_uri: MLflow, asked only for the champion.

    Returns:
        None where the scenario asks for no student.

    Raises:
        ModelError: there is no champion, or the folder is not a whole model, or one of another encoder.
        RunError: MLflow cannot be used, or the champion's files are gone.
    """
    settings = scenario.distillation
    if not settings.layers:
        return None
    if settings.teacher != "champion":
        return _load(Path(settings.teacher), settings.teacher, scenario)
    from mtrec import tracking

    report("fine_tune", 0.0, "fetching the champion")
    with tempfile.TemporaryDirectory() as folder:
        found = tracking.download_champion(scenario.name, Path(folder) / "champion", tracking_uri)
        if found is None:
            raise ModelError(no_champion(scenario.name))
        return _load(found.folder, f"{found.name} version {found.version}", scenario)


def _load(folder: Path, name: str, scenario: Scenario) -> Teacher:
    from mtrec.models.store import load_model

    bundle = load_model(folder)
    if len(bundle.model.each()) > 1:
        raise ModelError(f"distillation.teacher: {name} is an ensemble; give the folder of one of its members")
    theirs, ours = bundle.scenario.model.encoder.name, scenario.model.encoder.name
    if theirs != ours:
        raise ModelError(
            f"distillation.teacher: the encoder of {name} is '{theirs}', from which the student's is cut, but the "
            f"scenario names '{ours}'; set model.encoder.name to it"
        )
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Teacher(name=name, bundle=bundle, digest=digest)


def start_for(
    dataset: Dataset,
    encoding: Encoding,
    scenario: Scenario,
    *,
    teacher: Teacher | None = None,
    text_cache: Path | None = None,
    resumes: bool = False,
    processes: Processes | None = None,
) -> Start:
    """Build the model that fine-tuning starts from.

    Args:
        dataset: what preprocess made.
        encoding: its encoding.
        scenario: model, tasks, pretraining and distillation.
        teacher: from `find_teacher`.
        text_cache: see `mtrec.models.store.new_model`.
        resumes: a checkpoint will replace the weights, so that nothing is learned here.
        processes: those that train together; the first one pretrains for all.

    Raises:
        ConfigError: a student without a teacher or in several processes, or an encoder that cannot be pretrained.
        ModelError: the encoder cannot be loaded or cut.
    """
    from mtrec.models.store import new_model
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
    if processes.leads:
        report("fine_tune", 0.0, "encoding the item texts")
    bundle, view, catalogue = new_model(
        dataset, encoding, scenario, text_cache=text_cache, encoder=encoder, spread=processes.spread
    )
    return Start(bundle=bundle, view=view, catalogue=catalogue, lines=lines)


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
    teacher: Teacher,
    text_cache: Path | None,
    resumes: bool,
) -> Start:
    from mtrec.data.text import fill_template
    from mtrec.models.encoder import choose_device, choose_precision
    from mtrec.models.store import new_model
    from mtrec.models.student import copy_towers, cut_encoder
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
    if copied and bundle.model.looked_for:  # what scores labels was copied too
        catalogue.text_NE = bundle.model.encoder.encode_all(catalogue.tokens)
    guide = Guide(teacher.bundle, dataset, theirs.text_NE, bundle, settings, same_space=copied)
    return Start(bundle=bundle, view=view, catalogue=catalogue, lines=lines, guide=guide, teacher_text=theirs)


def about_student(teacher: Teacher, start: Start, end: Progress, validate: Validate) -> dict[str, Any]:
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
