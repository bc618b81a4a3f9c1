"""Small JSON files that carry their own checksum, as one more field."""

import json
from typing import Any

from vlpipe.stores.checksum import crc32c_hex
from vlpipe.stores.errors import StoreDamaged
from vlpipe.stores.features import canonical_json

Json = dict[str, Any]


def seal(body: Json) -> bytes:
    """JSON of `body` and of `crc32c`, the checksum of its canonical form."""
    return json.dumps(
        {**body, "crc32c": crc32c_hex(canonical_json(body).encode())}, ensure_ascii=False, indent=1
    ).encode()


def unseal(data: bytes, where: str) -> Json:
    """The body again; StoreDamaged names `where` when it is not what was sealed."""
    try:
        body = json.loads(data)
        is_sound = body.pop("crc32c") == crc32c_hex(canonical_json(body).encode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_sound = False
    if not is_sound:
        raise StoreDamaged(f"{where}: the checksum does not match")
    return dict(body)
