"""The page of a search: the best videos, their frames that count most, and every word by frame."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlpipe.pipelines.html_pages import render
from vlpipe.pipelines.media_frames import frames_at
from vlpipe.pipelines.pictures import data_address, heat_map
from vlpipe.pipelines.searching import Hit, SearchResult
from vlpipe.pipelines.training.pictures import as_data, moving_picture
from vlpipe.stores.errors import VlpipeError

_FRAMES_SHOWN = 6
_FRAME_HEIGHT = 96


def write_search_page(path: Path, result: SearchResult) -> Path:
    """Writes one HTML file that needs nothing else, and returns its path.

    Where the media of a video are gone or damaged, its scores stand without pictures.
    """
    return render(
        "search.html.j2",
        path,
        result=result,
        hits=[_shown(hit) for hit in result.hits],
        failed={str(file): reason for file, reason in result.failed.items()},
    )


def _shown(hit: Hit) -> dict[str, Any]:
    numbers, shares = hit.best_frames(_FRAMES_SHOWN), hit.shares
    strongest = max(float(shares.max(initial=0.0)), 1e-9)
    pictures = _pictures(hit, numbers)
    return {
        "rank": hit.rank,
        "id": hit.video_id,
        "score": hit.score,
        "gif": moving_picture(hit.path),
        "frames": [
            {
                "picture": picture,
                "time_s": float(hit.spans_s[n].mean()),
                "share": float(shares[n]) / strongest,
            }
            for n, picture in zip(numbers, pictures, strict=False)
        ],
        "map": None if hit.alpha is None else data_address(heat_map(hit.alpha.T)),
        "least": 0.0 if hit.alpha is None else float(hit.alpha.min()),
        "most": 0.0 if hit.alpha is None else float(hit.alpha.max()),
        "start_s": float(hit.spans_s[:, 0].min()),
        "end_s": float(hit.spans_s[:, 1].max()),
    }


def _pictures(hit: Hit, numbers: list[int]) -> list[str]:
    if hit.path is None:
        return []
    try:
        frames = frames_at(hit.path, [float(hit.spans_s[n].mean()) for n in numbers])
    except VlpipeError:
        return []
    return [as_data(_scaled(Image.fromarray(np.ascontiguousarray(frame)))) for frame in frames]


def _scaled(image: Image.Image) -> Image.Image:
    width = max(1, round(image.width * _FRAME_HEIGHT / image.height))
    return image.resize((width, _FRAME_HEIGHT))
