"""Texts as the caption metrics see them: Penn Treebank tokens in lower case, most punctuation gone.

The official programs run Stanford's tokeniser (CoreNLP 3.4.1, Java; see `java_scoring.py`). No
library in Python gives its tokens, so `penn_tokens` has those of its rules that captions meet.
"""

import re

DROPPED = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--",
     "...", ";")
)  # fmt: skip
"""What coco-caption leaves out. Brackets stay: they come in lower case, as -lrb- and -rrb-."""

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_ABBREVIATIONS = r"(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|e\.g|i\.e|a\.m|p\.m|u\.s|d\.j|t\.v|no)\."
_TOKEN = re.compile(
    rf"""
    (?:https?://|www\.)\S+ | [\w.]+@\w+ | @\w+
    | {_ABBREVIATIONS}(?![a-z])
    | (?:[a-z]\.){{2,}}                              # initials
    | can(?=not\b(?!-)) | (?<=can)not\b              # cannot
    | (?:gon|wan)(?=na\b) | got(?=ta\b) | gim(?=me\b) | lem(?=me\b) | (?<=gon|wan)na\b
    | (?<=got)ta\b | (?<=gim|lem)me\b
    | '(?:s|re|ve|ll|d|m|t|em|n|cause|til|till|tis|twas)\b(?!')
    | n't\b
    | [$#]?\d+(?:[.,:/]\d+)+(?:st|nd|rd|th|s)?       # 10,000  3.5  7:30
    | \w+(?=n't\b)
    | \w+(?:[-&/.]\w+|'(?!(?:s|re|ve|ll|d|m|t)\b)\w+)*
    | \.\.+ | -{{2,}} | [^\s\w]
    """,
    re.VERBOSE,
)


def penn_tokens(text: str) -> list[str]:
    """The tokens of a text, without the dropped ones."""
    text = text.lower().replace("\u2019", "'").replace("\u2018", "`")
    text = re.sub('[\u201c\u201d"]', " ", text)  # they would become `` and '', which are dropped
    found = (_BRACKETS.get(token, token) for token in _TOKEN.findall(text))
    return [token for token in found if token not in DROPPED]
