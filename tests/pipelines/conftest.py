"""Small media and jobs that the pipeline's tests share."""

import made_media
import pytest

from vlpipe.pipelines.extraction.job import ExtractionJob

# A network that costs little: most of a test's time then goes to what is under test.
SETTINGS = {"resnet18": {"resize": 40, "crop": 32}}


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of good media: four GIFs of 6 to 9 frames, an mp4 with sound and one without."""
    folder = tmp_path_factory.mktemp("clips")
    for n in range(4):
        made_media.make_gif(folder / f"gif{n}.gif", [100 + 10 * n] * (6 + n), seed=n)
    made_media.make_video(folder / "sound.mp4", seconds=2.5, audio="aac")
    made_media.make_video(folder / "silent.mp4", seconds=1.0)
    return folder


@pytest.fixture
def make_job(tmp_path, clips):
    """Builds a job over the clips; keywords override its fields."""

    def build(**changes):
        fields = {
            "paths": (clips,),
            "store": str(tmp_path / "store"),
            "features": ("resnet18", "vggish"),
            "settings": SETTINGS,
            "weights": {"*": "untrained"},
        }
        return ExtractionJob(**(fields | changes))

    return build
