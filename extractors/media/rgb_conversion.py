"""Decoded frames to upright RGB arrays."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlpipe.extractors.media.rotation import Orientation, orientation_of_matrix

if TYPE_CHECKING:
    import av
    from av.filter import Graph


class RgbConverter:
    """Makes upright RGB of decoded frames, with the very filter graph of the ffmpeg program.

    `format=rgb24` behind libavfilter's automatic scaler (bicubic chroma, the frame's own colour
    matrix and range, BT.601 where the file names none): equal to `ffmpeg -pix_fmt rgb24`. Alpha is
    dropped; a GIF's transparent pixels are white.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._input: tuple[object, ...] | None = None
        # Of the first frame, as stored; later frames of another size are scaled to it.
        self._size: tuple[int, int] | None = None
        self._orientation = Orientation()

    def to_rgb(self, frame: "av.VideoFrame") -> NDArray[np.uint8]:
        """uint8 [H, W, 3], upright."""
        if self._size is None:
            self._size = (frame.width, frame.height)
            # Once only: a frame whose side data was looked at is held until the garbage collector
            # comes, and hundreds of frames gather before it does.
            self._orientation = orientation_of(frame)
        described = (
            frame.width,
            frame.height,
            frame.format.name,
            int(frame.colorspace),
            int(frame.color_range),
        )
        if described != self._input or self._graph is None:
            self._graph, self._input = self._build(*described), described
        self._graph.vpush(frame)
        converted = self._graph.vpull()
        return self._orientation.apply(np.asarray(converted.to_ndarray(), np.uint8))

    def _build(
        self, width: int, height: int, pixel_format: str, colorspace: int, color_range: int
    ) -> "Graph":
        from av.filter import Graph

        graph = Graph()
        graph.threads = 1
        source = graph.add(
            "buffer",
            f"video_size={width}x{height}:pix_fmt={pixel_format}:time_base=1/1000000"
            f":colorspace={colorspace}:range={color_range}",
        )
        last = source
        assert self._size is not None
        if (width, height) != self._size:
            scale = graph.add("scale", f"{self._size[0]}:{self._size[1]}:flags=bicubic")
            last.link_to(scale)
            last = scale
        rgb, sink = graph.add("format", "pix_fmts=rgb24"), graph.add("buffersink")
        last.link_to(rgb)
        rgb.link_to(sink)
        graph.configure()
        return graph


def orientation_of(frame: "av.VideoFrame") -> Orientation:
    """How a decoded frame is to be turned, from its display matrix."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    return Orientation() if matrix is None else orientation_of_matrix(bytes(matrix))


def is_turned(frame: "av.VideoFrame") -> bool:
    """Whether the frame carries a display matrix that changes it."""
    return orientation_of(frame) != Orientation()
