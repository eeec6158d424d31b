"""The base of a retriever: which encoders can be fetched, and which are refused with what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finding import PAIRS
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaModel,
)

from job.config.schema import ModelSection, RetrieverSection
from job.errors import ConfigError, DataError
from job.model import encoder_base
from job.model.encoder import load_encoder
from job.run.facts import BaseFacts

TEXTS = [answer for _, answer in PAIRS[:5]]


def fetch(source: Path, folder: Path, length: int = 32, before: str | None = None, **retriever: Any) -> BaseFacts:
    section = ModelSection(kind="retriever", base=str(source), max_length=length)
    return encoder_base.fetch(section, RetrieverSection(**retriever), folder, before)


def vectors(folder: Path) -> np.ndarray:
    plain = SentenceTransformer(str(folder), device="cpu")
    return np.asarray(plain.encode(TEXTS, normalize_embeddings=True))


@pytest.fixture
def spoiled(tiny_encoder: Path, tmp_path: Path) -> Path:
    """A copy of the encoder to spoil."""
    return Path(shutil.copytree(tiny_encoder, tmp_path / "spoiled"))


@pytest.fixture(scope="module")
def roberta(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain RoBERTa, which counts positions from behind its padding id."""
    folder = tmp_path_factory.mktemp("roberta") / "base"
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=40, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = RobertaModel(config)
    model.embeddings.word_embeddings.weight.data.normal_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_encoder_of_sentence_transformers_keeps_its_vectors(tiny_encoder: Path, tmp_path: Path) -> None:
    facts = fetch(tiny_encoder, tmp_path / "base")
    assert facts.base == str(tiny_encoder)
    assert (facts.revision, facts.checkpoint, facts.context, facts.chat_template) == (None, None, 64, "")
    assert facts.parameters == sum(weight.numel() for weight in load_encoder(tiny_encoder).parameters())
    assert np.abs(vectors(tiny_encoder) - vectors(tmp_path / "base")).max() < 1e-6
    found = load_encoder(tmp_path / "base")
    assert (found.max_seq_length, found.default_prompt_name) == (32, None)
    assert fetch(Path("gone"), tmp_path / "base") == facts, "what is there is not fetched again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_prompts_are_those_of_the_config(tiny_encoder: Path, tmp_path: Path) -> None:
    fetch(tiny_encoder, tmp_path / "base", query_prompt="ask: ", document_prompt="say: ")
    found = load_encoder(tmp_path / "base")
    assert (found.prompts["query"], found.prompts["document"]) == ("ask: ", "say: ")


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM], ids=["encoder", "masked"])
def test_the_token_vectors_of_a_plain_bert_are_averaged(
    kind: type[BertModel | BertForMaskedLM], tiny_encoder: Path, tmp_path: Path
) -> None:
    model = kind.from_pretrained(tiny_encoder)
    model.save_pretrained(tmp_path / "plain")
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path / "plain")
    fetch(tmp_path / "plain", tmp_path / "base")
    assert np.abs(vectors(tmp_path / "base") - vectors(tiny_encoder)).max() < 1e-6
    assert (tmp_path / "base/modules.json").exists()


def test_a_plain_roberta_works_to_its_last_position(roberta: Path, tmp_path: Path) -> None:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(roberta)
    context = 40 - tokenizer.convert_tokens_to_ids(tokenizer.pad_token) - 1
    with pytest.raises(ConfigError, match=rf"found {context + 1}, and .* reads at most {context} tokens; lower"):
        fetch(roberta, tmp_path / "base", context + 1)
    assert fetch(roberta, tmp_path / "base", context).context == context
    load_encoder(tmp_path / "base").encode("the " * 100)


