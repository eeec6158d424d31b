"""Encoder: loads the encoder of a retriever, as `encoder_base` fetched it or a training left it.

It knows sentence-transformers, which is imported only here and only when it is needed.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def load_encoder(folder: Path, device: torch.device | str = "cpu") -> "SentenceTransformer":
    """Load an encoder in fp32 from a folder that `fetch` or a training wrote."""
    from sentence_transformers import SentenceTransformer  # imports scikit-learn, which a generator does not need

    return SentenceTransformer(
        str(folder),
        device=str(device),
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"dtype": torch.float32, "use_safetensors": True},
    )
