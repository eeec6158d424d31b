"""The config: what is accepted, what every error says, and that a written config reads back equal."""

import json
from pathlib import Path

import pytest
import yaml
from config_text import FILE, errors, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job.config import read as configs
from job.config import schema
from job.config.schema import Config, DatasetSection, PublishSection

SECTIONS = ("dataset", "clean", "dedupe", "split", "model", "train", "evaluate", "publish")


def test_defaults_equal_those_of_the_article(tmp_path: Path) -> None:
    run = read(tmp_path, FILE)
    assert run.model.base == "distilbert/distilgpt2"
    assert (run.model.max_length, run.split.test_size) == (512, 0.15)
    train = run.train
    assert (train.batch_size, train.epochs, train.learning_rate, train.weight_decay) == (8, 5, 3e-5, 0.01)
    assert (train.logging_steps, train.warmup_steps, train.gradient_accumulation_steps) == (10, 0, 1)
    switched_on = {"fix_text", "reject_placeholders", "reject_echoes", "reject_repetition"}
    assert {name for name, value in run.clean.model_dump().items() if value is True} == switched_on
    assert run.clean.urls == run.clean.emails == run.clean.phone_numbers == run.clean.offensive == "keep"
    assert run.dedupe.exact and run.publish.private and run.publish.repo is None
    assert (run.evaluate.gate, run.evaluate.gate_threshold) == ("auto", None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("trian: {}\n", "config.yaml:2:1: trian: unknown key; did you mean train?"),
        ("train:\n  epoch: 3\n", "config.yaml:3:3: train.epoch: unknown key; did you mean train.epochs?"),
        ("dataset_: {}\n", "config.yaml:2:1: dataset_: unknown key; did you mean dataset?"),
        ("epochs: 3\n", "config.yaml:2:1: epochs: unknown key; did you mean train.epochs?"),
        ("train: {seed: 3}\n", "config.yaml:2:9: train.seed: unknown key; did you mean seed?"),
        (
            "split: {zzz: 3}\n",
            "config.yaml:2:9: split.zzz: unknown key; known here: test_size, group, keep_together, folds, fold",
        ),
    ],
)
def test_an_unknown_key_is_located_with_a_suggestion(tmp_path: Path, text: str, line: str) -> None:
    assert errors(tmp_path, FILE + text) == [line]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epochs: often}", "train.epochs: found 'often', expected a whole number, or auto"),
        ("train: {epochs: 0}", "train.epochs: found 0, expected greater than or equal to 1, or auto"),
        ("train: {learning_rate: Auto}", "train.learning_rate: found 'Auto', expected a number, or auto"),
        ("model: {decoding: beams}", "model.decoding: found 'beams', expected greedy, auto, or settings such as {"),
        ("model: {decoding: {beams: 2}}", "model.decoding: found 2, expected greedy, auto, or settings such as {"),
    ],
)
def test_what_may_be_auto(tmp_path: Path, text: str, words: str) -> None:
    (line,) = errors(tmp_path, FILE + text)
    assert words in line


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_refuses_unknown_keys(tmp_path: Path, section: str) -> None:
    first = "" if section == "dataset" else FILE
    keys = "file: a.json, qqq: 1" if section == "dataset" else "qqq: 1"
    (line,) = errors(tmp_path, f"{first}{section}: {{{keys}}}\n")
    assert f"{section}.qqq: unknown key" in line


@pytest.mark.parametrize("key", ["1", "null", "true", "1.5"])
def test_a_key_that_is_not_text_is_refused(tmp_path: Path, key: str) -> None:
    assert "unknown key" in errors(tmp_path, f"{FILE}{key}: 2\n")[0]
    assert "unknown key" in errors(tmp_path, f"{FILE}train: {{{key}: 2}}\n")[0]


def test_all_errors_at_once(tmp_path: Path) -> None:
    text = 'dataset:\n  file: 3\ntrain:\n  epochs: "5"\n  epoch: 5\nseed: -1\nseed: 2\n'
    lines = errors(tmp_path, text, "publish.repo=nobody", "nonsense")
    assert sorted(line.split(": ")[1] for line in lines if line.startswith("config.yaml")) == [
        "dataset.file",
        "seed is set twice; first at config.yaml:6:1",
        "train.epoch",
        "train.epochs",
    ]
    assert "config.yaml:4:3: train.epochs: found '5', expected a whole number, or auto" in lines
    assert "command line: found 'nonsense', expected section.key=value, such as train.epochs=3" in lines
    assert any("publish.repo: found 'nobody', expected owner/name" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("train: {epochs: 2.5}", "train.epochs: found 2.5, expected a whole number"),
        ("train: {epochs: true}", "train.epochs: found True, expected a whole number"),
        ("train: {epochs: 0}", "train.epochs: found 0, expected greater than or equal to 1"),
        ("train: {learning_rate: fast}", "train.learning_rate: found 'fast', expected a number"),
        ("train: {learning_rate: .inf}", "train.learning_rate: found inf, expected a finite number"),
        ("train: 3", "train: found 3, expected a section with keys, such as epochs"),
        ("model: [a]", "model: found ['a'], expected a section with keys, such as kind"),
        ("publish: {private: yes}", "publish.private: found 'yes', expected true or false"),
        ("publish: {license: 2}", "publish.license: found 2, expected text"),
        ("clean: {unwanted_words: spam}", "clean.unwanted_words: found 'spam', expected a list"),
        ("clean: {unwanted_words: [spam, 7]}", "clean.unwanted_words.1: found 7, expected text"),
        ('clean: {unwanted_words: [""]}', "clean.unwanted_words.0: found '', expected text with at least 1 character"),
        ("evaluate: {gate: bleu}", "evaluate.gate: found 'bleu', expected one of loss, perplexity, token_accuracy, f1"),
        ("split: {test_size: 1}", "split.test_size: found 1, expected less than 1"),
        ("seed:", "seed: found None, expected a whole number"),
    ],
)
def test_wrong_type_or_value(tmp_path: Path, text: str, found: str) -> None:
    (line,) = errors(tmp_path, FILE + text)
    assert line.startswith("config.yaml:2:")
    assert found in line


