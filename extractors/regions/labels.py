"""What the labels and attributes of regions mean: lists of names by the name of the list.

`visual_genome_1600`: 1600 objects, `visual_genome_400`: 400 attributes. Their word lists come with
the published code (`objects_vocab.txt`, `attributes_vocab.txt`, one line an id, synonyms parted by
commas, the first of which counts) and not with this package: they are read from the weights folder.
`coco_80`: COCO's 80 categories in the order of their ids, from torchvision.
"""

from pathlib import Path

from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.regions.torchvision_detectors import coco_names
from vlpipe.extractors.weights.folder import WeightsFolder
from vlpipe.stores.errors import UsageError

# List: its file in the weights folder and the number of its lines.
WORD_LISTS = {
    "visual_genome_1600": ("objects_vocab.txt", 1600),
    "visual_genome_400": ("attributes_vocab.txt", 400),
}
LABEL_SPACES = ("visual_genome_1600", "coco_80")

_WORDS_FROM = "https://github.com/peteanderson80/bottom-up-attention (data/genome/1600-400-20)"


def region_names(space: str, folder: Path | None = None) -> tuple[str, ...]:
    """The names of a list; name i belongs to id i.

    folder: with the word lists, default the weights folder.
    Raises UsageError for an unknown list, WeightsMissing when its file is not there, and
    WeightsRejected when that has another number of lines.
    """
    if space == "coco_80":
        return coco_names()
    if space not in WORD_LISTS:
        known = ", ".join(sorted({*LABEL_SPACES, *WORD_LISTS}))
        raise UsageError(f"there is no list of names {space!r}", hint=f"known: {known}")
    filename, count = WORD_LISTS[space]
    path = (folder or WeightsFolder().path) / filename
    if not path.is_file():
        raise WeightsMissing(
            f"{path}: the names of {space} are not there; ids are stored without them",
            hint=f"copy {filename} of {_WORDS_FROM} to {path.parent}",
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise WeightsRejected(f"{path}: not a text file: {error}") from error
    names = tuple(line.partition(",")[0].strip() for line in lines)
    if len(names) != count or not all(names):
        raise WeightsRejected(f"{path}: {len(names)} lines, expected {count}, none of them empty")
    return names
