"""Chat templates of the families of models, each with a small tokenizer of its kind."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkout import ROOT
from tiny import ROWS
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from serve.http.text import Text

Chat = list[dict[str, Any]]


@dataclass(frozen=True)
class Style:
    """A family's template and tokens."""

    template: str
    special: list[str]
    end: str
    plain: list[str] = field(default_factory=list)
    """Added without being special."""
    roles: str = "system user assistant user"
    kind: str = "bytes"
    swallows: bool = False
    """Special tokens swallow the blanks behind them."""


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0].content %}"
    "{% else %}{% set rest = messages %}{% set system = false %}{% endif %}"
    "{% for m in rest %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system %}{% set said = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m.content %}"
    "{% else %}{% set said = m.content %}{% endif %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + said.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + said.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\n\n' ~ m.content | trim ~ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ m.content + eos_token + ' ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL3 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set loop_messages = messages[1:] %}"
    "{% else %}{% set loop_messages = messages %}{% endif %}{{ bos_token }}"
    "{% for m in loop_messages %}{% if m['role'] == 'user' %}"
    "{% if loop.last and system is defined %}{{ '[INST]' + system + '\n\n' + m['content'] + '[/INST]' }}"
    "{% else %}{{ '[INST]' + m['content'] + '[/INST]' }}{% endif %}"
    "{% elif m['tool_calls'] is defined and m['tool_calls'] is not none %}{{ '[TOOL_CALLS][' }}"
    "{% for call in m['tool_calls'] %}{{ call['function'] | tojson }}{{ ', ' if not loop.last }}{% endfor %}"
    "{{ ']' + eos_token }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    "{% elif m['role'] == 'tool' %}{{ '[TOOL_RESULTS]{\"content\": ' + (m['content'] | tojson) + '}[/TOOL_RESULTS]' }}"
    "{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + '\n' + m['content'] + '<|end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' + '\n' }}{% else %}{{ eos_token }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + eos_token }}"
    "{% elif m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + eos_token }}"
    "{% else %}{{ '<|assistant|>\n' + m['content'] + eos_token }}{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}{% endfor %}"
)
QWEN3 = (
    "{% set ns = namespace(last=messages|length - 1, found=false) %}"
    "{% for m in messages[::-1] %}{% set at = messages|length - 1 - loop.index0 %}"
    "{% if not ns.found and m.role == 'user' and not (m.content.startswith('<tool_response>')"
    " and m.content.endswith('</tool_response>')) %}"
    "{% set ns.found = true %}{% set ns.last = at %}{% endif %}{% endfor %}"
    "{% for m in messages %}"
    "{% if m.content is string %}{% set content = m.content %}{% else %}{% set content = '' %}{% endif %}"
    "{% if m.role == 'assistant' %}{% set thought = '' %}"
    "{% if '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>assistant\n' }}"
    "{% if loop.index0 > ns.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ content }}"
    "{% for call in m.tool_calls or [] %}{% set call = call.function or call %}"
    '{{ \'\n<tool_call>\n{"name": "\' + call.name + \'", "arguments": \' }}'
    "{{ call.arguments if call.arguments is string else call.arguments | tojson }}{{ '}\n</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}"
    "{% elif m.role == 'tool' %}{{ '<|im_start|>user\n<tool_response>\n' + content }}"
    "{{ '\n</tool_response><|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEEPSEEK = (
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.system = ns.system ~ m['content'] %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{% set content = m['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content.strip() + ' ' }}"
    "{% elif m.role == 'assistant' %}{{ 'ASSISTANT: ' + m.content.strip() + eos_token }}"
    "{% else %}{{ m.content.strip() + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
ALPACA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content|trim }}\n\n"
    "{% elif m.role == 'assistant' %}### Response:\n{{ m.content|trim }}{{ eos_token }}\n\n"
    "{% else %}{{ m.content|trim }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
KICKOFF = (ROOT / "job" / "model" / "chat_template.jinja").read_text()
EDITING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ (m.content | replace('#', '') | replace('~~', '<'))[:300] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
SHOUTING = (
    "{% for m in messages %}<|IM_START|>{{ m.role }}\n{{ m.content.upper() }} {{ m.content|lower|title }}<|IM_END|>\n"
    "{% if '<|IM_END|>' in m.content %}It names its end.{% endif %}{% endfor %}<|IM_START|>assistant\n"
)
LINES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{% for line in m.content.splitlines() %}\n> {{ line }}{% endfor %}"
    "{{ m.content.split() | join(' ') }}{{ m.content|length }}{{ m.content|tojson }}{{ m.content.partition('|')[2] }}"
    "<|im_end|>\n{% endfor %}{% macro say(x) %}[{{ x }}]{% endmacro %}{{ say(messages[-1].content) }}<|im_start|>\n"
)
ML, HEADERS = ["<|im_start|>", "<|im_end|>"], ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
S, PHI = ["<s>", "</s>"], ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]
QWEN_TOKENS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
TURNS = "user assistant user"
STYLES = {
    "chatml": Style(CHATML, [*ML, "<|endoftext|>"], "<|im_end|>"),
    "llama 2": Style(LLAMA2, S, "</s>", kind="pieces"),
    "llama 2, markers added": Style(LLAMA2, S, "</s>", plain=["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"]),
    "llama 3": Style(LLAMA3, ["<|begin_of_text|>", *HEADERS], "<|eot_id|>"),
    "mistral v1": Style(MISTRAL, S, "</s>", roles=TURNS, kind="pieces"),
    "mistral v3": Style(MISTRAL3, [*S, "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"],
                        "</s>", kind="pieces"),
    "phi 3": Style(PHI3, PHI, "<|endoftext|>", swallows=True),
    "phi 3, in pieces": Style(PHI3, PHI, "<|endoftext|>", kind="pieces", swallows=True),
    "gemma": Style(GEMMA, ["<bos>", "<eos>"], "<eos>", plain=["<start_of_turn>", "<end_of_turn>", "\n\n"], roles=TURNS),
    "gemma, special": Style(GEMMA, ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<eos>", roles=TURNS,
                            kind="unigram"),
    "zephyr": Style(ZEPHYR, S, "</s>", kind="unigram"),
    "qwen 3": Style(QWEN3, [*ML, "<|endoftext|>"], "<|im_end|>", plain=QWEN_TOKENS),
    "deepseek": Style(DEEPSEEK, ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
                      "<｜end▁of▁sentence｜>", plain=["<think>", "</think>"]),
    "vicuna": Style(VICUNA, S, "</s>", kind="pieces"),
    "alpaca": Style(ALPACA, S, "</s>"),
    "kickoff": Style(KICKOFF, ["<|endoftext|>"], "<|endoftext|>"),
    "edits": Style(EDITING, [*ML, "<|endoftext|>"], "<|im_end|>"),
    "shouts": Style(SHOUTING, ["<|IM_START|>", "<|IM_END|>"], "<|IM_END|>"),
    "by lines": Style(LINES, [*ML, "<|endoftext|>"], "<|im_end|>"),
}  # fmt: skip