def test_a_bert_reads_all_its_positions(tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model.max_length: found 65, and .* reads at most 64 tokens; lower"):
        fetch(tiny_encoder, tmp_path / "base", 65)
    assert not (tmp_path / "base").exists()
    fetch(tiny_encoder, tmp_path / "base", 64)
    load_encoder(tmp_path / "base").encode("the " * 100)


def _other_code(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*modules, {**modules[-1], "type": "evil.Module"}]))


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without(*names: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        kept = {name: weight for name, weight in weights.items() if not any(part in name for part in names)}
        assert len(kept) < len(weights)
        save_file(kept, folder / "model.safetensors", {"format": "pt"})

    return spoil


def _filled(value: float, part: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        name = next(name for name in weights if part in name)
        weights[name][:] = value
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return spoil


def _gguf(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"GGUF")


def _checkpoint(folder: Path) -> None:
    (folder / "tensors.pt").write_bytes(b"")
    (folder / "state.json").write_text("{}")


def _no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_other_code, r"needs code of its own \(evil.Module in modules.json\), which is not run here"),
        (lambda folder: (folder / "modules.json").write_text("{"), "modules.json cannot be read"),
        (_pickled, "holds no .*safetensors weights, only pytorch_model.bin, which may run code"),
        (_without("layer.1.attention.output"), "lacks weights that BertModel needs and that would start at random"),
        (_filled(float("nan"), "word_embeddings"), "holds weights that are NaN or infinite"),
        (_filled(0.0, "LayerNorm.weight"), "gives"),
        (_gguf, "holds GGUF files"),
        (_checkpoint, "is a checkpoint of Kickoff, .* use the folder `model` of its run"),
        (_no_tokenizer, "has a tokenizer that knows no words; expected a tokenizer.json"),
    ],
)
def test_what_cannot_be_used_is_refused(
    spoil: Callable[[Path], Any], words: str, spoiled: Path, tmp_path: Path
) -> None:
    spoil(spoiled)
    with pytest.raises(ConfigError, match=words) as caught:
        fetch(spoiled, tmp_path / "base")
    assert str(caught.value).startswith("model.base: ")
    assert "output layer" not in str(caught.value), "an encoder has none"
    assert not (tmp_path / "base").exists()


def test_the_pooler_is_not_needed(spoiled: Path, tmp_path: Path) -> None:
    _without("pooler")(spoiled)
    fetch(spoiled, tmp_path / "base")
    assert np.abs(vectors(tmp_path / "base") - vectors(spoiled)).max() < 1e-6


def test_a_causal_model_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a causal language model \(gpt2\), and model.kind is retriever; use an"):
        fetch(tiny_base, tmp_path / "base")


def test_other_weights_than_before_are_refused(tiny_encoder: Path, spoiled: Path, tmp_path: Path) -> None:
    before = fetch(tiny_encoder, tmp_path / "first/base").weights
    assert fetch(tiny_encoder, tmp_path / "second/base", before=before).weights == before
    _filled(0.5, "layer.0.output.dense.bias")(spoiled)
    with pytest.raises(DataError, match="was trained from other weights than .* has now"):
        fetch(spoiled, tmp_path / "third/base", before=before)
    assert not list((tmp_path / "third").iterdir())


@pytest.fixture(scope="module")
def dense(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with a layer behind its pooling, which has a folder of its own."""
    modules = list(SentenceTransformer(str(tiny_encoder), device="cpu"))
    modules.insert(2, Dense(48, 24))
    folder = tmp_path_factory.mktemp("dense") / "base"
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


def test_an_encoder_with_a_dense_layer_comes_whole_from_the_hub(dense: Path, hub: HubServer, tmp_path: Path) -> None:
    sha = hub.add_repo("models", "ada/dense", dense)
    section = ModelSection(kind="retriever", base="ada/dense", max_length=32)
    facts = encoder_base.fetch(section, RetrieverSection(), tmp_path / "base")
    assert (facts.base, facts.revision) == ("ada/dense", sha)
    assert vectors(tmp_path / "base").shape == (5, 24)
    assert np.abs(vectors(tmp_path / "base") - vectors(dense)).max() < 1e-6


def test_a_dense_layer_counts_among_the_weights(dense: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(dense, tmp_path / "other"))
    weights = load_file(other / "2_Dense/model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, other / "2_Dense/model.safetensors")
    before = fetch(dense, tmp_path / "first/base").weights
    with pytest.raises(DataError, match="was trained from other weights"):
        fetch(other, tmp_path / "second/base", before=before)


def test_a_pickled_layer_is_refused(dense: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(dense, tmp_path / "other"))
    (other / "2_Dense/model.safetensors").rename(other / "2_Dense/pytorch_model.bin")
    with pytest.raises(ConfigError, match="holds 2_Dense/pytorch_model.bin, which may run code when loaded"):
        fetch(other, tmp_path / "base")


def test_the_tokenizer_is_found_without_a_download(tiny_encoder: Path, tmp_path: Path) -> None:
    section = ModelSection(kind="retriever", base=str(tiny_encoder), max_length=32)
    assert encoder_base.find_tokenizer(section, tmp_path / "base") is not None
    elsewhere = section.model_copy(update={"base": "nobody/nothing"})
    assert encoder_base.find_tokenizer(elsewhere, tmp_path / "base") is None
    fetch(tiny_encoder, tmp_path / "base")
    assert encoder_base.find_tokenizer(elsewhere, tmp_path / "base") is not None
