"""Choices among five sentences that no file holds as such: places and wrong ones are drawn.

What is drawn follows from the key of the row alone, so that it is the same in every run.
"""

import random
from collections.abc import Iterator, Sequence

from vlpipe.stores.datasets._captions import SentenceChoice, SentencePair
from vlpipe.stores.errors import AnnotationError

NUM_CHOICES = 5
_MOST_TRIES = 1000


def shuffled_choice(key: str, video_id: str, right: str, wrong: Sequence[str]) -> SentenceChoice:
    """The sentences in drawn places: taking always the same place must not pay."""
    answer = random.Random(key).randrange(len(wrong) + 1)
    choices = (*wrong[:answer], right, *wrong[answer:])
    return SentenceChoice(key, video_id, video_id, choices, answer)


def drawn_choices(pairs: Sequence[SentencePair]) -> list[SentenceChoice]:
    """For each sentence a choice between it and four drawn ones, which tell about other videos.

    AnnotationError if there are too few sentences to choose among.
    """
    return list(_drawn(pairs))


def _drawn(pairs: Sequence[SentencePair]) -> Iterator[SentenceChoice]:
    for pair in pairs:
        rng = random.Random(pair.key)
        choices = [pair.sentence]
        for _ in range(_MOST_TRIES):
            other = pairs[rng.randrange(len(pairs))]
            if other.video_id != pair.video_id and other.sentence not in choices:
                choices.append(other.sentence)
            if len(choices) == NUM_CHOICES:
                break
        else:
            raise AnnotationError(
                f"{len(pairs)} sentences are too few: there are no {NUM_CHOICES - 1} about other "
                f"videos to stand beside {pair.key}"
            )
        answer = rng.randrange(NUM_CHOICES)
        choices.insert(answer, choices.pop(0))
        yield SentenceChoice(pair.key, pair.vid_key, pair.video_id, tuple(choices), answer)
