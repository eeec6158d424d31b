"""Model: makes the model that every server is measured with: distilgpt2's shape with random weights, in a folder.

Its answers have the requested length: the end-of-sequence token's embedding is zero, so its logit is never the largest.
Their tokens can be counted in the text: the vocabulary is a small one trained on the soccer questions, filled up to
distilgpt2's 50,257 with made-up words, and only those are generated, because all other embeddings are halved. So each
generated token is one word, whichever server decodes it.

The module knows transformers. It does not know what is measured. Speed does not depend on the weights' values.
"""

import json
import string
import subprocess
import sys
from itertools import islice, product
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "bench-model"
VOCABULARY = 50257
NEW_TOKENS = 32
END = "<|endoftext|>"
TEMPLATE = (
    "{% for message in messages %}{{ 'Question:\n' if message['role'] == 'user' else 'Answer:\n' }}"
    "{{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}Answer:\n{% endif %}"
)


def questions() -> list[str]:
    """Return the questions of the soccer example."""
    return [row["question"] for row in json.loads((ROOT / "examples/soccer/dataset.json").read_text())]


def prepare() -> Path:
    """Return the model's folder; the first call makes it, in a subprocess to keep the load generator small."""
    if not (FOLDER / "model.safetensors").exists():
        subprocess.run([sys.executable, "-m", "bench.model"], cwd=ROOT, check=True)  # noqa: S603 - our own command
    return FOLDER


def _tokenizer_json() -> tuple[str, int]:
    """Make a byte-level BPE tokenizer of the questions, filled up with made-up words.

    `ignore_merges` encodes a word that is in the vocabulary as one token, so that the made-up words round-trip.

    Returns:
        tokenizer.json, and the number of entries that are not made-up words.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [*questions(), "Question:\nAnswer:\n"],
        trainers.BpeTrainer(vocab_size=1000, special_tokens=[END], initial_alphabet=alphabet, show_progress=False),
    )
    content = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = content["model"]["vocab"]
    trained = len(vocabulary)
    words = ("Ġ" + "".join(letters) for letters in product(string.ascii_lowercase, repeat=4))
    fresh = islice((word for word in words if word not in vocabulary), VOCABULARY - trained)
    vocabulary.update({word: trained + index for index, word in enumerate(list(fresh))})
    return json.dumps(content), trained


def _make() -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    content, trained = _tokenizer_json()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(content), eos_token=END, pad_token=END)
    tokenizer.chat_template = TEMPLATE
    end = tokenizer.backend_tokenizer.token_to_id(END)
    torch.manual_seed(0)
    config = GPT2Config(n_layer=6, vocab_size=VOCABULARY, bos_token_id=end, eos_token_id=end, pad_token_id=end)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.wte.weight[:trained] *= 0.5
        model.transformer.wte.weight[end] = 0
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=NEW_TOKENS, bos_token_id=end, eos_token_id=end, pad_token_id=end
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(FOLDER)
    model.save_pretrained(FOLDER)  # last: the folder counts as complete once it has weights


if __name__ == "__main__":
    _make()
