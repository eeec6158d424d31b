"""Wording: normalises a text, so that texts with the same wording become equal.

Case, blanks and the punctuation of sentences are removed. What carries meaning stays: symbols (C++, 5 %, §), signs next
to numbers and to names of one letter (1.5, 5-4, x/4, x_1, l'eau), before a word (-5, -v, :w, /etc, __init__) and after
it (Cl-, f', 5!), superscripts (x²), operators (!=, ->, //), brackets of code and of sums, the case of units (mW and MW)
and of options (-v and -V), and the indentation of lines. A sign between two longer words becomes a blank; where that
may be wrong, `signs` compares it. It knows characters of any script. It does not know what words mean.
"""

import re
import unicodedata

from job.data.dedupe.quotes import remove_quotes

_VARIATION = re.compile(r"[\ufe00-\ufe0f]")  # how an emoji is drawn; Unicode counts it as a mark
_DASH = re.compile(r"[\u2010-\u2015\u2212]")
_BREAK = re.compile(r"(?<!\S)[\u2014\u2015]+(?=\S)|(?<=\S)[\u2014\u2015]+(?!\S)")
"""A long dash at the edge of a word is not a minus."""
_THOUSANDS = re.compile(r"(?<![\d,.\[(])\d{1,3}(?:,\d{3})+(?!,?\d)")
_INDENTED = re.compile(r"\n([ \t]+)(?=\S)")
_QUOTES = "\"'`"
_BEFORE = _QUOTES + "(¿¡"
_AFTER = _QUOTES + ").,:;!?…。、"
_ENDING = ".,:;!?…。、¿¡"
_LETTER = r"(?:(?![\d_\u0590-\U0010ffff])\w)"  # of an alphabet that has capitals; in Chinese a word may be one letter
_ALONE_BEFORE = rf"(?<![^\W\d_]{_LETTER})(?<={_LETTER})"
_ALONE_AFTER = rf"{_LETTER}(?![^\W\d_])"
_SIGN = re.compile(
    rf"(-(?=[^\W\d_]{{4}})(?<=\d-)|(?<=[^\W\d_]{{4}})-(?=\d))"  # 10-year, COVID-19: a blank
    rf"|((?<=[\d\W_])[-/.:_'\"]|{_ALONE_BEFORE}[-/.:_'\"]"  # 3-x, x/4, a.b, f'(x)
    rf"|[-/.:_'\"](?=[\d\W_]|{_ALONE_AFTER})"  # log_2, don't
    rf"|(?:(?<=\d)|{_ALONE_BEFORE})[,;!?](?=\d|{_ALONE_AFTER})"  # 1;2, a,b
    rf"|(?<=\d)\u066b(?=\d)"  # the decimal point of Arabic
    rf"|(?:(?<=[\d)])|{_ALONE_BEFORE})!(?=[^\w\s])"  # 5!/3!
    rf"|(?:(?<=[\d\W_])|(?<={_LETTER}))\(|\)(?=\d|{_LETTER})"  # f(x), 2(x+1)
    r"|(?<!\S)(?:--?|[!.:/_]+)(?=\w)|(?<!\S)\(+-?"  # -5, -v, !x, .NET, :w, /etc; sums in brackets
    r"|[-_/](?!.)"  # Cl-, x_
    r"|[\[\]{}\\]"
    r"|(?:(?![\"'`_])[!-/:-@\[-`{-~]){2,})"  # //, !=, ->, ::
    r"|."
)
_PRIMED = re.compile(r"(?:[\d)\]']|(?<![^\W\d_])[^\W\d_]{1,3})$")
"""After it, an apostrophe that closes no quote is a prime: f', AB', (fg)', 5'."""
_DOUBLY_PRIMED = re.compile(rf"(?:[\d)\]]|{_ALONE_BEFORE})$")
_FACTORIAL = re.compile(rf"(?:[\d)]|{_ALONE_BEFORE})$")
_OPERATOR = re.compile(r"[-+*/^=<>×÷·±≤≥≠≈&|%]+")
_NAME = re.compile(r"\(+[¬!~-]?[b-df-hj-np-xz]|[b-df-hj-np-xz]\)+[.,:;!?]*")
"""A name of one letter in brackets: A and (B or C)."""
_FAR = 10
"""Most words between a bracket and the one that closes it."""
_NUMBER = re.compile(r"\d$")
_UNIT = re.compile(r"(?:\S*\d)?(?!a$|pm$)[fpnuµmkcFPNUMKGgTt]?(?i:m|g|b|w|v|a|s|hz|pa|j|l|n|h|c|k|t)", re.ASCII)
_OWNER = re.compile(rf"(?<=[^\W\d_]{{2}})'(?={_ALONE_AFTER})")
"""Spain's becomes two words, so that a misspelling of Spain is recognised."""
_CALL = re.compile(rf"(?:(?<=[\d\W_])|(?<={_LETTER}))\(")
_OPTION = re.compile(r"--?\w+")


