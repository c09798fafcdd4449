"""Continued masked-language-model training of the encoder on the item texts, before any task.

After Gururangan et al. 2020 (arXiv:2004.10964): a language model that has read the domain's texts reads them
better. 15 % of the tokens are asked for; of these 80 % are masked, 10 % replaced and 10 % left (Devlin et al. 2019,
arXiv:1810.04805). The head is the one of the encoder's family, its output matrix tied to the input embeddings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtrec.config import Pretraining
from mtrec.errors import ConfigError, ModelError
from mtrec.models.encoder import TextEncoder, base_model
from mtrec.models.text_batches import Tokens, distinct, length_batches
from mtrec.training.loop import learning_rate_factor

HELD_OUT = 0.1
"""Share of the distinct texts on which the loss is measured and nothing is learned."""
TOKENS_PER_STEP = 1024
"""Padded tokens of a step; the logits of each are as many as the vocabulary."""
HEAD_LR = 1e-3
"""Learning rate of a new head while the encoder waits."""


def pretrain(
    encoder: TextEncoder,
    texts: Sequence[str],
    settings: Pretraining,
    *,
    seed: int = 0,
    watch: Callable[[float], None] = lambda share: None,
) -> list[dict[str, Any]]:
    """Train the encoder's weights, all of them but adapters, to fill in masked words.

    A head that the encoder's files do not hold is learned first, over one pass with the encoder as it is, so that
    its random start does not pull at the encoder.

    Args:
        encoder: from `load_encoder`; its weights change, what of it takes gradients does not.
        texts: unlabelled; duplicates count once.
        settings: epochs and learning rate.
        seed: decides which texts are held out, the order of the others, and what is masked.
        watch: called with the share that is done.

    Returns:
        Lines for losses.jsonl, of kind `pretrain`: step, epoch (0: before the encoder learned), loss (mean over the
        epoch, None before the first), held_out (loss on the held-out texts, always under the same masks), seconds.

    Raises:
        ConfigError: the encoder is a decoder, has no masked-language-model head or its tokenizer no mask, or there
            are fewer than two texts.
    """
    clock = time.perf_counter()
    torch.manual_seed(seed)
    model, new_head = _with_head(encoder)
    tokens, _ = distinct(encoder.tokenize(texts))
    if len(tokens) < 2:
        raise ConfigError("pretraining.epochs: it needs at least two different item texts; set it to 0")
    order = np.random.default_rng(seed)
    shuffled = [tokens[i] for i in order.permutation(len(tokens))]
    cut = max(round(len(shuffled) * HELD_OUT), 1)
    passes = _Passes(model, encoder, shuffled[cut:], order, lambda step: watch(step / total))
    held_out = [
        passes.masked([shuffled[i] for i in rows]) for rows in length_batches(shuffled[:cut], TOKENS_PER_STEP)
    ]
    total = (settings.epochs + new_head) * len(passes.batches)
    lines: list[dict[str, Any]] = []

    def note(epoch: int, loss: float | None) -> None:
        held = passes.loss_on(held_out)
        line = {"kind": "pretrain", "step": passes.step, "epoch": epoch, "loss": loss, "held_out": round(held, 5)}
        lines.append(line | {"seconds": round(time.perf_counter() - clock, 2)})

    inside = list(encoder.backbone.named_parameters())
    asked_before = [(p, p.requires_grad) for _, p in inside]
    body = [p for name, p in inside if "lora_" not in name]
    head = [p for p in model.parameters() if id(p) not in {id(p) for _, p in inside}]
    for parameter in body:
        parameter.requires_grad_(False)
    if new_head:
        model.eval()
        list(passes.run(head, HEAD_LR, 1))
    note(0, None)
    for parameter in body:
        parameter.requires_grad_(True)
    model.train()
    for epoch, loss in enumerate(passes.run([*body, *head], settings.lr, settings.epochs), 1):
        note(epoch, round(loss, 5))
    for parameter, asked in asked_before:
        parameter.requires_grad_(asked)
        parameter.grad = None
    encoder.eval()
    return lines


def _with_head(encoder: TextEncoder) -> tuple[Any, bool]:
    """The encoder under its family's masked-language-model head, and whether that head is new (random)."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    base = base_model(encoder.backbone)
    kind, source = base.config.model_type, base.config._name_or_path
    if kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or encoder.pooling == "last":
        raise ConfigError(
            f"pretraining.epochs: an encoder of type {kind} reads from left to right and has no "
            "masked-language-model head; set it to 0"
        )
    if encoder.tokenizer.mask_token_id is None:
        raise ConfigError(f"pretraining.epochs: the tokenizer of {source} has no mask token; set it to 0")
    told = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # it lists the head's weights as missing, which is told below
    try:
        model, found = transformers.AutoModelForMaskedLM.from_pretrained(
            source,
            output_loading_info=True,
            dtype=next(base.parameters()).dtype,
            revision=getattr(base.config, "_commit_hash", None) or "main",
        )
        setattr(model, model.base_model_prefix, base)
        model.tie_weights()
    except Exception as error:  # transformers and safetensors each raise their own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"pretraining: {source} cannot be given a masked-language-model head ({first})") from error
    finally:
        transformers.utils.logging.set_verbosity(told)
    return model.to(next(base.parameters()).device), bool(found["missing_keys"])


