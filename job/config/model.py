"""Model: the keys of the config's section `model`: the base, and the retriever that it is grounded in."""

from typing import Annotated, Literal

from pydantic import Field

from job.config.section import Section

Kind = Literal["generator", "retriever"]


class DecodingSection(Section):
    """Settings of greedy decoding, as generation_config.json and the server name them."""

    repetition_penalty: Annotated[float, Field(gt=0)] = Field(1.0, description="Above 1: used tokens are less likely.")
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] = Field(0, description="No so many tokens come again; 0: off.")


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
    decoding: DecodingSection | Literal["greedy", "auto"] = Field(
        "greedy",
        description="How answers are decoded, published in generation_config.json: greedy; {repetition_penalty: 1.1, "
        "no_repeat_ngram_size: 3} with one or both; auto: found by a search.",
    )
    ground: str | None = Field(
        None, description="Hub id or local folder of a published retriever, whose nearest rows the prompt carries."
    )
    ground_revision: str | None = Field(None, description="Branch, tag or commit of that retriever on the Hub.")
    ground_rows: Annotated[int, Field(ge=1, le=20)] = Field(3, description="Retrieved rows in a prompt.")
    ground_misses: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05,
        description="Share of the training rows that get near misses alone, and the retriever's unknown_answer as "
        "their answer.",
    )
