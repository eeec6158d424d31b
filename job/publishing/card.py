"""Card: renders the README.md of the published repository, with the Hub's metadata on top.

It knows the facts of the run and the card's template. Names of files, folders and columns and the text of rows are
escaped, so that they never become HTML or Markdown. Local paths are reduced to their last name, and rows appear only if
`publish.samples` allows it.
"""

import json
import shlex
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from job.config.schema import Config
from job.publishing import markdown, paths
from job.report.rendering import METRICS, Sample, environment, kept_weights, metric_rows, side_by_side, value_of
from job.run import fact_files
from job.run.facts import Answers, BaseFacts, DataFacts, Metrics, Source, TrainingFacts
from job.run.search_facts import SearchFacts
from job.search import words

Record = TypeVar("Record")
PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "huggingface_hub")
ENCODER_PACKAGES = ("sentence-transformers", *PACKAGES)
SAMPLES = 5


def card(run: Path, config: Config) -> str:
    """Render the model card from the facts in the run folder.

    Args:
        run: The run folder, after evaluation.
        config: The run's config with resolved revisions.
    """
    data, training = _require_facts(run, DataFacts), _require_facts(run, TrainingFacts)
    metrics, base = _require_facts(run, Metrics), _require_facts(run, BaseFacts)
    search = fact_files.read(run, SearchFacts)
    sources = [replace(source, source=_source(source)) for source in data.sources]
    samples = side_by_side(_require_facts(run, Answers))[:SAMPLES] if config.publish.samples else []
    templates = environment()
    templates.filters["text"] = markdown.text
    is_retriever = config.model.kind == "retriever"
    template = "retriever_card.md.jinja" if is_retriever else "model_card.md.jinja"
    return templates.get_template(template).render(
        data=data,
        training=training,
        kept=kept_weights(training),
        search=search,
        found=words.found(search) if search is not None else "",
        metrics=metrics,
        base=replace(base, base=_base(base)),
        sources=sources,
        measured=metric_rows(metrics),
        metadata=str(ModelCard(f"---\n{_metadata(config, metrics, sources, base).to_yaml()}\n---")).strip(),
        samples=samples,
        train=config.train.model_dump(exclude={"search_minutes"}),
        model=config.model.model_dump(),
        retriever=config.retriever.model_dump(exclude={"unknown"}),
        ground=_ground(config),
        seed=config.seed,
        versions={name: version(name) for name in (ENCODER_PACKAGES if is_retriever else PACKAGES)},
        **_usage(run, config, samples),
    )


def _usage(run: Path, config: Config, samples: list[Sample]) -> dict[str, str]:
    """Return the values of the usage examples, quoted for shell or Python; a JSON string is valid Python too."""
    repo, branch = config.publish.repo, config.publish.branch
    title = repo or paths.name(config.publish.folder or str(run))
    revision = f", revision={_quote(branch)}" if repo and branch else ""
    option = f" --revision {shlex.quote(branch)}" if repo and branch else ""
    return {
        "title": title,
        "loaded": _quote(title) + ("" if repo else "  # the path of this folder"),
        "revision": revision,
        "serve": f"python -m serve {shlex.quote(' '.join(title.split()))}{option}",
        "question": _quote(samples[0].question if samples else "Your question?"),
    }


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _metadata(config: Config, metrics: Metrics, sources: list[Source], base: BaseFacts) -> ModelCardData:
    is_retriever = config.model.kind == "retriever"
    tested = sources[-1:] if config.dataset.test is not None else sources
    on_hub = [source.source for source in sources if source.revision is not None]
    dataset_type = tested[0].source if len(tested) == 1 and tested[0].revision is not None else "file"
    results = [
        EvalResult(
            task_type="sentence-similarity" if is_retriever else "text-generation",
            dataset_type=dataset_type,
            dataset_name=", ".join(source.source.split("/")[-1] for source in tested),
            metric_type=key,
            metric_name=name,
            metric_value=round(float(value), 6),
        )
        for key, name in METRICS.items()
        if (value := value_of(metrics.model, key)) is not None
    ]
    return ModelCardData(
        model_name=(config.publish.repo or paths.name(config.publish.folder or "model")).split("/")[-1],
        base_model=base.base if base.revision is not None else None,
        datasets=list(dict.fromkeys(on_hub)) or None,
        language=config.publish.language,
        license=config.publish.license,
        library_name="sentence-transformers" if is_retriever else "transformers",
        pipeline_tag="sentence-similarity" if is_retriever else "text-generation",
        tags=["question-answering", "kickoff"],
        eval_results=results or None,
    )


def _source(source: Source) -> str:
    """Return a data set's name on the Hub, or a file's last name."""
    return source.source if source.revision is not None else paths.name(source.source)


def _base(base: BaseFacts) -> str:
    return base.base if base.revision is not None else paths.name(base.base)


def _ground(config: Config) -> str | None:
    """Return the retriever's name on the Hub, or its folder's last name; None for a model that is not grounded."""
    name, revision = config.model.ground, config.model.ground_revision
    return name if name is None or revision is not None else paths.name(name)


def _require_facts(run: Path, kind: type[Record]) -> Record:
    facts = fact_files.read(run, kind)
    assert facts is not None, kind  # noqa: S101 - the card is rendered after all stages have written their facts
    return facts
