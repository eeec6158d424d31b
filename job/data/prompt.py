"""From a question to the ids that go into the model: the one sentence of the contract with any server.

`[{"role": "user", "content": question}]` through the tokenizer's chat template with `add_generation_prompt=True`.
"""

from transformers import PreTrainedTokenizerBase


def prompt_ids(questions: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each question, ready for the answer to follow."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False) if chats else []
    # the template has written every special token itself
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return ids
