"""Hub rows: each thing that can be wrong with a data set of the Hub is one line that says what to do."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import job
from hub_clients import TOKEN
from hub_server import HubServer
from huggingface_hub import constants

from job.config.schema import DatasetSection
from job.data.load import load
from job.errors import Exit, KickoffError

ROWS = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
SEVERAL = b"---\nconfigs:\n- config_name: main\n  data_files: a.jsonl\n- config_name: soc\n  data_files: b.jsonl\n---\n"


@pytest.fixture
def there(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The test Hub, found by datasets as well, which has its own names for the same settings."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return hub


def read(folder: Path, name: str, **section: str) -> tuple[list[str], str]:
    """The questions, and the commit they are of."""
    rows, _, _, (facts,) = load(DatasetSection(name=name, **section), folder, 42)
    return rows["question"][:], facts.revision


def refused(folder: Path, name: str, code: Exit = Exit.DATA, **section: str) -> str:
    with pytest.raises(KickoffError) as caught:
        read(folder, name, **section)
    assert caught.value.exit_code is code
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_the_rows_and_their_commit(there: HubServer, tmp_path: Path) -> None:
    sha = there.add_repo("datasets", "ada/rows", {"train.jsonl": LINES})
    assert read(tmp_path, "ada/rows") == ([row["question"] for row in ROWS], sha)


def test_a_loading_script_is_a_mistake_of_the_config_with_the_way_out(there: HubServer, tmp_path: Path) -> None:
    there.add_repo("datasets", "ada/script", {"script.py": b"print()", "README.md": b"# A script"})
    message = refused(tmp_path, "ada/script", Exit.CONFIG)
    assert message.startswith("dataset.name: ada/script has a loading script")
    assert message.endswith("set dataset.revision: refs/convert/parquet")


@pytest.mark.parametrize("token", [TOKEN, None])
def test_a_gated_data_set_says_where_to_ask(
    there: HubServer, tmp_path: Path, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    there.add_repo("datasets", "bob/gated", {"train.jsonl": LINES}, gated=True)
    message = refused(tmp_path, "bob/gated")
    assert f"bob/gated is gated: ask for access at {there.url}/datasets/bob/gated" in message


def test_configurations_and_splits_are_named(there: HubServer, tmp_path: Path) -> None:
    there.add_repo("datasets", "ada/several", {"README.md": SEVERAL, "a.jsonl": LINES, "b.jsonl": LINES})
    assert refused(tmp_path, "ada/several") == (
        "dataset.config: ada/several has several configurations; set it to one of 'main', 'soc'"
    )
    assert "has no configuration 'mian'; it has 'main', 'soc'" in refused(tmp_path, "ada/several", config="mian")
    message = refused(tmp_path, "ada/several", config="soc", split="test")
    assert message == "dataset.split: ada/several has no split 'test'; it has 'train'"
    assert len(read(tmp_path, "ada/several", config="soc")[0]) == 5


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"README.md": b"# Nothing"}, "has no data files"),
        ({"train.jsonl": b'{"question": "a'}, "cannot be read: ArrowInvalid: JSON parse error"),
        ({"train.csv": b"question,answer\n\xff\xfe,b\n"}, "cannot be read: UnicodeDecodeError"),
        ({"train.parquet": b"PAR1xxx"}, "cannot be read: ArrowInvalid: Parquet file size is 7 bytes"),
        ({"a.csv": b"question,answer\nx,b\n", "b.csv": b"q,answer\nx,b\n"}, "Schema at index 1 was different"),
        ({"train.jsonl.zst": b"(\xb5/\xfdxxx"}, "cannot be read: "),
        ({"train.jsonl.gz": b"no gzip"}, "cannot be read: "),
        ({"README.md": b"---\n: [\n---\n", "train.jsonl": LINES}, "cannot be read: ParserError"),
        ({"a.png": b"no picture"}, "cannot tell which columns to read: found 'image'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_whatever_the_files_hold_it_is_one_line(
    there: HubServer, tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    there.add_repo("datasets", "ada/odd", files)
    assert words in refused(tmp_path, "ada/odd")


def test_what_is_not_there(there: HubServer, tmp_path: Path) -> None:
    there.add_repo("datasets", "ada/rows", {"train.jsonl": LINES})
    assert "no data set 'ada/none' on the Hub" in refused(tmp_path, "ada/none")
    assert "no data set 'a/b/c' on the Hub" in refused(tmp_path, "a/b/c")
    assert "ada/rows has no revision 'v9'" in refused(tmp_path, "ada/rows", revision="v9")


def test_a_hub_that_is_down_is_to_be_asked_again(there: HubServer, tmp_path: Path) -> None:
    there.add_repo("datasets", "ada/rows", {"train.jsonl": LINES})
    there.fail("*", "/api/datasets/ada/rows", times=99, status=400)
    assert "run the same command again" in refused(tmp_path, "ada/rows", Exit.FAILED)


def test_a_hub_that_fails_half_way_does_not_bring_back_an_older_version(there: HubServer, tmp_path: Path) -> None:
    """datasets takes the latest version of its cache then, without an error."""
    there.add_repo("datasets", "ada/rows", {"train.jsonl": LINES})
    read(tmp_path, "ada/rows")
    there.repos["datasets", "ada/rows"].commit("main", {"train.jsonl": LINES + LINES}, "more")
    there.fail("*", "/datasets/ada/rows/resolve/", times=99, status=400)
    assert "run the same command again" in refused(tmp_path, "ada/rows", Exit.FAILED)


def test_no_picture_is_read(there: HubServer, tmp_path: Path) -> None:
    pictures = pa.array(
        [{"bytes": b"no picture", "path": "a.png"}] * 5, pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    table = pa.Table.from_pylist(ROWS).append_column("thumbnail", pictures)
    info = {"info": {"features": {name: {"dtype": "string", "_type": "Value"} for name in ("question", "answer")}}}
    info["info"]["features"]["thumbnail"] = {"_type": "Image"}
    for name, column in (("ada/thumbnails", "thumbnail"), ("ada/pictures", "image")):
        named = table.rename_columns(["question", "answer", column])
        text = json.dumps(info).replace("thumbnail", column)
        pq.write_table(named.replace_schema_metadata({"huggingface": text}), tmp_path / "rows.parquet")
        there.add_repo("datasets", name, {"train.parquet": (tmp_path / "rows.parquet").read_bytes()})
    assert len(read(tmp_path, "ada/thumbnails")[0]) == 5
    assert "'image' holds pictures or sounds" in refused(tmp_path, "ada/pictures")


@pytest.mark.parametrize("nothing", [None, {"bytes": None, "path": None}])
def test_a_column_without_any_picture_is_no_loss(
    there: HubServer, tmp_path: Path, nothing: dict[str, None] | None
) -> None:
    pictures = pa.array([nothing] * 5, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    columns = {name: {"dtype": "string", "_type": "Value"} for name in ("question", "answer")}
    info = json.dumps({"info": {"features": {**columns, "image": {"_type": "Image"}}}})
    table = pa.Table.from_pylist(ROWS).append_column("image", pictures)
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "rows.parquet")
    there.add_repo("datasets", "ada/empty", {"train.parquet": (tmp_path / "rows.parquet").read_bytes()})
    assert len(read(tmp_path, "ada/empty")[0]) == 5


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with HF_HUB_OFFLINE=1, which both libraries read when they are imported."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_offline_the_cache_gives_what_was_read_before(
    there: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = there.add_repo("datasets", "ada/rows", {"train.jsonl": LINES})
    there.repos["datasets", "ada/rows"].tags["v1"] = sha
    online = read(tmp_path, "ada/rows")
    read(tmp_path, "ada/rows", revision="v1")
    asked = len(there.requests)
    cut_off(monkeypatch)
    assert read(tmp_path, "ada/rows") == read(tmp_path, "ada/rows", revision="v1") == online
    assert read(tmp_path, "ada/rows", revision=sha) == online
    assert len(there.requests) == asked
    assert "not " + "f" * 40 in refused(tmp_path, "ada/rows", revision="f" * 40)
    assert "does not know which commit of ada/rows is 'v2'" in refused(tmp_path, "ada/rows", revision="v2")
    message = refused(tmp_path, "ada/other")
    assert "HF_HUB_OFFLINE is set, and ada/other, split 'train', is not in the cache" in message
    assert "configuration 'x'" in refused(tmp_path, "ada/rows", config="x")


def test_as_a_user_meets_it(hub: HubServer, tmp_path: Path) -> None:
    """In processes of their own: the last line and the code, then a run without the Hub."""
    hub.add_repo("datasets", "ada/several", {"README.md": SEVERAL, "a.jsonl": LINES, "b.jsonl": LINES})
    hub.add_repo("datasets", "ada/script", {"script.py": b"print()"})
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

    def prepared(name: str, *keys: str, **more: str) -> tuple[int, str, str]:
        path = tmp_path / "config.yaml"
        path.write_text(f"dataset: {{name: {name}}}\noutput: {tmp_path}/run\nmodel: {{base: nobody/none}}\n")
        ended = job("prepare", path, *keys, HF_TOKEN=TOKEN, **environment, **more)
        return ended.returncode, ended.stdout.splitlines()[-1], ended.stderr

    code, last, errors = prepared("ada/several")
    assert (code, last[:46]) == (3, "error (data, exit 3): dataset.config: ada/seve")
    assert "Traceback" not in errors
    code, last, errors = prepared("ada/script")
    assert (code, last[:24]) == (2, "error (config, exit 2): ")
    assert "Traceback" not in errors
    assert prepared("ada/several", "dataset.config=soc")[0] == 0
    sent = len(hub.requests)
    assert prepared("ada/several", "dataset.config=soc", HF_HUB_OFFLINE="1")[0] == 0
    assert len(hub.requests) == sent
