"""The words that say what a video shows: the frequent ones of training sentences (CT-SAN).

The thesis keeps nouns, verbs and adjectives, which it finds with a tagger. A tagger needs a model
of its own, so here the words of closed classes are left out, of which English has few; a list made
with any tagger can be given instead.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlpipe.stores.errors import UsageError

_CLOSED_CLASSES = """
a an the this that these those such same other another each every either neither some any no
none all both half many much more most few less several enough own only just even still also too
i me my mine myself you your yours yourself he him his himself she her hers herself it its
itself we us our ours ourselves they them their theirs themselves one ones who whom whose which
what something anything nothing everything somebody anybody nobody everybody anyone everyone
and or but nor so yet if because as than while when where why how whether though although until
unless since
of in on at by for from to into onto upon over under above below between among through across
along around about against off out up down away back near behind beside besides before after
toward towards with within without inside outside beyond past during like via
am is are was were be been being do does did doing done have has had having can could will would
shall should may might must ought not n't 's 're 've 'll 'd 'm
here there then now again once never always often sometimes very quite rather almost already
soon later first next last together
"""
_CLOSED = frozenset(_CLOSED_CLASSES.split())


def concept_words(
    sentences: Iterable[Sequence[str]], words: Sequence[str], most: int, path: Path | None = None
) -> tuple[int, ...]:
    """Ids of at most `most` words, by falling frequency in the sentences, ties by id.

    sentences: tokens of what is told in training. words: the vocabulary, by id.
    path: a text file with a word a line, of which those in the vocabulary are taken instead, in
        its order; without it every word of letters that is in no closed class and no adverb in -ly.
    Raises UsageError where the file cannot be read, or no word is left.
    """
    ids = {word: number for number, word in enumerate(words)}
    if path is None:
        counts = Counter(word for sentence in sentences for word in set(sentence))
        kept = (
            word
            for word in counts
            if word in ids and word.isalpha() and word not in _CLOSED and not word.endswith("ly")
        )
        chosen = sorted(kept, key=lambda word: (-counts[word], ids[word]))
    else:
        chosen = [word for word in dict.fromkeys(_lines_of(path)) if word in ids]
    if not chosen:
        raise UsageError(
            f"no word of {path or 'the training sentences'} can be a concept",
            hint="concept_list names a file with words of the training sentences, one a line",
        )
    return tuple(ids[word] for word in chosen[:most])


def _lines_of(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list of concept words {path} cannot be read: {error}") from error
    return [line.strip().lower() for line in lines if line.strip()]
