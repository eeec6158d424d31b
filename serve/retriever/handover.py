"""Hands the encoder's tokenizer to the HTTP process in a file, so that both count the same tokens.

The HTTP process counts the tokens of a question before it sends it to the engine. It could load the tokenizer itself
only with transformers, which brings torch. The file lies beside the socket of the link; each engine writes the same.

It knows the tokenizers library. It does not know the encoder or HTTP.
"""

import json
import os
from pathlib import Path

from tokenizers import Tokenizer

from serve.retriever.request import Side

NAME = "tokens.json"


def write(socket: Path, prompts: dict[Side, str], tokenizer: Tokenizer) -> None:
    """Write the file beside `socket`: the prompt of each side, and a tokenizer that cuts and pads nothing."""
    part = socket.with_name(f"{NAME}.{os.getpid()}")
    part.write_text(json.dumps({"prompts": prompts, "tokenizer": tokenizer.to_str()}))
    part.replace(socket.with_name(NAME))  # no reader sees half of it


def read(socket: Path) -> tuple[dict[Side, str], Tokenizer]:
    """Read what an engine has written."""
    content = json.loads(socket.with_name(NAME).read_text())
    return content["prompts"], Tokenizer.from_str(content["tokenizer"])
