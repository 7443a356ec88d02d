"""datatrove's filters under Assay's definitions, for `benchmarks/quality.py`.

    PYTHON_WITH_DATATROVE -P benchmarks/quality_same.py FILE.jsonl

Papers name rules but leave words, lines and counting open, so that two implementations disagree
without either being wrong. Here each definition in which datatrove (0.10) differs is replaced by
Assay's, one by one: `DIFFERENCES` says which and why. Printed is what each filter keeps with all of
them replaced, with all but one, and with none but the words, which are split at white space
throughout. What is left then of datatrove are its formulas, thresholds and the order of its rules.
Nothing of Assay is imported.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIFFERENCES: dict[str, dict[str, str]] = {
    "gopher": {
        "all_words": "words of punctuation alone are not counted, nor in the mean length",
        "lines": "blank lines count; \\r, \\f, U+0085, U+2028 and others end a line too",
        "star_bullets": "'*' is no bullet",
        "stop_words": "found in lower case only, and not beside punctuation",
    },
    "gopher-repetition": {
        "paragraphs": "only empty lines part them, not those of white space; ends are not stripped",
        "lines": "are not stripped, and an empty one at the end counts",
        "shares": "of all characters of the text, white space included, though parts leave it out",
        "top_ngrams": "count with their spaces, overlaps count twice, and one that occurs once too",
        "duplicate_ngrams": "looks on behind each, so that overlapping ones are missed, and joins"
        " words without a space, so that 'a bc' is 'ab c' (the paper counts all, A.1.1)",
    },
    "c4": {
        "lines": "\\r, \\f, U+0085, U+2028 and others end a line too",
        "citations": "takes '[1]', '[edit]' and '[citation needed]' out of lines first (an option)",
        "end_marks": "\"'\" is a terminal mark and '”' is none",
        "sentences": "by a sentence splitter, and one in a line where it finds none",
    },
    "fineweb": {
        "lines": "are not stripped",
        "punctuation": "ends a line, a list of 160 marks (an option; the paper has none)",
        "short_lines": "have 30 characters or fewer (an option; the paper: fewer than 30)",
        "duplicates": "0.01 of the characters (an option; the paper: 0.1)",
        "list_ratio": "a fourth rule, lines per word (an option; the paper has none)",
    },
}
"""Filter → name → what datatrove does."""

PUNCTUATED = tuple(".!?'\"…”’»。！？｡؟۔।॥።։")
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
NO_LIMIT = 1e9

Keeps = Callable[[str], bool]


def main() -> None:
    texts = [json.loads(line)["text"] for line in Path(sys.argv[1]).read_text().split("\n") if line]
    found: dict[str, dict[str, list[bool]]] = {}
    for name, make in MAKERS.items():
        every = set(DIFFERENCES[name])
        variants = {"same": every, "as_it_is": set[str]()}
        variants |= {f"without {one}": every - {one} for one in DIFFERENCES[name]}
        found[name] = {}
        for variant, replaced in variants.items():
            keeps = make(replaced)
            found[name][variant] = [keeps(text) for text in texts]
    print(json.dumps(found))


def white_space() -> Any:
    from datatrove.utils.word_tokenizers import WordTokenizer

    class WhiteSpace(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return SENTENCE.split(text)

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            ends = [match.end() for match in SENTENCE.finditer(text)]
            return list(zip([0, *ends], [*ends, len(text)], strict=True))

    return WhiteSpace()


def lines_of(text: str) -> list[str]:
    """Return lines as Assay has them: parted by newlines only, not blank, stripped."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def one_kind_of_line(text: str) -> str:
    """Return the text with its lines as `lines_of` has them, whatever `splitlines` parts at."""
    return "\n".join(" ".join(line.splitlines()) for line in lines_of(text))


def decide(step: Any, text: str) -> bool:
    """Ask a filter; it divides by zero where there is no line or no word."""
    from datatrove.data import Document

    try:
        return step.filter(Document(text=text, id="")) is True
    except ZeroDivisionError:
        return False


def gopher(replaced: set[str]) -> Keeps:
    import datatrove.pipeline.filters.gopher_quality_filter as module
    from datatrove.utils.text import PUNCTUATION_SET

    class Cores(set[str]):
        """Stop words, found between the first and the last letter of a word, in any ASCII case."""

        def intersection(self, *words: Any) -> set[str]:
            return {core(word) for word in words[0]} & set(STOP_WORDS)

    module.PUNCTUATION_SET = set() if "all_words" in replaced else PUNCTUATION_SET
    step = module.GopherQualityFilter(language=white_space())
    if "stop_words" in replaced:
        step.stop_words = Cores(STOP_WORDS)

    def keeps(text: str) -> bool:
        if "star_bullets" in replaced:
            text = re.sub(r"(?m)^([^\S\n]*)\*", r"\1•", text)
        return decide(step, one_kind_of_line(text) if "lines" in replaced else text)

    return keeps


