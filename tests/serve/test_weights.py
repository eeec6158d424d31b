"""Which weights of a repository are fetched, and an index that names what is not there."""

import re
import shutil
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import HfApi
from repositories import edit
from transformers import AutoModelForCausalLM

from serve.repository import Refused, find


def shard(folder: Path) -> list[str]:
    """Save the weights again in several files; their names."""
    (folder / "model.safetensors").unlink()
    loaded = AutoModelForCausalLM.from_pretrained(folder.parent / "whole")
    loaded.save_pretrained(folder, max_shard_size="100KB")
    return sorted(path.name for path in folder.glob("model-*.safetensors"))


@pytest.fixture
def sharded(folder: Path) -> Path:
    shutil.copytree(folder, folder.parent / "whole")
    assert len(shard(folder)) > 2
    return folder


COPIES = ["consolidated.safetensors", "original/model.safetensors", "onnx/model.onnx", "model.fp16.safetensors"]
COPIES += [
    "pytorch_model.bin",
    "tiny.Q8_0.gguf",
    "tf_model.h5",
    "original/params.json",
    "model-00009-of-00009.safetensors",
]


@pytest.mark.parametrize("kind", ["folder", "sharded"])
def test_no_weights_are_fetched_twice(kind: str, hub: HubServer, request: pytest.FixtureRequest) -> None:
    model: Path = request.getfixturevalue(kind)
    own = {path.name for path in model.iterdir()} - {"README.md"}
    for copy in COPIES:
        (model / copy).parent.mkdir(exist_ok=True)
        (model / copy).write_bytes(b"{}" * 50_000)
    HfApi().create_repo("ada/tiny")
    HfApi().upload_folder(repo_id="ada/tiny", folder_path=model)
    found = find("ada/tiny", None)
    fetched = {str(path.relative_to(found.folder)) for path in found.folder.rglob("*") if path.is_file()}
    assert fetched == own
    asked = [str(one) for one in hub.requests if "/resolve/" in str(one)]
    assert asked and not [one for one in asked if any(copy in one for copy in COPIES if "/" in copy)]
    assert sum("model" in one and ".safetensors'" in one and "GET" in one for one in asked) == sum(
        name.endswith(".safetensors") for name in own
    )


def test_the_single_file_goes_before_an_index(sharded: Path, hub: HubServer) -> None:
    """As in transformers."""
    shutil.copy(sharded.parent / "whole" / "model.safetensors", sharded)
    HfApi().create_repo("ada/tiny")
    HfApi().upload_folder(repo_id="ada/tiny", folder_path=sharded)
    assert [path.name for path in find("ada/tiny", None).folder.glob("*.safetensors")] == ["model.safetensors"]


def test_a_file_that_the_index_names_and_that_is_not_there(sharded: Path, hub: HubServer) -> None:
    lost = sorted(sharded.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(Refused, match=re.escape(f"weights as .safetensors ({lost.name})")):
        find(str(sharded), None)
    HfApi().create_repo("ada/tiny")
    HfApi().upload_folder(repo_id="ada/tiny", folder_path=sharded)
    with pytest.raises(Refused, match=re.escape(f"weights as .safetensors ({lost.name})")):
        find("ada/tiny", None)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/model.safetensors", "weights.bin", 5])
def test_an_index_that_names_what_is_not_beside_it(sharded: Path, name: object) -> None:
    edit(sharded / "model.safetensors.index.json", weight_map={"lm_head.weight": name})
    with pytest.raises(Refused, match="expected a .safetensors file beside it"):
        find(str(sharded), None)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 5}'])
def test_an_invalid_index_is_refused(sharded: Path, content: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(content)
    with pytest.raises(Refused, match="index.json cannot be read"):
        find(str(sharded), None)
