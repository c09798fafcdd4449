"""A small shop with every type of task, and random language models of two layers with their own vocabularies."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtrec.config import Scenario, parse_scenario
from mtrec.data.cleaning import clean
from mtrec.data.contract import Tables
from mtrec.data.sources.simulated import Dials, Truth, simulate

DIALS: dict[str, Any] = {"num_users": 60, "num_items": 50, "num_interactions": 2000, "noise": 0.0, "seed": 3}

TASKS: dict[str, dict[str, Any]] = {
    "rating": {"type": "regression", "on": "pair", "label": "interactions.rating"},
    "like": {"type": "binary", "on": "pair", "label": "interactions.rating", "threshold": 4},
    "purchase": {"type": "binary", "on": "pair", "exposure": ["view"], "positive": ["purchase"]},
    "price": {"type": "regression", "on": "item", "label": "items.price"},
    "category": {"type": "classification", "on": "item", "label": "items.category"},
    "tags": {"type": "multilabel", "on": "item", "label": "items.tags", "min_count": 2},
    "region": {"type": "classification", "on": "user", "label": "users.region"},
    "preferred_category": {"type": "classification", "on": "user", "label": "items.category", "horizon": 5},
    "profile": {"type": "profile", "on": "user", "label": "items.tags", "horizon": 5},
    "next_item": {"type": "next_item", "events": ["view", "cart", "purchase"]},
    "next_sampled": {"type": "next_item", "full_softmax": 1, "num_negatives": 20},
}


def tasks_under(by: str) -> dict[str, dict[str, Any]]:
    """The tasks that a split allows: one over events makes sense under `time` only."""
    return {name: task for name, task in TASKS.items() if by == "time" or "positive" not in task}


def shop_scenario(encoder: Path | str, **changes: Any) -> Scenario:
    """The scenario; keywords replace whole sections."""
    raw: dict[str, Any] = {
        "name": "tiny-shop",
        "source": {"type": "simulated", "options": DIALS},
        "users": {"numeric": ["age"], "categorical": ["gender"]},
        "items": {
            "text": "{title}. {description}",
            "numeric": ["price"],
            "categorical": ["brand", "category"],
            "multi": ["tags"],
        },
        "events": ["view", "cart", "purchase", "rating"],
        "rating_range": [1, 5],
        "tasks": TASKS,
        "model": {
            "encoder": {"name": str(encoder), "max_length": 24, "train_layers": 1},
            "width": 16,
            "history": 20,
        },
        "training": {"epochs": 2, "batch_size": 16, "texts_per_step": 8, "precision": "fp32", "device": "cpu"},
    }
    return parse_scenario(raw | changes)


def shop_tables(dials: dict[str, Any]) -> tuple[Tables, Truth]:
    """The simulated tables, cleaned, and the truth behind them."""
    tables, truth = simulate(Dials.parse(dials))
    return clean(tables)[0], truth


def words(texts: Iterable[str]) -> list[str]:
    """The distinct words of some texts, lower case."""
    return sorted({word for text in texts for word in re.findall(r"[a-z]+|\d|[^\sa-z\d]", text.lower())})


def save_tokenizer(folder: Path, vocabulary: list[str]) -> int:
    """Write a WordPiece tokenizer of whole words and letters; its size."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = list(dict.fromkeys([*special, *letters, *("##" + x for x in letters), *vocabulary]))
    index = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(index, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", index["[CLS]"]), ("[SEP]", index["[SEP]"])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    return len(tokens)


def save_bert(folder: Path, vocabulary: list[str]) -> Path:
    """Write a BERT of two layers, 32 wide, random but always the same."""
    import torch
    from transformers import BertConfig, BertModel

    size = save_tokenizer(folder, vocabulary)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def save_llama(folder: Path, vocabulary: list[str]) -> Path:
    """Write a Llama-type decoder of two layers, 32 wide, with a tokenizer that has no padding token."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    tokens = {token: i for i, token in enumerate(dict.fromkeys(["<unk>", "<s>", "</s>", *vocabulary]))}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder
