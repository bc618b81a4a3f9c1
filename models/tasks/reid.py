"""Characters of stories: who is who in the clips of a movie and in the sentences about them.

LSMDC 2019 (fill in the characters), M-VAD Names (grounding, re-identification), and the demo's
stories. Paper: Character Grounding and Re-Identification in Story of Videos and Text Descriptions
(Yu et al., ECCV 2020).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, cast, runtime_checkable

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlpipe.models.character_ids import Linkage, character_ids
from vlpipe.models.layers.character_graph import own_clip_tracks
from vlpipe.models.layers.identity_losses import (
    IdentityWeights,
    gender_loss,
    grounding_loss,
    token_loss,
    track_loss,
)
from vlpipe.models.metrics.story import story_figures, trivial_record
from vlpipe.models.story_text import MENTION, EncodedStory, Sentence, StoryVocabulary
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Batch, Clip, Record, Shown, Task, TaskSettings
from vlpipe.models.track_labels import frames_of_seconds, label_tracks
from vlpipe.models.verbs import VerbRule, verb_finder
from vlpipe.stores.datasets import Dataset, Story, Track
from vlpipe.stores.errors import UsageError

_NOBODY = -1
_NOT_INPUTS = ("track_row", "boxes", "box_track", "box_frame", "box_s")


@runtime_checkable
class HasStories(Protocol):
    """A dataset with sets of consecutive clips; `drops_silent_sets` leaves those out in which
    nobody is mentioned."""

    story_splits: tuple[str, ...]
    drops_silent_sets: bool

    def stories(self, split: str) -> list[Story]: ...


@dataclass(frozen=True, slots=True)
class StoryExample:
    """Some clips in order, a sentence each. characters: of each SOMEONE of each sentence, None
    where nobody knows; tracks: annotated ones of each clip; genders: character -> "F" or "M"."""

    id: str
    video_ids: tuple[str, ...]
    sentences: tuple[str, ...]
    characters: tuple[tuple[str | None, ...], ...]
    tracks: tuple[tuple[Track, ...], ...] = ()
    genders: Mapping[str, str] = field(default_factory=dict)

    @property
    def clips(self) -> tuple[Clip, ...]:
        return tuple(Clip(video_id) for video_id in self.video_ids)

    @property
    def mentioned(self) -> tuple[str | None, ...]:
        """The character of every mention, sentence after sentence."""
        return tuple(name for of_clip in self.characters for name in of_clip)

    def numbers(self) -> dict[str, int]:
        """A number for each character that is mentioned or has tracks."""
        names = [name for name in self.mentioned if name is not None]
        names += [track.character for of_clip in self.tracks for track in of_clip]
        return {name: number for number, name in enumerate(dict.fromkeys(names))}


class ReidSettings(TaskSettings):
    """How sentences are read, which tracks take part, and what is learnt.

    text: `base` is BERT-base, `small` a BERT of 4 layers, `words` a small network that needs no
        extra; the model is built with it. vocabulary: BERT's vocab.txt; None: the words of the
        training sentences. max_pieces: a longer story is cut, each sentence alike.
    parser: folder of a pipeline of spaCy, which finds the verb of each mention. verb_rule: what
        does it without one, see `models/verbs.py`.
    max_tracks: of a clip: first those of mentioned characters, then the longest.
    protocol: where tracks are annotated, `published` takes those alone, of a mentioned character
        the longest one; `open` takes all.
    fps: at which the annotators counted the frames of boxes; None: features are of every frame
        (`person_boxes.fps=null`), so that the numbers are the same.
    track_loss: `triplets` of the thesis, or `cross_entropy` of its code. weights: of the terms.
    linkage: how pairs become ids, see `character_ids`.
    """

    text: Literal["words", "small", "base"] = "small"
    vocabulary: Path | None = None
    max_pieces: int = Field(default=512, ge=16)
    parser: Path | None = None
    verb_rule: VerbRule = "next_word"
    max_tracks: PositiveInt = 8
    protocol: Literal["published", "open"] = "published"
    fps: float | None = Field(default=None, gt=0)
    track_loss: Literal["triplets", "cross_entropy"] = "triplets"
    weights: IdentityWeights = IdentityWeights()
    linkage: Linkage = "components"


@register_task("reid")
class ReidTask(Task[StoryExample]):
    """Ids of the characters of a story; the tracks and pairs that they come from are in records."""

    description: ClassVar[str] = "who is who across clips and sentences: pairs of mentions, tracks"
    figure: ClassVar[str] = "accuracy"
    Settings: ClassVar[type[TaskSettings]] = ReidSettings

    def __init__(self, settings: ReidSettings, vocabulary: StoryVocabulary) -> None:
        self.settings, self.vocabulary = settings, vocabulary
        parser = None if settings.parser is None else settings.parser.expanduser().absolute()
        self._verbs = verb_finder(settings.verb_rule, parser)
        self._encoded: dict[tuple[str, ...], EncodedStory] = {}

    @classmethod
    def splits(cls, dataset: Dataset) -> tuple[str, ...]:
        if not isinstance(dataset, HasStories):
            raise UsageError(
                f"dataset {dataset.name!r} has no stories",
                hint="docs/reid.md lists the datasets that have",
            )
        return dataset.story_splits

    @classmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[StoryExample]:
        known = cls.splits(dataset)
        if split not in known:
            raise UsageError(
                f"the stories of dataset {dataset.name!r} have no split {split!r}; "
                f"they have: {', '.join(known)}"
            )
        source, counts, examples = cast(HasStories, dataset), dict[str, int](), []
        for story in source.stories(split):
            number = counts[story.movie] = counts.get(story.movie, 0) + 1
            lines = story.lines
            if source.drops_silent_sets and not any(line.characters for line in lines):
                continue
            examples.append(
                StoryExample(
                    f"{split}:{story.movie}:{number}",
                    tuple(line.video_id for line in lines),
                    tuple(line.sentence for line in lines),
                    tuple(line.characters for line in lines),
                    tuple(line.tracks for line in lines),
                    story.genders,
                )
            )
        return examples

    @classmethod
    def fit(
        cls, settings: TaskSettings, examples: Sequence[StoryExample], dataset: Dataset
    ) -> Self:
        del dataset
        assert isinstance(settings, ReidSettings)
        if settings.vocabulary is not None:
            return cls(settings, StoryVocabulary.read(settings.vocabulary))
        if settings.text == "base":
            raise UsageError(
                "BERT-base reads word pieces, and no vocabulary of them is named",
                hint="--set task.vocabulary=vocab.txt, the file beside BERT's weights",
            )
        return cls(settings, StoryVocabulary.of(s for e in examples for s in e.sentences))

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(mode="json"),
            "pieces": list(self.vocabulary.pieces),
            "is_subword": self.vocabulary.is_subword,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        vocabulary = StoryVocabulary(tuple(value["pieces"]), value["is_subword"])
        return cls(ReidSettings(**value["settings"]), vocabulary)

    def model_settings(self) -> dict[str, Any]:
        return {"text": self.settings.text, "vocabulary_size": len(self.vocabulary)}

    def words(self) -> Sequence[str]:
        return self.vocabulary.pieces

    def notes(self) -> tuple[str, ...]:
        return (f"the verb of a mention is {self._verbs.description}",)

    def tell(self, video_ids: Sequence[str], sentences: Sequence[str]) -> StoryExample:
        """A story that stands in no annotation; a UsageError if nobody is mentioned in it."""
        characters = tuple((None,) * sentence.count(MENTION) for sentence in sentences)
        if len(video_ids) != len(sentences) or not any(characters):
            raise UsageError(
                f"{len(video_ids)} clips and {len(sentences)} sentences with "
                f"{sum(map(len, characters))} times {MENTION}; expected a sentence for each clip, "
                f"and somebody in one of them"
            )
        return StoryExample("told", tuple(video_ids), tuple(sentences), characters)

    # tensors

    def encode(self, example: StoryExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Pieces and places of the sentences; who is mentioned, -1 where that is not known."""
        told = self._encoded.get(example.sentences)
        if told is None:
            told = self._encoded[example.sentences] = self.vocabulary.encode(
                [Sentence.of(text) for text in example.sentences],
                self._verbs,
                self.settings.max_pieces,
            )
        names, numbers = example.mentioned, example.numbers()
        female = {"F": 1, "M": 0}
        genders = [female.get(example.genders.get(n or "", ""), _NOBODY) for n in names]
        inputs = {
            "pieces": told.pieces,
            "someone_at": told.someone_at,
            "action_at": told.action_at,
            "token_clip": told.token_clip,
        }
        return inputs, {
            "token_character": torch.tensor([numbers.get(n or "", _NOBODY) for n in names]).long(),
            "is_female": torch.tensor(genders).long(),
        }

    def collate(
        self, items: Sequence[tuple[StoryExample, Sequence[Mapping[str, Tensor]]]]
    ) -> Batch[StoryExample]:
        """The tracks of a story's clips side by side; clips of -1 are padding. Every set has one
        place at least for a token and for a track."""
        inputs: dict[str, list[Tensor]] = {}
        targets: dict[str, list[Tensor]] = {}
        for example, clips in items:
            text, target = self.encode(example)
            tracks = self._tracks(example, clips)
            target |= {name: tracks.pop(name) for name in ("track_character", "track_row")}
            for name, tensor in (text | tracks).items():
                inputs.setdefault(name, []).append(tensor)
            for name, tensor in target.items():
                targets.setdefault(name, []).append(tensor)
        lengths = torch.tensor([len(pieces) for pieces in inputs["pieces"]])
        stacked = {name: _padded(name, parts) for name, parts in inputs.items()}
        return Batch(
            tuple(example for example, _ in items),
            stacked | {"pieces_length": lengths},
            {name: _padded(name, parts) for name, parts in targets.items()},
        )

    def _tracks(
        self, example: StoryExample, clips: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What the clips' tracks are, (M, ...) for all of them, with their clips, rows and
        characters."""
        numbers, is_annotated = example.numbers(), any(example.tracks)
        joined: dict[str, list[Tensor]] = {}
        for place, clip in enumerate(clips):
            names = self._labels(example, place, clip)
            mentioned = {name for name in example.characters[place] if name is not None}
            kept = self._kept(names, mentioned, is_annotated=is_annotated)
            whose = torch.tensor([numbers.get(names[m] or "", _NOBODY) for m in kept]).long()
            chosen = torch.tensor(kept).long()
            own = {n: value[chosen] for n, value in clip.items() if n not in _NOT_INPUTS}
            own |= {
                "track_row": clip["track_row"][chosen],
                "track_clip": torch.full_like(chosen, place),
                "track_character": whose,
            }
            for name, value in own.items():
                joined.setdefault(name, []).append(value)
        return {name: torch.cat(parts) for name, parts in joined.items()}

    def _labels(
        self, example: StoryExample, place: int, clip: Mapping[str, Tensor]
    ) -> list[str | None]:
        """The character of each track of a clip."""
        count = len(clip["track_row"])
        annotated = example.tracks[place] if example.tracks else ()
        if not annotated or "boxes" not in clip:
            return [None] * count
        fps = self.settings.fps
        frames = clip["box_frame"].numpy()
        if fps is not None:
            frames = frames_of_seconds(clip["box_s"].numpy(), fps)
        return label_tracks(
            annotated, clip["boxes"].numpy(), clip["box_track"].numpy(), frames, count
        )

    def _kept(
        self, names: Sequence[str | None], mentioned: set[str], *, is_annotated: bool
    ) -> list[int]:
        """Which tracks of a clip take part, by falling length as they come."""
        kept = list(range(len(names)))
        if is_annotated and self.settings.protocol == "published":
            first: dict[str, int] = {}
            kept = [
                m
                for m, name in enumerate(names)
                if name is not None and (name not in mentioned or first.setdefault(name, m) == m)
            ]
        kept.sort(key=lambda m: names[m] not in mentioned)
        return sorted(kept[: self.settings.max_tracks])

    # answers

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[StoryExample]) -> Tensor:
        token, track = batch.targets["token_character"], batch.targets["track_character"]
        weights, is_token, is_track = self.settings.weights, token >= 0, track >= 0
        is_own = own_clip_tracks(batch.inputs["token_clip"], batch.inputs["track_clip"])
        is_right = (token[:, :, None] == track[:, None]) & is_token[:, :, None]
        total = weights.grounding * grounding_loss(outputs["G"], is_right, is_own, is_token)
        total = total + weights.video * track_loss(
            outputs["V"], track[:, :, None] == track[:, None], is_track,
            kind=self.settings.track_loss,
        )  # fmt: skip
        same = token[:, :, None] == token[:, None]
        total = total + weights.text * token_loss(outputs["C"], same, is_token)
        if "gender" in outputs:
            female = batch.targets["is_female"]
            known = gender_loss(outputs["gender"], female == 1, female >= 0)
            total = total + weights.gender * known
        return total

    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[StoryExample]) -> list[Record]:
        return [self._record(outputs, batch, n) for n in range(len(batch.examples))]

    def _record(self, outputs: Mapping[str, Tensor], batch: Batch[StoryExample], n: int) -> Record:
        example = batch.examples[n]
        tokens = batch.inputs["token_clip"][n] >= 0
        tracks = batch.inputs["track_clip"][n] >= 0
        same = outputs["C"][n][tokens][:, tokens].detach().float().cpu()
        own = own_clip_tracks(batch.inputs["token_clip"], batch.inputs["track_clip"])[n]
        scores = outputs["G"][n].masked_fill(~own, -torch.inf)
        best = scores.argmax(dim=1).masked_fill(~own.any(dim=1), _NOBODY)
        names = [*example.numbers(), None]  # the last one is number -1
        clip, row, whose = (
            part[n][tracks].tolist()
            for part in (
                batch.inputs["track_clip"],
                batch.targets["track_row"],
                batch.targets["track_character"],
            )
        )
        record = self._told(example, character_ids(same, linkage=self.settings.linkage))
        record |= {
            "same_mentions": _rounded(same),
            "tracks": [
                {"clip": c, "row": r, "character": names[w]}
                for c, r, w in zip(clip, row, whose, strict=True)
            ],
            "same_tracks": _rounded(outputs["V"][n][tracks][:, tracks]),
            "mention_tracks": best[tokens].tolist(),
        }
        if "gender" in outputs:
            record["female_share"] = _rounded(outputs["gender"][n][tokens])
        return record

    def _told(self, example: StoryExample, ids: Sequence[int]) -> Record:
        """What a record holds without any video."""
        names = example.mentioned
        first = {name: place for place, name in reversed(list(enumerate(names)))}
        order = {name: number for number, name in enumerate(sorted(first, key=first.__getitem__))}
        return {
            "id": example.id,
            "video_id": example.video_ids[0],
            "clips": [
                {"video_id": v, "sentence": s, "mentions": len(c)}
                for v, s, c in zip(
                    example.video_ids, example.sentences, example.characters, strict=True
                )
            ],
            "question": " ".join(example.sentences),
            "characters": list(names),
            "genders": [example.genders.get(name or "") for name in names],
            "prediction": list(ids),
            "answer": None if None in names else [order[name] for name in names],
        }

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        return story_figures(records)

    def shown(self, record: Record) -> Shown:
        given, right = (
            with_ids(record, ids) for ids in (record["prediction"], record["answer"] or ())
        )
        is_right = record["prediction"] == record["answer"]
        return Shown(record["question"], given, right, is_right)

    def baseline(
        self, train: Sequence[StoryExample], examples: Sequence[StoryExample]
    ) -> list[Record]:
        """All mentions one character, or all different: whatever is right more often in train."""

        def records(of: Sequence[StoryExample], *, is_same: bool) -> list[Record]:
            return [trivial_record(self._told(e, ()), is_same=is_same) for e in of]

        figures = {
            is_same: story_figures(records(train, is_same=is_same)).get(self.figure, 0.0)
            for is_same in (False, True)
        }
        return records(examples, is_same=max(figures, key=figures.__getitem__))

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """The form of LSMDC 2019: CLIP_ID, tab, `[0],[1]` or `_`; ids count from 0 in each set."""
        path = folder / f"predictions-{split}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            for record in records:
                ids = iter(record["prediction"])
                for clip in record["clips"]:
                    own = ",".join(f"[{next(ids)}]" for _ in range(clip["mentions"]))
                    file.write(f"{clip['video_id']}\t{own or '_'}\r\n")
        return path


def with_ids(record: Record, ids: Sequence[int]) -> str:
    """The sentences with [0], [1] in the place of each SOMEONE; as they are without ids."""
    parts = record["question"].split(MENTION)
    if len(ids) != len(parts) - 1:
        return str(record["question"])
    return "".join(f"{part}[{number}]" for part, number in zip(parts, ids, strict=False)) + str(
        parts[-1]
    )


def _padded(name: str, parts: Sequence[Tensor]) -> Tensor:
    """(B, longest, ...): tensors of a name with padding behind, at least one place long."""
    fill = float(_NOBODY) if name.endswith(("_clip", "_character", "is_female")) else 0.0
    if max(len(part) for part in parts) == 0:
        parts = [part.new_full((1, *part.shape[1:]), fill) for part in parts]
    return pad_sequence(list(parts), batch_first=True, padding_value=fill)


def _rounded(values: Tensor) -> Any:  # noqa: ANN401 - lists of numbers
    return values.detach().double().cpu().round(decimals=4).tolist()
