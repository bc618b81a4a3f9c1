"""Which videos this process has compared with their checksums."""

from vlpipe.stores.generation import GenerationState


class VerifiedVideos:
    """The videos whose checksum matched in this process: a byte each, not a Python object."""

    def __init__(self, generation: GenerationState) -> None:
        manifest = generation.manifest
        self._numbers = bytearray(0 if manifest is None else len(manifest))
        self._others: set[str] = set()  # videos added since the checkpoint

    def has(self, video_id: str, number: int) -> bool:
        return bool(self._numbers[number]) if number >= 0 else video_id in self._others

    def add(self, video_id: str, number: int) -> None:
        if number >= 0:
            self._numbers[number] = 1
        else:
            self._others.add(video_id)
