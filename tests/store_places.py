"""Where the tests of the store put their stores: a folder, memory, or an S3 server of this machine.

`VLPIPE_STORES_AT=s3` (or `memory`) puts there what lies in a folder otherwise (`make test-s3`).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DEFAULT_PLACE = os.environ.get("VLPIPE_STORES_AT", "folder")
# S3 only when it is asked for: a test costs a second there. `test_s3.py` always goes there.
PLACES = ("folder", "memory") if DEFAULT_PLACE == "folder" else (DEFAULT_PLACE,)

# One request at a time: this imitation of S3 looks and then writes, which S3 does in one step.
_SERVER = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app))
print(server.port, flush=True)
server.serve_forever()
"""


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment in which clients use a new S3 server with a bucket of the name `bucket`."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        address = f"http://127.0.0.1:{int(process.stdout.readline())}"
        environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        yield environment
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
