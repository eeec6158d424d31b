"""Schema: the keys of the config, with their types, defaults and meaning.

It knows each key on its own; `conflicts` knows the keys that contradict each other. It knows neither YAML nor what the
stages do with the keys.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal[
    "loss", "perplexity", "token_accuracy", "f1", "exact_match", "ended", "recall_at_1", "recall_at_5", "mrr_at_10"
]
Kind = Literal["generator", "retriever"]
LOWER_IS_BETTER: frozenset[str] = frozenset({"loss", "perplexity"})


class Section(BaseModel):
    """A section of the config: frozen, and with no other keys than its own."""

    # strict: YAML has its own types, so `epochs: "5"` is an error to report, not to convert
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Files = str | list[str]


class SourceSection(Section):
    """One of several sources of rows, an item of dataset.sources."""

    file: Files | None = Field(None, description="Local files, as dataset.file.")
    name: str | None = Field(None, description="Data set on the Hub (owner/name), instead of files.")
    config: str | None = Field(None, description="Configuration (subset) of the Hub data set.")
    revision: str | None = Field(None, description="Branch, tag or commit of the Hub data set.")
    split: str = Field("train", description="Split of the Hub data set.")
    question: str | None = Field(None, description="Column of its questions; dataset.question if not set.")
    answer: str | None = Field(None, description="Column of its answers; dataset.answer if not set.")
    ignore_columns: tuple[str, ...] = Field((), strict=False, description="Its columns that may be left out.")
    weight: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Share of its rows, drawn by seed.")


class DatasetSection(Section):
    """Where the rows come from."""

    file: Files | None = Field(
        None,
        description="Local file, glob, or a list of them: .json (array of rows), .jsonl, .csv, .parquet; .gz, .zst.",
    )
    name: str | None = Field(None, description="Data set on the Hub (owner/name), instead of a file.")
    config: str | None = Field(None, description="Configuration (subset) of the Hub data set.")
    revision: str | None = Field(None, description="Branch, tag or commit of the Hub data set.")
    split: str = Field("train", description="Split of the Hub data set.")
    question: str | None = Field(None, description="Column of the questions; found by its name if not set.")
    answer: str | None = Field(None, description="Column of the answers; found by its name if not set.")
    ignore_columns: tuple[str, ...] = Field(
        (), strict=False, description="Columns that may be left out though the questions seem to need them."
    )
    test: Files | None = Field(None, description="Local file, glob or list with the test rows, instead of a split.")
    sources: tuple[SourceSection, ...] = Field(
        (),
        strict=False,
        description="Several sources, each {file or name, config, revision, split, question, answer, "
        "ignore_columns, weight}; weight (1.0): share of its rows, drawn by seed.",
    )


Contacts = Literal["keep", "mask", "reject"]
# the languages that the stop words, the stemmer and the list of offensive words have in common
WordsLanguage = Literal[
    "arabic", "czech", "danish", "dutch", "english", "finnish", "french", "german", "hindi", "hungarian", "italian",
    "norwegian", "persian", "polish", "portuguese", "russian", "spanish", "swedish", "turkish",
]  # fmt: skip


class CleanSection(Section):
    """What is repaired, and which rows are rejected."""

    fix_text: bool = Field(True, description="Repair mojibake and normalise to Unicode NFC (ftfy).")
    remove_html: bool = Field(
        False, description="Make HTML plain text: tags go, and entities are decoded once, so that escaped code stays."
    )
    urls: Contacts = Field("keep", description="Web addresses: keep; mask, as [url]; or reject the row.")
    emails: Contacts = Field("keep", description="E-mail addresses: keep; mask, as [email]; or reject the row.")
    phone_numbers: Contacts = Field("keep", description="Phone numbers: keep; mask, as [phone]; or reject the row.")
    phone_region: Annotated[str, Field(pattern="^[A-Z]{2}$")] = Field(
        "US", description="Country of phone numbers that are written without one."
    )
    min_question_characters: Annotated[int, Field(ge=1)] = Field(1, description="Reject shorter questions.")
    max_question_characters: Annotated[int, Field(ge=1)] | None = Field(None, description="Reject longer questions.")
    min_answer_characters: Annotated[int, Field(ge=1)] = Field(1, description="Reject shorter answers.")
    max_answer_characters: Annotated[int, Field(ge=1)] | None = Field(None, description="Reject longer answers.")
    reject_placeholders: bool = Field(True, description="Reject texts of only dots, dashes or question marks.")
    reject_echoes: bool = Field(True, description="Reject answers that only repeat the question.")
    reject_repetition: bool = Field(True, description="Reject texts that are mostly one character or phrase repeated.")
    unwanted_words: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), strict=False, description="Reject rows that hold one of these words."
    )
    offensive: Literal["keep", "flag", "reject"] = Field(
        "keep", description="Rows with offensive words (glin-profanity): keep; flag, in the report; or reject."
    )
    languages: tuple[Annotated[str, Field(pattern="^[a-z]{2,3}$")], ...] = Field(
        (),
        strict=False,
        description="Reject texts that are certainly in a language other than these (ISO 639 codes); []: keep all.",
    )
    lowercase: bool = Field(False, description="Lower-case everything. Hurts a generative model.")
    remove_stop_words: bool = Field(False, description="Remove words such as the and of. Hurts a generative model.")
    stem: bool = Field(False, description="Cut words to lower-case stems (Snowball). Hurts a generative model.")
    words_language: WordsLanguage = Field(
        "english", description="Language of the offensive words, the stop words and the stems."
    )


class DedupeSection(Section):
    """Which rows count as repeats, and which of them stay."""

    exact: bool = Field(True, description="Keep one row of each question, ignoring case and punctuation.")
    near: bool = Field(True, description="Drop rows with nearly the same question and answer as an earlier row.")
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7, description="Minimum similarity of near twins: the Jaccard index of two rows' character trigrams."
    )
    conflicts: Literal["keep_first", "keep_longest", "keep_all", "fail"] = Field(
        "keep_first", description="Which rows to keep of those with the same question and different answers."
    )
    semantic_model: str | None = Field(
        None, description="Sentence-embedding model (Hub id or folder) that finds rows with the same meaning."
    )
    semantic_threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95, description="Minimum cosine, of questions and of answers, of two rows with the same meaning."
    )


class SplitSection(Section):
    """How the test rows are chosen."""

    test_size: Annotated[float, Field(gt=0, lt=1)] = Field(0.15, description="Share of the rows kept for testing.")
    group: str | None = Field(None, description="Column; rows with equal values in it stay on one side of the split.")
    keep_together: Literal["near_twins", "answers", "off"] = Field(
        "near_twins",
        description="What else stays on one side: near twins; answers: rows with the same long answer as well; off.",
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(
        None, description="Number of parts for k-fold cross-validation, instead of test_size."
    )
    fold: Annotated[int, Field(ge=1)] = Field(1, description="The part that is tested, from 1 to folds.")


class ModelSection(Section):
    """The model to start from."""

    kind: Kind = Field(
        "generator",
        description="generator: a causal language model that writes answers; retriever: an encoder that finds the "
        "answer among the rows.",
    )
    base: str = Field(
        "distilbert/distilgpt2",
        description="Hub id or local folder of the model to start from, or a checkpoint of an earlier run.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit of the base on the Hub.")
    gguf_file: str | None = Field(None, description="GGUF file inside base, if its weights come as GGUF.")
    chat_template: Literal["base", "kickoff"] = Field(
        "base", description="base: the base's own chat template, Kickoff's where it has none; kickoff: Kickoff's."
    )
    max_length: Annotated[int, Field(ge=8)] = Field(512, description="Longest row in tokens; longer ones are rejected.")
    max_new_tokens: Annotated[int, Field(ge=1)] = Field(
        128, description="Longest answer in tokens, published in generation_config.json."
    )


class TrainSection(Section):
    """How the model is trained."""

    epochs: Annotated[int, Field(ge=1)] = Field(5, description="Passes over the training rows.")
    paraphrases: Annotated[int, Field(ge=0)] = Field(
        0, description="Most rows to make from each training row, with its question in other words (English)."
    )
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of a question's words left out at random in each step; else a generator copies them."
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(8, description="Rows per process and forward pass.")
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = Field(
        1, description="Forward passes per optimizer step."
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(3e-5, description="Peak learning rate of AdamW.")
    lr_scheduler: Literal["linear", "cosine", "constant"] = Field("linear", description="Learning rate schedule.")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="Optimizer steps up to the peak learning rate.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="AdamW weight decay (matrices only).")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="Gradients are clipped to this norm.")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the hardware supports it, else fp16 on a GPU, else fp32."
    )
    device: Literal["auto", "gpu", "cpu"] = Field(
        "auto", description="auto: a GPU if there is one; gpu: refuse to run without one."
    )
    keep: Literal["best", "last"] = Field(
        "best", description="Weights that become the model: best: those with the lowest test loss; last."
    )
    test_steps: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Steps between measurements of the test loss, besides that after each epoch."
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Measurements in a row without a lower test loss that end the training early."
    )
    logging_steps: Annotated[int, Field(ge=1)] = Field(10, description="Steps between points of the loss curve.")
    save_steps: Annotated[int, Field(ge=1)] = Field(500, description="Steps between checkpoints.")
    save_minutes: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Longest time between checkpoints, in minutes; save_steps may come first."
    )
    save_total_limit: Annotated[int, Field(ge=1)] = Field(2, description="Checkpoints kept.")
    wandb_project: str | None = Field(
        None, description="Also log to this Weights & Biases project (pip install wandb)."
    )


class RetrieverSection(Section):
    """What is particular to a retriever."""

    query_prompt: str | None = Field(
        None, description='Text before each question, such as "query: "; not set: that of the base.'
    )
    document_prompt: str | None = Field(
        None, description='Text before each answer, such as "passage: "; not set: that of the base.'
    )
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.25, description="Share of a question's tokens left out at random while training, as other wordings do."
    )
    base_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="Share of the base's weights in the published ones; the rest are the tuned weights."
    )
    unknown: Files | None = Field(
        None,
        description="Local files with questions that no row answers: half of them set the threshold, the others "
        "measure it.",
    )
    max_wrong: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="Largest share of unknown questions that may get an answer; sets the threshold."
    )
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        None, description="Cosine below which the retriever does not know; not set: found from max_wrong."
    )
    unknown_answer: Annotated[str, Field(min_length=1)] = Field(
        "I do not know.", description="What a chat is answered below the threshold."
    )


class EvaluateSection(Section):
    """How the model is measured, and the gate before publishing."""

    generate_rows: Annotated[int, Field(ge=0)] = Field(
        200, description="Test questions answered by generation, drawn by seed; 0: none, and no f1, exact_match, ended."
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(32, description="Rows per forward pass while evaluating.")
    gate: Metric | Literal["auto", "off"] = Field(
        "auto",
        description="Metric that decides whether to publish, or off; auto: loss for a generator, mrr_at_10 for a "
        "retriever.",
    )
    gate_threshold: float | None = Field(
        None,
        description="Value the gate's metric must reach; not set: better than the base model, for a retriever at "
        "least as good as the base model and BM25.",
    )


class PublishSection(Section):
    """Where the model is published."""

    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = Field(
        None, description="Model repository on the Hub, owner/name."
    )
    private: bool = Field(True, description="Visibility of the repository if it is created.")
    branch: str | None = Field(None, description="Branch of the repository; main if not set.")
    tag: str | None = Field(None, description="Tag put on the published commit.")
    folder: str | None = Field(None, description="Publish to this folder (as well as, or instead of, the Hub).")
    samples: bool = Field(False, description="Show a few test questions with their answers on the model card.")
    replace: bool = Field(
        False, description="Replace a folder or repository that holds anything but a model published by Kickoff."
    )
    license: str | None = Field(None, description="Licence field of the model card, such as apache-2.0.")
    language: str | None = Field("en", description="Language field of the model card.")
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        60, description="Longest time to wait for the Hub, in seconds."
    )


class Config(Section):
    """A run, from the data set to the published model."""

    dataset: DatasetSection = Field(description="Where the rows come from.")
    clean: CleanSection = Field(CleanSection(), description="What is repaired and what is rejected.")
    dedupe: DedupeSection = Field(DedupeSection(), description="Which repeated rows are dropped.")
    split: SplitSection = Field(SplitSection(), description="How the test rows are chosen.")
    model: ModelSection = Field(ModelSection(), description="The model to start from.")
    train: TrainSection = Field(TrainSection(), description="Fine-tuning.")
    retriever: RetrieverSection = Field(RetrieverSection(), description="What is particular to a retriever.")
    evaluate: EvaluateSection = Field(EvaluateSection(), description="Measuring, and the gate before publishing.")
    publish: PublishSection = Field(PublishSection(), description="Where the model goes.")
    output: str = Field("runs/kickoff", description="Run folder: checkpoints, model, report.")
    seed: Annotated[int, Field(ge=0)] = Field(42, description="Seed of the split, the row order and dropout.")
