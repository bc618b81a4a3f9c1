"""The bytes of row files and small arrays, against the documented layout and other readers."""

import json
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr

from vlpipe.stores.row_file import RowFileShape
from vlpipe.stores.small_array import decode_numbers, decode_texts, encode_numbers, encode_texts


def _part_folder(store, definition):
    folder = Path(store.url) / "data" / definition.name / definition.generation
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.mark.folder
def test_row_file_byte_by_byte(store, samples):
    ids = [f"video {i}" for i in range(50)]
    samples.write(store, ids, samples.rgb)
    data = (_part_folder(store, samples.rgb) / "rows" / "c.0.0").read_bytes()
    num_rows, row_bytes, chunk_rows = 200, 12, 7  # 7 = ceil(200 / 32)
    num_chunks = 29
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (200, 6,), }"
    assert data[:10] == b"\x93NUMPY\x01\x00" + struct.pack("<H", 4086)
    assert data[10:4096] == header.ljust(4085) + b"\n"
    rows = b"".join(samples.rows(samples.rgb, video_id).rows.tobytes() for video_id in ids)
    assert len(rows) == num_rows * row_bytes
    assert data[4096 : 4096 + len(rows)] == rows
    end = 4096 + num_chunks * chunk_rows * row_bytes
    assert data[4096 + len(rows) : end] == bytes((num_chunks * chunk_rows - num_rows) * row_bytes)
    size = chunk_rows * row_bytes
    index = b"".join(struct.pack("<QQ", 4096 + i * size, size) for i in range(num_chunks))
    assert data[end:-4] == index
    assert data[-4:] == struct.pack("<I", google_crc32c.value(index))


@pytest.mark.parametrize(
    ("num_rows", "row_bytes", "expected"),
    [(100_000, 256, 1024), (100_000, 2048, 128), (100_000, 40_960, 6), (320, 2048, 10), (3, 8, 1)],
)
def test_chunk_rows(num_rows, row_bytes, expected):
    shape = RowFileShape.of(num_rows, np.dtype("u1"), (row_bytes,))
    assert shape.chunk_rows == expected
    assert shape.padding_bytes <= num_rows * row_bytes / 31


def test_small_arrays_notice_every_flip():
    for data, decode in (
        (encode_numbers([1, 2, 3], "int64"), lambda d: decode_numbers(d, "int64", "x").tolist()),
        (encode_texts(["a", "\u00e9t\u00e9"]), lambda d: decode_texts(d, "x")),
    ):
        assert decode(data) in ([1, 2, 3], ["a", "\u00e9t\u00e9"])
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 4
            with pytest.raises(Exception, match="checksum"):
                decode(bytes(damaged))


@pytest.mark.folder
def test_metadata_of_a_part(store, samples):
    samples.write(store, ["a", "b"], samples.audio)
    folder = _part_folder(store, samples.audio)
    rows = json.loads((folder / "rows" / "zarr.json").read_text())
    assert rows["shape"] == [8, 2, 3]
    assert rows["chunk_grid"]["configuration"]["chunk_shape"] == [8, 2, 3]
    assert rows["fill_value"] == "NaN"
    assert rows["dimension_names"] == ["row", "object", "channel"]
    generation = json.loads((folder.parent / "zarr.json").read_text())["attributes"]
    assert generation["definition"] == samples.audio.to_json()
    assert generation["fingerprint"] == samples.audio.fingerprint


STRANGER = """
    import sys
    sys.modules["vlpipe"] = None  # importing it is an error from here on
    import json, warnings
    import dask.array, numpy as np, zarr
    import pyarrow.parquet as pq
    from pathlib import Path
    warnings.simplefilter("error")

    root, feature, generation = sys.argv[1:]
    checkpoint = max(Path(root).glob("ckpt/*/checkpoint.json")).parent
    videos = pq.read_table(checkpoint / f"{feature}.{generation}.parquet").to_pylist()
    parts = pq.read_table(checkpoint / "parts.parquet").to_pylist()
    group = zarr.open_group(f"{root}/data", mode="r")
    result = {}
    for video in videos:
        part = parts[video["part"]]["id"]
        folder = Path(root) / "data" / feature / generation / part
        a, b = video["row_start"], video["row_start"] + video["row_size"]
        axes = group[f"{feature}/{generation}/{part}/rows"].ndim
        rows = group[f"{feature}/{generation}/{part}/rows"][a:b]
        alone = zarr.open_group(folder, mode="r")
        file = folder / "rows" / ("c" + ".0" * axes)
        if file.exists():  # there is none where a part holds empty videos only
            np.testing.assert_array_equal(rows, np.load(file, mmap_mode="r")[a:b])
        np.testing.assert_array_equal(rows, alone["rows"][a:b])
        lazy = dask.array.from_zarr(str(folder), "rows")
        np.testing.assert_array_equal(rows, lazy[a:b].compute())
        number = [str(i) for i in alone["video_id"][:]].index(video["video_id"])
        assert alone["row_start"][number] == a and alone["row_size"][number] == b - a
        result[video["video_id"]] = [rows.astype(float).tolist(), alone["spans"][a:b].tolist()]
    try:
        import xarray
    except ImportError:
        pass
    else:
        part = xarray.open_zarr(folder)
        assert part.rows.dims[0] == "row" and part.row_size.attrs["sample_dimension"] == "row"
    print(json.dumps(result))
"""


@pytest.mark.folder
@pytest.mark.parametrize("dtype", ["float16", "uint8", "int64"])
def test_strangers_read_without_vlpipe(store, samples, dtype):
    definition = samples.definition("clip", dtype)
    ids = ["a", "b/../c", "\u7535\u5f71"]
    with store.writer([definition]) as writer:
        for video_id in ids:
            writer.add(video_id, {"clip": samples.rows(definition, video_id)})
        writer.add("empty", {"clip": samples.rows(definition, "empty", 0)})
    store.checkpoint()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STRANGER), store.url, "clip", definition.generation],
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(done.stdout)
    assert sorted(result) == sorted([*ids, "empty"])
    for video_id in ids:
        expected = samples.rows(definition, video_id)
        assert result[video_id] == [expected.rows.tolist(), expected.spans.tolist()]


@pytest.mark.folder
def test_a_part_of_empty_videos_opens_everywhere(store, samples):
    with store.writer([samples.rgb]) as writer:
        writer.add("silent", {"rgb": samples.rows(samples.rgb, "silent", 0)}, note="no_audio")
    assert store["rgb"]["silent"].shape == (0, 6)
    assert store.verify().problems == []
    part = zarr.open_group(str(_part_folder(store, samples.rgb)), mode="r")
    assert part["rows"].shape == (0, 6)
    assert part["rows"][:].shape == (0, 6)