class _Passes:
    """Passes over texts that a masked-language model learns from."""

    def __init__(
        self,
        model: nn.Module,
        encoder: TextEncoder,
        tokens: Tokens,
        order: np.random.Generator,
        watch: Callable[[int], None],
    ) -> None:
        from transformers import DataCollatorForLanguageModeling

        self.model, self.tokens, self.order, self.watch = model, tokens, order, watch
        self.batches = list(length_batches(tokens, TOKENS_PER_STEP))
        self.collate = DataCollatorForLanguageModeling(encoder.tokenizer, mlm=True, mlm_probability=0.15)
        self.device = next(model.parameters()).device
        self.bf16 = encoder.precision == torch.bfloat16
        self.step = 0

    def run(self, weights: Sequence[nn.Parameter], lr: float, passes: int) -> Iterator[float]:
        """Train some weights; gives the mean loss of each pass."""
        optimiser = torch.optim.AdamW(weights, lr=lr, weight_decay=0.01, fused=True)
        first, total = self.step, passes * len(self.batches)
        for _ in range(passes):
            losses = []
            for place in self.order.permutation(len(self.batches)):
                for group in optimiser.param_groups:
                    group["lr"] = lr * learning_rate_factor(self.step - first, total, 0.1)
                loss = self.loss(self.masked([self.tokens[i] for i in self.batches[place]]))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimiser.step()
                losses.append(loss.detach())
                self.step += 1
                self.watch(self.step)
            yield float(torch.stack(losses).mean())

    def masked(self, tokens: Tokens) -> dict[str, Tensor]:
        """Padded texts with masks, and as labels the tokens that are asked for."""
        batch = self.collate([{"input_ids": list(row), "attention_mask": [1] * len(row)} for row in tokens])
        return {name: value.to(self.device) for name, value in batch.items()}

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy of the tokens that are asked for; 0 where none is."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        asked = batch["labels"] >= 0
        summed = nn.functional.cross_entropy(logits[asked].float(), batch["labels"][asked], reduction="sum")
        return summed / asked.sum().clamp(min=1)

    @torch.no_grad()
    def loss_on(self, batches: Sequence[dict[str, Tensor]]) -> float:
        """Mean loss over all tokens that are asked for, without dropout."""
        was_training = self.model.training
        self.model.eval()
        counts = [int((batch["labels"] >= 0).sum()) for batch in batches]
        losses = [float(self.loss(batch)) for batch in batches]
        self.model.train(was_training)
        return sum(n * loss for n, loss in zip(counts, losses, strict=True)) / max(sum(counts), 1)