def backend(style: Style) -> Tokenizer:
    """A tokenizer of the style's kind: bytes as GPT-2, pieces as Llama 2's, pieces by their weight as T5's."""
    words = [text for row in ROWS[:9] for text in row.values()]
    if style.kind == "unigram":
        letters = sorted({*"".join(words), *"▁<>|/[]_abcdefghijklmnopqrstuvwxyz"} - {" "})
        pieces = [("<unk>", 0.0), *((token, 0.0) for token in style.special), *((one, -5.0) for one in letters)]
        found = Tokenizer(models.Unigram(pieces, unk_id=0))
        found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        found.decoder = decoders.Metaspace(prepend_scheme="first")
        return found
    pieces_too = style.kind == "pieces"
    found = Tokenizer(models.BPE(byte_fallback=pieces_too, unk_token="<unk>" if pieces_too else None))
    alphabet = [] if pieces_too else pre_tokenizers.ByteLevel.alphabet()
    tokens = ["<unk>", *style.special, *(f"<0x{byte:02X}>" for byte in range(256))] if pieces_too else style.special
    if pieces_too:
        found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        found.decoder = decoders.Sequence([
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
        ])  # fmt: skip
    else:
        found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        found.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=700, initial_alphabet=alphabet, special_tokens=tokens, show_progress=False)
    found.train_from_iterator(words, trainer)
    content = json.loads(found.to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if not one["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(content))


def text_of(style: Style, folder: Path) -> Text:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend(style),
        eos_token=style.end,
        bos_token=style.special[0],
        clean_up_tokenization_spaces=False,
    )
    special = [AddedToken(one, normalized=False, special=True, rstrip=style.swallows) for one in style.special]
    tokenizer.add_tokens(special)
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in style.plain])
    tokenizer.chat_template = style.template
    tokenizer.save_pretrained(folder)
    return Text(folder)


def control_of(style: Style) -> list[str]:
    """What nobody but the template may write."""
    around = [token for token in style.plain if token.strip() and "think" not in token and "tool_call" not in token]
    return [*style.special, *around]


def controls(text: Text, style: Style, ids: list[int]) -> list[int]:
    own = set(text.tokenizer.convert_tokens_to_ids(control_of(style)))
    return [id for id in ids if id in own]


def harmless(content: str) -> str:
    return re.sub(r"\S", "x", content)
