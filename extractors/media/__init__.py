"""Media to time-stamped frames and samples: probe and decode once, serve every request.

    with DecodePool(workers=2) as pool, pool.open(path, [FrameRequest(fps=25)]) as stream:
        print(stream.info.duration_s)
        for block in stream:
            block.frames, block.spans

Decoding runs in child processes under limits; the libraries are loaded there only.
"""

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.media.blocks import AudioBlock, DecodeSummary, FrameBlock
from vlpipe.extractors.media.decode_stream import DecodeStream
from vlpipe.extractors.media.info import AudioStream, MediaInfo, VideoStream
from vlpipe.extractors.media.limits import DecodeLimits
from vlpipe.extractors.media.pool import DecodePool, decode
from vlpipe.extractors.media.requests import AudioRequest, FrameRequest, MediaRequest, Resize

__all__ = [
    "AudioBlock",
    "AudioRequest",
    "AudioStream",
    "DecodeLimits",
    "DecodePool",
    "DecodeStream",
    "DecodeSummary",
    "FrameBlock",
    "FrameRequest",
    "MediaError",
    "MediaInfo",
    "MediaRequest",
    "Resize",
    "VideoStream",
    "decode",
]
