"""The config: what is accepted, what every error says, and that a written config reads back equal."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job.config import read as configs
from job.config import schema
from job.config.schema import Config, DatasetSection, PublishSection
from job.errors import ConfigError, Exit

SECTIONS = ("dataset", "clean", "dedupe", "split", "model", "train", "evaluate", "publish")


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes, *overrides: str) -> Config:
    return configs.load(written(folder, text), list(overrides))


def errors(folder: Path, text: str | bytes, *overrides: str) -> list[str]:
    """The lines of the error, the file's path shortened to its name."""
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *overrides)
    assert caught.value.exit_code is Exit.CONFIG
    return str(caught.value).replace(f"{folder}/", "").split("\n")


FILE = "dataset: {file: a.json}\n"


def test_defaults_are_the_articles(tmp_path: Path) -> None:
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
    assert (run.evaluate.gate, run.evaluate.gate_threshold) == ("loss", None)


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
def test_unknown_key_names_its_place_and_a_guess(tmp_path: Path, text: str, line: str) -> None:
    assert errors(tmp_path, FILE + text) == [line]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_refuses_unknown_keys(tmp_path: Path, section: str) -> None:
    first = "" if section == "dataset" else FILE
    keys = "file: a.json, qqq: 1" if section == "dataset" else "qqq: 1"
    (line,) = errors(tmp_path, f"{first}{section}: {{{keys}}}\n")
    assert f"{section}.qqq: unknown key" in line


@pytest.mark.parametrize("key", ["1", "null", "true", "1.5"])
def test_key_that_is_no_text(tmp_path: Path, key: str) -> None:
    assert "unknown key" in errors(tmp_path, f"{FILE}{key}: 2\n")[0]
    assert "unknown key" in errors(tmp_path, f"{FILE}train: {{{key}: 2}}\n")[0]


def test_all_errors_at_once(tmp_path: Path) -> None:
    text = 'dataset:\n  file: 3\ntrain:\n  epochs: "5"\n  epoch: 5\nseed: -1\nseed: 2\n'
    lines = errors(tmp_path, text, "publish.repo=nobody", "nonsense")
    assert sorted(line.split(": ")[1] for line in lines if line.startswith("config.yaml")) == [
        "dataset.file",
        "seed stands here a second time; first at config.yaml:6:1",
        "train.epoch",
        "train.epochs",
    ]
    assert "config.yaml:4:3: train.epochs: found '5', expected a whole number" in lines
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
        ("model: [a]", "model: found ['a'], expected a section with keys, such as base"),
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
        "config.yaml:4:3: train.epochs stands here a second time; first at config.yaml:3:3"
    ]
    assert "dataset stands here a second time" in errors(tmp_path, FILE + FILE)[0]


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
def test_empty_file_lacks_the_dataset(tmp_path: Path, text: str) -> None:
    assert errors(tmp_path, text) == ["config.yaml:1:1: dataset: missing; expected a section `dataset:`"]


