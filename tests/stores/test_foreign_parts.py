"""A part with other codecs than ours is read through zarr-python, and still compared."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from vlpipe.stores import FeatureStore
from vlpipe.stores.change import define_op
from vlpipe.stores.checksum import crc32c
from vlpipe.stores.commit import commit
from vlpipe.stores.errors import StoreDamaged
from vlpipe.stores.history import load_state
from vlpipe.stores.small_array import encode_numbers, encode_texts
from vlpipe.stores.storage import open_storage

pytestmark = pytest.mark.folder  # zarr-python writes the part there

PART = "00000000000000aa-00000000000000bb"


@pytest.fixture
def compressed(store, samples):
    """A store whose only part was compressed by zarr-python."""
    definition = samples.audio
    features = {video_id: samples.rows(definition, video_id) for video_id in ("a", "b")}
    folder = Path(store.url, "data", "audio", definition.generation, PART)
    group = zarr.create_group(folder)
    sizes = {}
    for name in ("rows", "spans"):
        values = np.concatenate([getattr(f, name) for f in features.values()])
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(3, *values.shape[1:]),
            shards=(9, *values.shape[1:]),
            compressors=[zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
        )
        array[:] = values
        file = next(path for path in (folder / name).iterdir() if path.name != "zarr.json")
        sizes[name] = {"bytes": file.stat().st_size}
    videos = {
        "id": list(features),
        "row_start": [0, 4],
        "row_size": [4, 4],
        "crc32c": [crc32c(f.rows) for f in features.values()],
        "spans_crc32c": [crc32c(f.spans) for f in features.values()],
    }
    for name, dtype in (("row_start", "int64"), ("row_size", "int64"), ("crc32c", "uint32")):
        (folder / name).mkdir()
        (folder / name / "c.0").write_bytes(encode_numbers(videos[name], dtype))
    (folder / "spans_crc32c").mkdir()
    (folder / "spans_crc32c" / "c.0").write_bytes(encode_numbers(videos["spans_crc32c"], "uint32"))
    (folder / "video_id").mkdir()
    (folder / "video_id" / "c.0").write_bytes(encode_texts(videos["id"]))
    part = {
        "id": PART,
        "rows": 8,
        "videos": 2,
        "dtype": "float32",
        "row_shape": [2, 3],
        "chunk_rows": 3,
        "codec": "zstd",
        "base": 0,
        "files": sizes,
    }
    where = {"feature": "audio", "generation": definition.generation}
    ops = [
        define_op(definition),
        {"op": "activate", **where},
        {"op": "add", **where, "mode": "keep", "part": part, "videos": videos},
    ]
    storage = open_storage(store.url)
    commit(storage, load_state(storage), lambda _: ops)
    return FeatureStore.open(store.url)


def test_compressed_parts(compressed, samples):
    samples.check(compressed, ["a", "b"], samples.audio)
    rows = samples.rows(samples.audio, "b").rows
    np.testing.assert_array_equal(compressed["audio"].read("b", rows=[3, 1]), rows[[3, 1]])
    areas = {problem.area for problem in compressed.verify().problems}
    assert areas == {"metadata"}  # the groups above, which no writer of ours has made
    compressed.checkpoint()
    samples.check(FeatureStore.open(compressed.url), ["a", "b"], samples.audio)


def test_damage_in_compressed_parts(compressed):
    rows = next(Path(compressed.url).rglob("rows/c*"))
    data = bytearray(rows.read_bytes())
    data[20] ^= 1
    rows.write_bytes(data)
    with pytest.raises(StoreDamaged, match=PART):
        compressed["audio"]["a"]
    assert "video" in {problem.area for problem in compressed.verify().problems}
