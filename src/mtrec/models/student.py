"""An encoder made of another one's layers: a student has fewer than its teacher, a warm start all of them."""

from __future__ import annotations

import copy
from typing import Any

from mtrec.config import Encoder
from mtrec.errors import ModelError
from mtrec.models.encoder import TextEncoder, empty_backbone, transformer_layers


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """Numbers of `wanted` out of `total` layers at even distances: the first, and from two on the last."""
    return [round(i * (total - 1) / max(wanted - 1, 1)) for i in range(wanted)]


def cut_encoder(teacher: TextEncoder, layers: int, config: Encoder) -> TextEncoder:
    """An encoder of some of the teacher's layers, with its embeddings and its tokenizer, on its device.

    Which layers: `evenly_spaced` (as DistilBERT starts, arXiv:1910.01108). Adapters are merged into the weights.

    Args:
        teacher: stays as it is.
        layers: the student's layers, at most as many as the teacher has.
        config: what of the student learns, and how it is pooled.

    Raises:
        ModelError: the teacher has fewer layers, or its architecture cannot be cut.
    """
    base: Any = teacher.backbone
    if hasattr(base, "merge_and_unload"):
        base = copy.deepcopy(base).merge_and_unload()
    stack = transformer_layers(base)
    if layers > len(stack):
        raise ModelError(f"distillation.layers: {layers} are asked for, the teacher's encoder has {len(stack)}")
    chosen = evenly_spaced(len(stack), layers)
    prefix = next(f"{name}." for name, module in base.named_modules() if module is stack)
    place = {str(old): new for new, old in enumerate(chosen)}
    weights = {}
    for name, value in base.state_dict().items():
        number, _, rest = name.removeprefix(prefix).partition(".")
        if not name.startswith(prefix):
            weights[name] = value
        elif number in place:
            weights[f"{prefix}{place[number]}.{rest}"] = value
    architecture = copy.deepcopy(base.config)
    architecture.num_hidden_layers = layers
    if getattr(architecture, "layer_types", None):
        architecture.layer_types = [architecture.layer_types[i] for i in chosen]
    try:
        backbone = empty_backbone(architecture)
        backbone.load_state_dict(weights)
    except Exception as error:  # architectures check their configurations in their own ways
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"distillation.layers: an encoder of type {architecture.model_type} cannot be cut to {layers} layers "
            f"({first})"
        ) from error
    student = TextEncoder(backbone, copy.deepcopy(teacher.tokenizer), config).to(next(base.parameters()).device)
    student.precision = teacher.precision
    return student
