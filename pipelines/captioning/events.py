"""What a run says of one video."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlpipe.models.metrics.dense_captioning import EventCaption


@dataclass(frozen=True, slots=True)
class ConfidentEvent(EventCaption):
    """An event with its sentence, and how sure the network is that there is one, 0 to 1."""

    confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class CaptionedVideo:
    """The events of a video, the most confident first; possibly none.

    id: as the store calls it. path: its media file, None if only its features are there.
    """

    id: str
    path: Path | None
    duration_s: float
    events: tuple[ConfidentEvent, ...]

    def in_time(self) -> list[ConfidentEvent]:
        """The events by when they start; of two that start together the longer first."""
        return sorted(self.events, key=lambda event: (event.start_s, -event.end_s))

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "video": None if self.path is None else str(self.path),
            "duration_s": self.duration_s,
            "events": [
                {
                    "start_s": event.start_s,
                    "end_s": event.end_s,
                    "sentence": event.sentence,
                    "confidence": event.confidence,
                }
                for event in self.events
            ],
        }
