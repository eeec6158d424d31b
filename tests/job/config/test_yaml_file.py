"""The YAML of a config: numbers, true and false, and files that are no YAML or no sections."""

from pathlib import Path

import pytest
from config_text import FILE, errors, read

from job.config import read as configs
from job.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "number"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("1.5e-4", 1.5e-4), (".001", 0.001), ("2", 2.0), ("+1e+0", 1.0), ("3.", 3.0)],
)
def test_numbers_of_yaml_1_2(tmp_path: Path, value: str, number: float) -> None:
    assert read(tmp_path, f"{FILE}train: {{learning_rate: {value}}}").train.learning_rate == number


def test_integers_are_decimal(tmp_path: Path) -> None:
    assert read(tmp_path, f"{FILE}seed: 010").seed == 10
    assert errors(tmp_path, f"{FILE}seed: 1:30") == ["config.yaml:2:1: seed: found '1:30', expected a whole number"]


def test_only_true_and_false_are_booleans(tmp_path: Path) -> None:
    run = read(tmp_path, f"{FILE}evaluate: {{gate: off}}\noutput: no\npublish: {{license: on, private: false}}")
    assert (run.evaluate.gate, run.output, run.publish.license, run.publish.private) == ("off", "no", "on", False)
    for value in ("true", "True", "TRUE", "false", "False", "FALSE"):
        run = read(tmp_path, f"{FILE}clean: {{lowercase: {value}}}")
        assert run.clean.lowercase is (value.lower() == "true")


def test_empty_section_is_its_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, FILE + "train:\n") == read(tmp_path, FILE)


def test_duplicate_key(tmp_path: Path) -> None:
    assert errors(tmp_path, FILE + "train:\n  epochs: 1\n  epochs: 2\n") == [
        "config.yaml:4:3: train.epochs is set twice; first at config.yaml:3:3"
    ]
    assert "dataset is set twice" in errors(tmp_path, FILE + FILE)[0]


def test_tab(tmp_path: Path) -> None:
    (line,) = errors(tmp_path, FILE + "train:\n\tepochs: 3\n")
    assert line.startswith("config.yaml:3:1: not valid YAML:")
    assert "spaces, never with tabs" in line


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("train: {epochs: 3\n", "config.yaml:3:1"),
        ("output: 'a\n", "config.yaml:3:1"),
        ("train: *nowhere\n", "config.yaml:2:8"),
        ("---\nseed: 1\n", "config.yaml:2:1"),
        ("seed: !!python/object:os.system x\n", "config.yaml:2:7"),
        ("seed: !!int seven\n", "config.yaml:2:7"),
        ("seed: !!timestamp seven\n", "config.yaml:2:7"),
        (f"seed: {'9' * 5000}\n", "config.yaml:2:7"),
        ("train: {[1]: 2}\n", "config.yaml:2:9"),
        ("output: a\x00b\n", "config.yaml:2"),
        (f"train: {'[' * 3000}\n", "config.yaml"),
        ("train: &a [*a]\n", "config.yaml"),
    ],
)
def test_not_yaml(tmp_path: Path, text: str, place: str) -> None:
    (line,) = errors(tmp_path, FILE + text)
    assert line.startswith(f"{place}: not valid YAML: ")
    assert len(line) < 300


@pytest.mark.parametrize("text", ["- a\n", "hello\n", "null\n", "3\n"])
def test_yaml_without_sections(tmp_path: Path, text: str) -> None:
    (line,) = errors(tmp_path, text)
    assert line.startswith("config.yaml:1:1: found ")
    assert "expected sections such as `dataset:`" in line


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\ufeff"])
def test_an_empty_file_is_refused_for_its_missing_dataset(tmp_path: Path, text: str) -> None:
    assert errors(tmp_path, text) == ["config.yaml:1:1: dataset: missing; expected a section `dataset:`"]


def test_missing_file_folder_and_latin_1(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml: no such file"):
        configs.load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        configs.load(tmp_path)
    assert errors(tmp_path, b"output: caf\xe9") == ["config.yaml: not UTF-8 text (byte 11); save the file as UTF-8"]


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + FILE) == read(tmp_path, FILE)
