"""Finds a published model in a folder or fetches it from the Hub, and refuses one that cannot be served.

A generator's repository must follow the Hub's conventions: config.json, safetensors weights, a tokenizer with a chat
template, and an end-of-sequence token. A retriever's has a retriever.json; `retriever/files.py` knows its files. A
grounded generator's has both, the retriever in a subfolder; `grounding.py` knows it.
This module knows files and the Hub. It does not load weights, and it never imports torch.
"""

import errno
import glob
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._http import default_client_factory  # the public API only replaces the whole client

from serve import confidence, grounding, weights
from serve.decoding import SUPPORTED, unsupported_settings
from serve.messages import one_line
from serve.retriever import files as retriever

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
FORBIDDEN = {errno.EACCES, errno.EPERM}
"""Errors of the folder that files are fetched to: `FULL` has no room, `FORBIDDEN` no permission to write."""
SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]
T = TypeVar("T")


class Refused(Exception):
    """The model cannot be served; the text says which model, what was expected and found, and what to do."""


@dataclass(frozen=True)
class Published:
    """A model on this machine. `revision` is the commit on the Hub, or a digest of the folder's files."""

    name: str
    revision: str
    folder: Path

    @property
    def is_retriever(self) -> bool:
        """Whether it finds published answers; otherwise it generates them."""
        return retriever.is_retriever(self.folder)

    @property
    def is_grounded(self) -> bool:
        """Whether it generates answers from published rows, which a retriever finds."""
        return grounding.is_grounded(self.folder)


@dataclass(frozen=True)
class Decoding:
    """The published decoding defaults, used where a request says nothing; from generation_config.json."""

    max_new_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float = 0.0
    min_new_tokens: int = 0


def find(model: str, revision: str | None, timeout_seconds: float = 10.0) -> Published:
    """Find or fetch a model's files and check that they can be served.

    Args:
        model: a folder, or owner/name on the Hub.
        revision: commit, tag or branch; None is the default branch. Not for a folder.
        timeout_seconds: longest time to wait for the Hub without an answer.

    Raises:
        Refused: the files are not available, or something is missing.
    """
    if Path(model).is_dir():
        if revision is not None:
            raise Refused(f"{model} is a folder; --revision is for models on the Hub, leave it out")
        folder = Path(model).resolve()
        _check(model, folder)
        return Published(model.rstrip("/"), _digest(folder), folder)
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise Refused(f"{model}: no such folder, and a model on the Hub is named owner/name")
    return _from_hub(model, revision, timeout_seconds)


def decoding(folder: Path) -> Decoding:
    """Read the published decoding defaults from `folder`.

    A setting that the file leaves out has transformers' default (greedy; top_k 50 if sampling).
    """
    config = _generation_config(folder)
    sampling = config.get("do_sample") is True
    temperature, top_p, top_k = config.get("temperature"), config.get("top_p"), config.get("top_k")
    return Decoding(
        max_new_tokens=config.get("max_new_tokens"),
        temperature=(1.0 if temperature is None else float(temperature)) if sampling else 0.0,
        top_p=1.0 if top_p is None else float(top_p),
        top_k=(50 if sampling else 0) if top_k is None else int(top_k),
        min_p=float(config.get("min_p") or 0),
        min_new_tokens=config.get("min_new_tokens") or 0,
    )


def eos_ids(folder: Path) -> list[int]:
    """Read the end-of-sequence token ids, which end an answer, from `folder`."""
    ids = _generation_config(folder)["eos_token_id"]
    return ids if isinstance(ids, list) else [ids]


def _from_hub(model: str, revision: str | None, timeout_seconds: float) -> Published:
    _limit_waiting(timeout_seconds)
    label = f"{model}@{revision}" if revision else model
    try:
        folder = huggingface_hub.snapshot_download(
            model, revision=revision, allow_patterns=SMALL_FILES, ignore_patterns=["*/*"]
        )
        _check(label, Path(folder), with_weights=False)  # before gigabytes are fetched
        _fetch_weights(label, model, Path(folder))
        _fetch_index(label, model, Path(folder))
    except GatedRepoError:
        raise Refused(f"{label}: the model is gated; accept its terms on the Hub and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise Refused(f"{label}: no such revision; expected a branch, a tag or a commit of {model}") from None
    except RepositoryNotFoundError:
        raise Refused(f"{label}: not on the Hub, or private; check the name, and set HF_TOKEN if private") from None
    except HFValidationError:
        raise Refused(f"{label}: not a Hub name; expected a folder that exists, or owner/name") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError) as error:
        raise Refused(f"{label}: {_why_not_fetched(error)}") from None
    _check(label, Path(folder))
    return Published(model, Path(folder).name, Path(folder))