def test_overrides(tmp_path: Path) -> None:
    run = read(
        tmp_path,
        FILE + "train: {epochs: 3, batch_size: 4}\nmodel:\n",
        "train.epochs=7",
        "train.learning_rate=1e-4",
        "seed=1",
        "output=runs/a=b",
        "model.base=gpt2",
        "publish.license=no",
        "evaluate.gate=off",
        "clean.unwanted_words=[spam, eggs]",
    )
    assert (run.train.epochs, run.train.batch_size, run.train.learning_rate) == (7, 4, 1e-4)
    assert (run.seed, run.output, run.model.base, run.publish.license) == (1, "runs/a=b", "gpt2", "no")
    assert (run.evaluate.gate, run.clean.unwanted_words) == ("off", ("spam", "eggs"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", "expected section.key=value"),
        ("a.b.c=1", "expected section.key=value"),
        (".epochs=1", "expected section.key=value"),
        ("=1", "expected section.key=value"),
        ("train.epochs=x", "command line: train.epochs=x: train.epochs: found 'x', expected a whole number"),
        ("train.epochs=", "train.epochs: found None"),
        ("train.epoch=3", "command line: train.epoch=3: train.epoch: unknown key; did you mean train.epochs?"),
        ("trian.epochs=3", "trian: unknown key; did you mean train?"),
        ("train.epochs={", "found '{', which is not valid YAML"),
        (f"seed={'9' * 5000}", "not valid YAML"),
        (f"seed={'[' * 3000}", "not valid YAML"),
        ("publish.tag=v1", "command line: publish.tag=v1: publish.tag: is set without publish.repo"),
    ],
)
def test_bad_override(tmp_path: Path, override: str, words: str) -> None:
    (line,) = errors(tmp_path, FILE, override)
    assert words in line


NUMBERS = ["1e-4", "010", "1:30", "0x1F", "1_000", "2024-01-01", ".inf", ".nan"]
WORDS = ["true", "False", "no", "off", "null", "~", "", "=", "<<", "- a", "a: b", "# a", "😀"]
BLANKS = ["a\nb", " a ", "\t", "\r", "\x85", "\u2028", "\u2029", "\ufeff"]
TEXT = st.one_of(
    st.sampled_from([*NUMBERS, *WORDS, *BLANKS]),
    st.from_regex(r"[-+]?[0-9._:eExX]{1,8}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    license=TEXT,
    output=TEXT,
    words=st.lists(TEXT.filter(bool), max_size=3),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
)
def test_written_config_reads_back_equal(
    tmp_path: Path, license: str, output: str, words: list[str], rate: float
) -> None:
    run = Config(
        dataset=DatasetSection(file="a.json"),
        publish=PublishSection(license=license),
        clean=schema.CleanSection(unwanted_words=tuple(words)),
        train=schema.AskedTrainSection(learning_rate=rate),
        output=output,
    )
    assert read(tmp_path, configs.dump(run)) == run


@pytest.mark.parametrize("text", [*NUMBERS, *WORDS, *BLANKS])
def test_text_that_looks_like_a_number_stays_text(tmp_path: Path, text: str) -> None:
    publish = PublishSection(license=text, language=text)
    run = Config(dataset=DatasetSection(file=text), publish=publish, output=text)
    assert read(tmp_path, configs.dump(run)) == run


def test_dump_holds_every_default(tmp_path: Path) -> None:
    dumped = yaml.safe_load(configs.dump(read(tmp_path, FILE)))
    assert list(dumped) == [*SECTIONS, "output", "seed"]
    for section in SECTIONS:
        assert set(dumped[section]) == set(getattr(schema.Config.model_fields[section].annotation, "model_fields", {}))


def test_schema_lists_every_section_and_forbids_unknown_keys() -> None:
    schema = json.loads(json.dumps(Config.model_json_schema()))
    assert set(schema["properties"]) == {*SECTIONS, "retriever", "output", "seed"}
    assert schema["required"] == ["dataset"]
    assert all(part["additionalProperties"] is False for part in (schema, *schema["$defs"].values()))
    assert len(schema["$defs"]) == len(SECTIONS) + 3, "a section each, that of a retriever, a source, and decoding"
    fields = (field for part in schema["$defs"].values() for field in part["properties"].values())
    assert all(field["description"] for field in fields)