def core(word: str) -> str:
    letters = [at for at, character in enumerate(word) if character.isalpha()]
    inner = word[letters[0] : letters[-1] + 1] if letters else ""
    return "".join(letter.lower() if letter.isascii() else letter for letter in inner)


class Text(str):
    """A text whose length is what the share that is being computed is one of."""

    __slots__ = ("size",)

    def __len__(self) -> int:
        return self.size


class Splitter:
    """Stands for a pattern that splits a text, and sets the text's `size` to what it found."""

    def __init__(self, split: Callable[[str], list[str]]) -> None:
        self.split_ = split
        self.text = Text()

    def split(self, text: str) -> list[str]:
        units = self.split_(str(text))
        self.text.size = sum(map(len, units))
        return units


def gopher_repetition(replaced: set[str]) -> Keeps:
    import datatrove.pipeline.filters.gopher_repetition_filter as module

    plain = {name: PLAIN.setdefault(name, getattr(module, name)) for name in PLAIN_NAMES}
    step = module.GopherRepetitionFilter(language=white_space())
    line_split = lines_of if "lines" in replaced else step._line_splitter.split
    part_split = paragraphs_of if "paragraphs" in replaced else step.paragraph_exp.split
    step._line_splitter, step.paragraph_exp = Splitter(line_split), Splitter(part_split)
    words = Splitter(str.split)
    module.split_into_words = lambda text, _language: words.split(text)
    module.find_top_duplicate = (
        top_ngram if "top_ngrams" in replaced else plain["find_top_duplicate"]
    )
    module.find_all_duplicate = (
        duplicate_ngrams if "duplicate_ngrams" in replaced else plain["find_all_duplicate"]
    )

    def keeps(text: str) -> bool:
        if "shares" not in replaced:
            return decide(step, text)
        whole = Text(text)
        whole.size = str.__len__(text)
        for splitter in (step._line_splitter, step.paragraph_exp, words):
            splitter.text = whole
        return decide(step, whole)

    return keeps


PLAIN_NAMES = ("find_top_duplicate", "find_all_duplicate")
PLAIN: dict[str, Any] = {}
"""What is datatrove's own, before any is replaced."""


def paragraphs_of(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n(?:[^\S\n]*\n)+", text) if part.strip()]


def top_ngram(ngrams: list[str]) -> int:
    """Return the characters of the n-gram that occurs most often without overlap, twice or more."""
    n = ngrams[0].count(" ") + 1
    times: Counter[str] = Counter()
    free: dict[str, int] = {}
    for at, ngram in enumerate(ngrams):
        if at >= free.get(ngram, 0):
            times[ngram] += 1
            free[ngram] = at + n
    most, chars = max((count, len(ngram) - n + 1) for ngram, count in times.items())
    return most * chars if most > 1 else 0


def duplicate_ngrams(words: list[str], n: int) -> int:
    """Return the characters of words in an n-gram that began earlier too, each counted once."""
    seen: set[tuple[str, ...]] = set()
    inside: set[int] = set()
    for at in range(len(words) - n + 1):
        ngram = tuple(words[at : at + n])
        if ngram in seen:
            inside.update(range(at, at + n))
        seen.add(ngram)
    return sum(len(words[at]) for at in inside)


def c4(replaced: set[str]) -> Keeps:
    import datatrove.pipeline.filters.c4_filters as module
    from datatrove.utils.text import split_into_sentences

    module.split_into_sentences = sentences_of if "sentences" in replaced else split_into_sentences
    plain = PLAIN.setdefault("END_PUNCTUATION", module.END_PUNCTUATION)
    module.END_PUNCTUATION = (".", "!", "?", '"', "”") if "end_marks" in replaced else plain
    step = module.C4QualityFilter(
        language=white_space(), remove_citations="citations" not in replaced
    )

    def keeps(text: str) -> bool:
        return decide(step, one_kind_of_line(text) if "lines" in replaced else text)

    return keeps


def sentences_of(text: str, _language: Any) -> list[str]:
    return [w for w in text.split() if w.rstrip("\"')]”’»").endswith((".", "!", "?"))]


def fineweb(replaced: set[str]) -> Keeps:
    from datatrove.pipeline.filters import FineWebQualityFilter

    options: dict[str, Any] = {}
    if "punctuation" in replaced:
        options["stop_chars"] = PUNCTUATED
    if "short_lines" in replaced:
        options["short_line_length"] = 29
    if "duplicates" in replaced:
        options["char_duplicates_ratio"] = 0.1
    if "list_ratio" in replaced:
        options["new_line_ratio"] = NO_LIMIT
    step = FineWebQualityFilter(language=white_space(), **options)
    return lambda text: decide(step, "\n".join(lines_of(text)) if "lines" in replaced else text)


MAKERS: dict[str, Callable[[set[str]], Keeps]] = {
    "gopher": gopher,
    "gopher-repetition": gopher_repetition,
    "c4": c4,
    "fineweb": fineweb,
}
"""Assay's preset → what makes a function that tells whether datatrove's filter keeps a text."""


if __name__ == "__main__":
    main()