class _Spelling(dict[str, str]):
    """Maps each character to what remains: letters, marks, digits and symbols stay, punctuation becomes a blank."""

    def __missing__(self, character: str) -> str:
        # marks count: they are the vowels of Hindi and the tones of Thai. So do C++, C#, 5 %, R&D
        category, code = unicodedata.category(character), ord(character)
        stays = category[0] in "LMNS" or character in "#%&@*·§¶٪؉؊"
        if category == "Po" and 0x2016 <= code <= 0x205E:  # ‰, ′, ‖, †, but not what parts words or ends sentences
            stays = character not in "•‣․‥…‧‼‽⁇⁈⁉"
        if category in ("Ps", "Pe"):  # floor and ceiling, and other brackets of mathematics
            stays = 0x2308 <= code <= 0x230B or 0x27C5 <= code <= 0x27EF or 0x2983 <= code <= 0x29DB
        self[character] = character if stays else " "
        return self[character]


_SPELLING = _Spelling()
# compatibility forms with a meaning of their own: x² is not x2, ½ is not 1/2, ① is not 1
_OWN_MEANING = re.compile(
    "(["
    + "".join(
        chr(code)
        for code in (*range(0x80, 0x3400), *range(0x1D400, 0x1D800))
        if unicodedata.decomposition(chr(code)).startswith(("<super>", "<sub>", "<fraction>", "<font>", "<circle>"))
    )
    + "])"
)


def normalise_wording(text: str) -> str:
    """Normalise a text to its words and symbols: NFKC, case-folded, separated by single blanks.

    Signs that are only punctuation are removed. A word of punctuation inside the text stays ('What does "!" do?'), and
    so does a text of punctuation only. An indented line begins with its indentation in blanks.
    """
    composed = compose(text)
    if "\n" in composed:
        composed = _INDENTED.sub(lambda match: f" \u21e5{len(match[1].expandtabs(4))} ", composed)
    words = composed.split()
    spelled = []
    for index, word in enumerate(words):
        folded = word.casefold()
        if folded != word and (_OPTION.match(word) or _is_unit(words, index)):
            folded = word
        spelled.append(folded if folded.isalnum() else _word(folded, words, index))
    return " ".join(" ".join(spelled).split()) or " ".join(text.split())


def compose(text: str) -> str:
    """Remove quotes around words, and put each sign into its plain form: ５ is 5, – is -, ’ is ', 1,000 is 1000."""
    if not text.isascii():
        parts = _OWN_MEANING.split(_VARIATION.sub("", text))
        text = "".join(part if at % 2 else unicodedata.normalize("NFKC", part) for at, part in enumerate(parts))
        text = _DASH.sub("-", _BREAK.sub(" ", text.replace("\u301c", "~")))
    text = remove_quotes(text)
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text) if "," in text else text


def _is_unit(words: list[str], index: int) -> bool:
    """Whether the word is a unit of measurement after its number: 5 mW, 5mW."""
    bare = words[index].strip(_AFTER)
    return bool(_UNIT.fullmatch(bare)) and (
        bare[:1].isdigit() or (index > 0 and bool(_NUMBER.search(words[index - 1])))
    )


def _word(word: str, words: list[str], index: int) -> str:
    """The normal form of a word that holds more than letters and digits."""
    last = index == len(words) - 1
    inside = index > 0 and not last
    if not any(_SPELLING[character] != " " for character in word):
        rest = word if inside else word.rstrip(_ENDING).lstrip("¿¡")
        return rest if inside or rest.strip(_QUOTES + "-") else ""
    grouped = _is_grouped(word, words, index)
    before = _BEFORE.replace("(", "") if grouped else _BEFORE
    bare = word.lstrip(before)
    if bare.startswith("..") and (said := bare.lstrip(".").lstrip(before))[:1].isalnum():  # ...and, but not ../x
        bare = said
    core = bare.rstrip(_AFTER)
    if core.isalnum() and len(core) == len(bare):
        return core
    if not core:
        return word
    end = _end(core, bare[len(core) :], grouped, last)
    return (core if core.isalnum() else _SIGN.sub(_keep_sign, _OWNER.sub(" '", core))) + end


def _keep_sign(match: re.Match[str]) -> str:
    return match[2] or (" " if match[1] else _SPELLING[match[0]])


def _end(core: str, behind: str, grouped: bool, last: bool) -> str:
    """The signs after a word that belong to it: foo(), f', 5!. The others are punctuation."""
    opened = len(behind) if grouped else len(_CALL.findall(core)) - core.count(")")
    kept, before = 0, core[-4:]
    for sign in behind:
        closes = sign == ")" and opened > 0
        prime = (sign == "'" and _PRIMED.search(before)) or (sign == '"' and _DOUBLY_PRIMED.search(before))
        # at the end of a text it is an exclamation
        factorial = sign == "!" and not (last and kept == len(behind) - 1) and _FACTORIAL.search(before)
        if not (closes or prime or factorial):
            break
        opened -= closes
        kept, before = kept + 1, (before + sign)[-4:]
    return behind[:kept]


def _is_grouped(word: str, words: list[str], index: int) -> bool:
    """Whether a bracket of the word groups an expression: 2 * (3 + 4), A and (B or C)."""
    if "(" not in word and ")" not in word:
        return False
    around = [at for at in (index - 1, index + 1) if 0 < at < len(words) - 1]  # at the edge of a text, a dash
    if any(_OPERATOR.fullmatch(words[at]) for at in around):
        return True
    return bool(_NAME.fullmatch(word)) and (
        word[0] == "(" or any("(" in before for before in words[max(0, index - _FAR) : index])
    )
