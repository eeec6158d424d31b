"""The base: what is fetched from a folder or the Hub, what it gets, and what is refused."""

import json
from pathlib import Path

import pytest
from hub_server import HubServer
from transformers import AutoModelForCausalLM, AutoTokenizer

from job.config.schema import ModelSection
from job.errors import ConfigError, KickoffError
from job.model import base


def section(folder: Path | str, **values: object) -> ModelSection:
    return ModelSection.model_validate({"base": str(folder), "max_length": 64, "max_new_tokens": 12, **values})


def test_a_base_without_a_template_gets_ours_and_a_generation_config(tiny_base: Path, tmp_path: Path) -> None:
    facts = base.fetch(section(tiny_base), tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    generation = json.loads((tmp_path / "base" / "generation_config.json").read_text())
    assert facts.chat_template == "Kickoff's"
    assert (tmp_path / "base" / "chat_template.jinja").exists()
    assert (generation["eos_token_id"], generation["pad_token_id"], generation["max_new_tokens"]) == (0, 0, 12)
    assert generation["do_sample"] is False
    assert tokenizer.padding_side == "left"


def test_a_base_with_a_template_keeps_it(tiny_llama: Path, tmp_path: Path) -> None:
    own = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    source = tmp_path / "source"
    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = own
    tokenizer.save_pretrained(source)
    assert base.fetch(section(source), tmp_path / "base").chat_template == "the base model's own"
    assert AutoTokenizer.from_pretrained(tmp_path / "base").chat_template == own


def test_from_the_hub_by_commit(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
    sha = hub.add_repo("models", "ada/tiny", tiny_base, private=True)
    facts = base.fetch(section("ada/tiny"), tmp_path / "base")
    assert facts.revision == sha
    asked = len(hub.requests)
    assert base.fetch(section("ada/tiny"), tmp_path / "base") == facts
    assert len(hub.requests) == asked, "what is there needs the Hub no more"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base": "ada/nothing"}, "neither a folder here nor a model on the Hub"),
        ({"base": "not a name"}, "neither a folder here nor a model on the Hub"),
        ({"base": "ada/tiny", "revision": "v9"}, "has no revision 'v9'"),
    ],
)
def test_a_base_that_is_not_on_the_hub_is_refused(
    values: dict[str, str], message: str, hub: HubServer, tiny_base: Path, tmp_path: Path
) -> None:
    hub.add_repo("models", "ada/tiny", tiny_base)
    with pytest.raises(ConfigError, match=message):
        base.fetch(section(**{"folder": values["base"], **values}), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_failing_hub_is_not_a_config_error(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
    hub.add_repo("models", "ada/tiny", tiny_base)
    hub.fail("GET", r"^/api/models/ada/tiny", times=50, status=500)
    with pytest.raises(KickoffError, match="run the same command again") as caught:
        base.fetch(section("ada/tiny"), tmp_path / "base")
    assert caught.value.exit_code == 1


def test_a_context_that_is_too_short(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found 512, and .* reads at most 128 tokens"):
        base.fetch(section(tiny_base, max_length=512), tmp_path / "base")


def test_weights_other_than_safetensors_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    source = tmp_path / "pickled"
    source.mkdir()
    for file in tiny_base.iterdir():
        name = "pytorch_model.bin" if file.suffix == ".safetensors" else file.name
        (source / name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="no \\*.safetensors weights"):
        base.fetch(section(source), tmp_path / "base")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no \\*.safetensors weights"):
        base.fetch(section(tmp_path / "empty"), tmp_path / "base")


def test_a_missing_gguf_file_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model.gguf_file: .* holds no file 'x.gguf'"):
        base.fetch(section(tiny_base, gguf_file="x.gguf"), tmp_path / "base")
