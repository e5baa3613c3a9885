"""The main job with the Python client: create, exec, screenshot, clipboard, an error, delete.

Given by the environment: WOLFPACK_SERVER (host:port), WOLFPACK_API_KEY, WOLFPACK_CA (a file, for TLS).
"""

import hashlib
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "sdk" / "python"))

from wolfpack_client import Wolfpack, WolfpackError, sandbox_pb2  # noqa: E402


def main() -> None:
    ca = os.environ.get("WOLFPACK_CA")
    client = Wolfpack(
        os.environ["WOLFPACK_SERVER"],
        os.environ["WOLFPACK_API_KEY"],
        pathlib.Path(ca).read_bytes() if ca else None,
    )
    sandbox = client.create(desktop=True, labels={"made-by": "python"})
    try:
        assert sandbox.status.state == sandbox_pb2.SANDBOX_STATE_RUNNING
        assert sandbox.name in [found.name for found in client.list()]

        result = client.exec(sandbox.name, ["sh", "-c", "echo out; echo err >&2; exit 7"])
        assert (result.code, result.stdout, result.stderr) == (7, b"out\n", b"err\n"), result

        data = os.urandom(1 << 20)
        result = client.exec(sandbox.name, ["sha256sum"], stdin=data)
        assert result.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest(), result

        assert client.screenshot(sandbox.name).startswith(b"\x89PNG\r\n\x1a\n")
        client.set_clipboard(sandbox.name, "wölfe")
        assert client.clipboard(sandbox.name) == "wölfe"
    finally:
        client.delete(sandbox.name)
    deadline = time.monotonic() + 60
    while client.get(sandbox.name).status.state != sandbox_pb2.SANDBOX_STATE_DELETED:
        assert time.monotonic() < deadline, "the sandbox was not deleted within 60 s"
        time.sleep(0.2)

    try:
        client.get("sandboxes/none")
        raise AssertionError("a sandbox that is not there was found")
    except WolfpackError as error:
        assert error.reason == "SANDBOX_NOT_FOUND", error
    client.close()
    print("python main job: ok")


if __name__ == "__main__":
    main()
