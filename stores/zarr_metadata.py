"""The `zarr.json` files that let any Zarr v3 reader open a store, a feature or a part.

All are pure functions of what the ledger says about a part, so that they can be checked.
"""

import json
from typing import Any

from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.layout import DATA, NODE_FILE, generation_folder
from vlpipe.stores.row_file import RowFileShape
from vlpipe.stores.stored_dtypes import BFLOAT16

Json = dict[str, Any]

_BYTES: Json = {"name": "bytes", "configuration": {"endian": "little"}}
_BYTES_OF_ONE: Json = {"name": "bytes"}  # the order of bytes means nothing for a single one
_CRC32C: Json = {"name": "crc32c"}
_KEYS: Json = {"name": "default", "configuration": {"separator": "."}}

_BFLOAT16_NAN = 0x7FC0

# the small arrays of a part, one value a video
SMALL_ARRAYS: dict[str, str] = {
    "video_id": "string",
    "row_start": "int64",
    "row_size": "int64",
    "crc32c": "uint32",
    "spans_crc32c": "uint32",
}


def encode(node: Json) -> bytes:
    return json.dumps(node, ensure_ascii=False, separators=(",", ":")).encode()


def group(attributes: Json | None = None) -> Json:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}


def generation_group(definition: FeatureDefinition) -> Json:
    """The group of a generation: its attributes are the definition and the whole fingerprint."""
    return group({"definition": definition.to_json(), "fingerprint": definition.fingerprint})


def groups_above(definition: FeatureDefinition) -> dict[str, Json]:
    """The groups of a feature and of a generation, by the names of their files."""
    folder = generation_folder(definition.name, definition.generation)
    return {
        f"{DATA}/{definition.name}/{NODE_FILE}": group(),
        f"{folder}/{NODE_FILE}": generation_group(definition),
    }


def part_arrays(
    definition: FeatureDefinition, rows: RowFileShape, spans: RowFileShape, num_videos: int
) -> dict[str, Json]:
    """The arrays of a part, by name."""
    arrays = {
        "rows": _row_array(
            rows, ("row", *definition.dimensions), is_bfloat16=definition.dtype == BFLOAT16
        ),
        "spans": _row_array(spans, ("row", "edge"), attributes={"units": "seconds"}),
    }
    for name, data_type in SMALL_ARRAYS.items():
        # The CF convention for ragged arrays: row_size counts the samples of each video.
        attributes = {"sample_dimension": "row"} if name == "row_size" else {}
        arrays[name] = _small_array(data_type, num_videos, attributes)
    return arrays


def part_group(definition: FeatureDefinition, part_id: str, arrays: dict[str, Json]) -> Json:
    """The group of a part, with the metadata of its arrays inside."""
    node = group({"feature": definition.name, "generation": definition.generation, "part": part_id})
    node["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": arrays,
    }
    return node


def _row_array(
    shape: RowFileShape,
    dimensions: tuple[str, ...],
    *,
    attributes: Json | None = None,
    is_bfloat16: bool = False,
) -> Json:
    inner = [shape.chunk_rows, *shape.row_shape]
    shard = [max(shape.num_chunks, 1) * shape.chunk_rows, *shape.row_shape]
    to_bytes = _BYTES_OF_ONE if shape.dtype.itemsize == 1 else _BYTES
    codec = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": inner,
            "codecs": [to_bytes],
            "index_codecs": [_BYTES, _CRC32C],
            "index_location": "end",
        },
    }
    # A lost file reads as the fill value, and NaN is better than plausible zeros.
    fill_value: object = "NaN" if shape.dtype.kind == "f" else 0
    if is_bfloat16:
        attributes, fill_value = {"vlpipe.dtype": BFLOAT16}, _BFLOAT16_NAN
    return _array(
        [shape.num_rows, *shape.row_shape],
        shape.dtype.name,
        shard,
        fill_value,
        [codec],
        dimensions,
        attributes,
    )


def _small_array(data_type: str, length: int, attributes: Json) -> Json:
    codecs: list[Json]
    fill_value: object
    if data_type == "string":
        codecs, fill_value = [{"name": "vlen-utf8"}, _CRC32C], ""
    else:
        codecs, fill_value = [_BYTES, _CRC32C], 0
    return _array([length], data_type, [length], fill_value, codecs, ("video",), attributes)


def _array(
    shape: list[int],
    data_type: str,
    chunk_shape: list[int],
    fill_value: object,
    codecs: list[Json],
    dimensions: tuple[str, ...],
    attributes: Json | None,
) -> Json:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
        "chunk_key_encoding": _KEYS,
        "fill_value": fill_value,
        "codecs": codecs,
        "dimension_names": list(dimensions),
        "attributes": attributes or {},
        "storage_transformers": [],
    }