def test_missing_file_folder_and_latin_1(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml: no such file"):
        configs.load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        configs.load(tmp_path)
    assert errors(tmp_path, b"output: caf\xe9") == ["config.yaml: not UTF-8 text (byte 11); save the file as UTF-8"]


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + FILE) == read(tmp_path, FILE)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (FILE + "evaluate: {gate: f1, generate_rows: 0}", "2:12: evaluate.gate", "needs generated answers"),
        (FILE + "evaluate: {gate: exact_match, generate_rows: 0}", "2:12: evaluate.gate", "is exact_match"),
        (FILE + "evaluate: {gate: off, gate_threshold: 1}", "2:23: evaluate.gate_threshold", "gate is off"),
        (FILE + "publish: {tag: v1}", "2:11: publish.tag", "without publish.repo"),
        (FILE + "publish: {branch: b}", "2:11: publish.branch", "without publish.repo"),
        ("dataset: {file: a, name: b/c}", "1:1: dataset", "both file and name are set"),
        ("dataset: {file: '', name: b/c}", "1:1: dataset", "both file and name are set"),
        ("dataset: {split: train}", "1:1: dataset", "neither file nor name is set"),
        ("dataset:", "1:1: dataset", "neither file nor name is set"),
        ("dataset: {file: a, revision: b}", "1:20: dataset.revision", "is for a Hub data set"),
        ("dataset: {file: a, config: b}", "1:20: dataset.config", "is for a Hub data set"),
        ("dataset: {file: a, split: test}", "1:20: dataset.split", "is for a Hub data set"),
        ("dataset: {sources: [{file: a, split: test}]}", "1:31: dataset.sources.0.split", "is for a Hub data set"),
        ("dataset: {split: test, sources: [{file: a}]}", "1:11: dataset.split", "is set beside dataset.sources"),
        ("dataset: {revision: b, sources: [{name: a/b}]}", "1:11: dataset.revision", "is set beside dataset.sources"),
        ("dataset: {sources: [{file: a, question: q}]}", "1:31: dataset.sources.0.question", "is set alone"),
        ("dataset: {sources: [{file: a}, {name: b/c, answer: q}]}", "1:44: dataset.sources.1.answer", "is set alone"),
        ("dataset: {answer: q, sources: [{file: a}, {file: b}]}", "1:11: dataset.answer", "is set alone"),
        (
            "dataset: {question: q, test: t, sources: [{file: a, answer: b}]}",
            "1:11: dataset.question",
            "is set alone",
        ),
        ("dataset: {file: a, question: q}", "1:20: dataset.question", "is set alone"),
        ("dataset: {file: a, answer: q}", "1:20: dataset.answer", "is set alone"),
        ("dataset: {file: a, question: q, answer: q}", "1:33: dataset.answer", "name two columns"),
        ("dataset: {file: []}", "1:11: dataset.file", "is an empty list"),
        ("dataset: {file: a, test: []}", "1:20: dataset.test", "is an empty list"),
        ("dataset: {sources: [{file: []}]}", "1:22: dataset.sources.0.file", "is an empty list"),
        ("dataset: {file: a, test: b}\nsplit: {group: g}", "2:9: split.group", "dataset.test gives the test rows"),
        (
            FILE + "clean: {min_answer_characters: 9, max_answer_characters: 8}",
            "2:9: clean.min_answer_characters",
            "is 9, above",
        ),
        (
            FILE + "clean: {max_question_characters: 3, min_question_characters: 4}",
            "2:37: clean.min_question_characters",
            "is 4, above",
        ),
        (
            "dataset: {file: a, question: q, answer: r, ignore_columns: [x, q]}",
            "1:44: dataset.ignore_columns",
            "holds 'q', which dataset.question reads",
        ),
    ],
)
def test_contradictions(tmp_path: Path, text: str, place: str, words: str) -> None:
    (line,) = errors(tmp_path, text)
    assert line.startswith(f"config.yaml:{place}: ")
    assert words in line


@pytest.mark.parametrize(
    "dataset",
    [
        "{file: a, split: train}",
        "{name: a/b, split: test}",
        "{split: train, sources: [{name: a/b, split: test}, {file: c, split: train}]}",
        "{question: q, sources: [{file: a, answer: b}, {file: c, question: x, answer: y}]}",
        "{question: q, answer: b, sources: [{file: a, answer: c}, {name: d/e, question: x}, {file: f}]}",
    ],
)
def test_no_contradiction(tmp_path: Path, dataset: str) -> None:
    assert read(tmp_path, f"dataset: {dataset}").dataset


def test_gate_on_loss_needs_no_generated_answers(tmp_path: Path) -> None:
    run = read(tmp_path, FILE + "evaluate: {generate_rows: 0, gate_threshold: 2}")
    assert (run.evaluate.generate_rows, run.evaluate.gate_threshold) == (0, 2.0)


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
        train=schema.TrainSection(learning_rate=rate),
        output=output,
    )
    assert read(tmp_path, configs.dump(run)) == run


@pytest.mark.parametrize("text", [*NUMBERS, *WORDS, *BLANKS])
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str) -> None:
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
    assert set(schema["properties"]) == {*SECTIONS, "output", "seed"}
    assert schema["required"] == ["dataset"]
    assert all(part["additionalProperties"] is False for part in (schema, *schema["$defs"].values()))
    assert len(schema["$defs"]) == len(SECTIONS) + 1, "a section each, and a source"
    fields = (field for part in schema["$defs"].values() for field in part["properties"].values())
    assert all(field["description"] for field in fields)
