"""What extractors of person tracks share: a row a track, when a video has ended."""

from vlpipe.extractors.extractor import Extractor, ExtractorConfig
from vlpipe.extractors.media import MediaInfo


class TrackExtractor(Extractor):
    """Base of those whose rows are tracks."""

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        """A new person every ten seconds."""
        del config
        return 0.1

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        """A video without persons is told from one whose rows are missing."""
        del info
        return "no_persons" if num_rows == 0 else None
