"""Wording: a text brought to the form in which texts that say the same are equal.

Case, blanks and the punctuation of sentences go; what carries meaning stays: symbols (C++, 5 %), signs between digits
(1.5, 5-4, 10:30) and before them (-5), superscripts (x²), operators (!=, ->, //), brackets of code, the case of units
(mW and MW) and of options (-v and -V), and the indentation of lines. It knows characters of any script. It does not
know what words mean.
"""

import re
import unicodedata

_VARIATION = re.compile(r"[\ufe00-\ufe0f]")  # how an emoji is drawn; Unicode counts it as a mark
_DASH = re.compile(r"[\u2010-\u2015\u2212]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_INDENTED = re.compile(r"\n([ \t]+)(?=\S)")
_QUOTES = "\"'`“”‘’«»‹›„‚「」『』"
_BEFORE = _QUOTES + "(¿¡（"
_AFTER = _QUOTES + ").,:;!?…。！？、，：；）"
_ENDING = ".,:;!?…。！？、，：；¿¡"
_KEPT = re.compile(
    r"((?<=\d)[.,:/^-](?=\d)"  # 1.5, 5-4, 10:30, 3/4
    r"|(?<!\S)(?:--?|!|\.)(?=\w)|(?<=\()-(?=\d)"  # -5, -v, !x, .NET, f(-1)
    r"|(?<=\d)!(?=[^\w\s])"  # 5!
    r"|[\[\]{}\\]"
    r"|(?:(?![\"'`_])[!-/:-@\[-`{-~]){2,})"  # //, !=, ->, ::
    r"|."
)
_FACTORIAL = re.compile(r"\d![?.,)]+$")
_NUMBER = re.compile(r"\d$")
_UNIT = re.compile(r"(?:\S*\d)?(?!a$|pm$)[fpnuµmkcFPNUMKGgTt]?(?i:m|g|b|w|v|a|s|hz|pa|j|l|n|h|c|k|t)", re.ASCII)
_OPTION = re.compile(r"--?\w+")


class _Spelling(dict[str, str]):
    """Per character, what is left of it: letters, marks, digits and symbols stay, punctuation separates words."""

    def __missing__(self, character: str) -> str:
        # marks count: they are the vowels of Hindi and the tones of Thai. So do C++, C#, 5 %, R&D
        self[character] = character if unicodedata.category(character)[0] in "LMNS" or character in "#%&@*·" else " "
        return self[character]


_SPELLING = _Spelling()
# compatibility forms that are not the plain character: x² is not x2, ½ is not 1/2, ① is not 1
_OWN_MEANING = re.compile(
    "(["
    + "".join(
        chr(code)
        for code in (*range(0x80, 0x3400), *range(0x1D400, 0x1D800))
        if unicodedata.decomposition(chr(code)).startswith(("<super>", "<sub>", "<fraction>", "<font>", "<circle>"))
    )
    + "])"
)


def normalised(text: str) -> str:
    """The text's words and symbols, compatibility-composed and case-folded, blanks between them.

    Punctuation is left out where it is only punctuation. A word of punctuation stays inside the text ('What does "!"
    do?'), and a text of punctuation only is its own words. Each line that is indented begins with how far.
    """
    composed = text if text.isascii() else _composed(text)
    if "\n" in composed:
        composed = _INDENTED.sub(lambda found: f" \u21e5{len(found[1].expandtabs(4))} ", composed)
    words = _THOUSANDS.sub("", composed).split() if "," in composed else composed.split()
    spelled = []
    for place, word in enumerate(words):
        folded = word.casefold()
        if folded != word and (_OPTION.match(word) or _is_unit(words, place)):
            folded = word
        spelled.append(folded if folded.isalnum() else _word(folded, 0 < place < len(words) - 1))
    return " ".join(" ".join(spelled).split()) or " ".join(text.split())


def _composed(text: str) -> str:
    parts = _OWN_MEANING.split(_VARIATION.sub("", text))
    whole = "".join(part if number % 2 else unicodedata.normalize("NFKC", part) for number, part in enumerate(parts))
    return _DASH.sub("-", whole)


def _is_unit(words: list[str], place: int) -> bool:
    """Whether the word is a unit of measurement after its number: 5 mW, 5mW."""
    bare = words[place].strip(_AFTER)
    return bool(_UNIT.fullmatch(bare)) and (
        bare[:1].isdigit() or (place > 0 and bool(_NUMBER.search(words[place - 1])))
    )


def _word(word: str, inside: bool) -> str:
    """A word that holds more than letters and digits."""
    if not any(_SPELLING[character] != " " for character in word):
        rest = word if inside else word.rstrip(_ENDING).lstrip("¿¡")
        return rest if inside or rest.strip(_QUOTES + "-") else ""
    bare = (word if _FACTORIAL.search(word) else word.rstrip(_AFTER)).lstrip(_BEFORE)
    bare = bare.lstrip(".") if bare.startswith("..") else bare
    if bare.isalnum():
        return bare
    if not bare:
        return word
    return _KEPT.sub(lambda found: found[0] if found[1] else _SPELLING[found[0]], bare)
