"""Train section: the keys of the training, with those that a search may find, and with a number for each of them."""

from typing import Annotated, Literal

from pydantic import Field

from job.config.section import Section


class AskedTrainSection(Section):
    """How the model is trained, as the config asks: two of the keys may be left to a search."""

    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        5, description="Passes over the training rows; auto: found by a search."
    )
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
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        3e-5, description="Peak learning rate of AdamW; auto: found by a search."
    )
    search_minutes: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Longest time, in minutes, that the search takes for the keys that are auto."
    )
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


class TrainSection(AskedTrainSection):
    """How the model is trained, with a number for every key."""

    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] = 3e-5