def _why_not_fetched(error: BaseException) -> str:
    """Say whether the Hub or this machine is at fault, by the errors that `error` was raised from."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    for cause in causes:
        number = getattr(cause, "errno", None)
        full = number in FULL or any(f"os error {code})" in str(cause) for code in FULL)  # the latter is xet's
        # an error without a file name may be a connection's that a firewall forbids
        if full or (isinstance(cause, OSError) and number in FORBIDDEN and cause.filename is not None):
            cache = huggingface_hub.constants.HF_HUB_CACHE
            return f"cannot be written to {cache} ({one_line(cause)}); make room or set HF_HOME"
    return f"the Hub cannot be reached and there is no local copy ({one_line(error.__cause__ or error)}); try again"


def _fetch_weights(label: str, model: str, folder: Path) -> None:
    """Fetch the single weights file, or the files that the index names; no copy of them in another format."""
    huggingface_hub.snapshot_download(model, revision=folder.name, allow_patterns=weights.SINGLE)
    if not (folder / weights.SINGLE).exists() and (names := _weights(label, folder, weights.indexed_files)):
        escaped = [glob.escape(name) for name in names]
        huggingface_hub.snapshot_download(model, revision=folder.name, allow_patterns=escaped)


def _fetch_index(label: str, model: str, folder: Path) -> None:
    """Fetch a retriever's answers, their vectors, and the subfolders of its modules."""
    if retriever.is_retriever(folder):
        patterns = _refusing(label, retriever.large_patterns, folder)
        huggingface_hub.snapshot_download(model, revision=folder.name, allow_patterns=patterns)
    if grounding.is_grounded(folder):
        huggingface_hub.snapshot_download(model, revision=folder.name, allow_patterns=grounding.PATTERNS)


def _weights(label: str, folder: Path, which: Callable[[Path], list[str]] = weights.weight_files) -> list[str]:
    return _refusing(label, which, folder)


def _refusing(label: str, ask: Callable[[Path], T], folder: Path) -> T:
    """Return `ask(folder)`; refuse the model if that raises a ValueError."""
    try:
        return ask(folder)
    except ValueError as error:
        raise Refused(f"{label}: {error}") from None


def _limit_waiting(timeout_seconds: float) -> None:
    """Set a time-out for all calls to the Hub; a hook sets it for listing calls too, which switch it off."""
    limit = httpx2.Timeout(timeout_seconds)

    def bound(request: httpx2.Request) -> None:
        if all(value is None for value in request.extensions["timeout"].values()):
            request.extensions["timeout"] = limit.as_dict()

    def client() -> httpx2.Client:
        session = default_client_factory()
        session.timeout = limit
        session.event_hooks = {**session.event_hooks, "request": [*session.event_hooks["request"], bound]}
        return session

    huggingface_hub.set_client_factory(client)


def _check(label: str, folder: Path, with_weights: bool = True) -> None:
    if retriever.is_retriever(folder):
        _refusing(label, partial(retriever.check, complete=with_weights), folder)
    else:
        _check_generator(label, folder, with_weights)


def _check_generator(label: str, folder: Path, with_weights: bool) -> None:
    missing = []
    if not _json(label, folder / "config.json"):
        missing.append("config.json")
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        missing.append("tokenizer.json")
    if not _has_template(label, folder):
        missing.append("a chat template (chat_template.jinja, or chat_template in tokenizer_config.json)")
    if _generation_config(folder).get("eos_token_id") is None:
        missing.append("an end-of-sequence token (eos_token_id in generation_config.json)")
    if with_weights and (lost := [name for name in _weights(label, folder) if not (folder / name).exists()]):
        patterns = ("*.bin", "*.pt", "*.gguf", "*.safetensors")
        other = sorted({path.name for pattern in patterns for path in folder.glob(pattern)})
        hint = f", found only {', '.join(other)}: save it with transformers' save_pretrained" if other else ""
        missing.append(f"weights as .safetensors ({', '.join(lost)}){hint}")
    if missing:
        raise Refused(f"{label} cannot be served, it lacks {'; '.join(missing)}")
    _refuse_unknown_decoding(label, folder)
    _refusing(label, confidence.read, folder)
    if grounding.is_grounded(folder):
        _refusing(label, partial(grounding.check, complete=with_weights), folder)


def _refuse_unknown_decoding(label: str, folder: Path) -> None:
    path = folder / "generation_config.json"
    published = _json(label, path) if path.exists() else None
    if unsupported := unsupported_settings(published, _json(label, folder / "config.json")):
        raise Refused(
            f"{label}: {path.name if path.exists() else 'config.json'} asks for {', '.join(unsupported)}, which this "
            f"server does not support; it supports {', '.join(SUPPORTED)}. Remove from the file what is not needed"
        )


def _has_template(label: str, folder: Path) -> bool:
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    return bool(_json(label, folder / "tokenizer_config.json").get("chat_template"))


def _generation_config(folder: Path) -> dict[str, Any]:
    """The content of generation_config.json, or else of config.json, as in transformers."""
    path = folder / "generation_config.json"
    return _json(str(folder), path if path.exists() else folder / "config.json")


def _json(label: str, path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Refused(f"{label}: {path.name} cannot be read ({error}); publish the model again") from None
    if not isinstance(content, dict):
        raise Refused(f"{label}: {path.name} holds no JSON object; publish the model again")
    return content


def _digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the served files, so that equal folders have equal revisions."""
    digest = hashlib.sha256()
    served = {path for pattern in SMALL_FILES for path in folder.glob(pattern)}
    served |= {folder / name for name in weights.weight_files(folder)}
    if retriever.is_retriever(folder):
        served |= {*retriever.served_files(folder)}
    if grounding.is_grounded(folder):
        served |= {*grounding.served_files(folder)}
    for path in sorted(served):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"
