"""A thin client over the generated stubs: one channel, the API key on every call, errors with their reason.

    client = Wolfpack("127.0.0.1:8080", api_key="wp_...")
    sandbox = client.create(desktop=True)
    result = client.exec(sandbox.name, ["uname", "-a"])
    client.delete(sandbox.name)

Generate the stubs first: scripts/gen.
"""

from __future__ import annotations

import dataclasses
import pathlib
import queue
import sys
import uuid

# The generated modules import each other as `wolfpack.…` and `buf.…`.
_generated = pathlib.Path(__file__).resolve().parent.parent / "generated"
if str(_generated) not in sys.path:
    sys.path.insert(0, str(_generated))

import grpc  # noqa: E402
from google.rpc import error_details_pb2  # noqa: E402
from grpc_status import rpc_status  # noqa: E402
from wolfpack.sandbox.v1 import (  # noqa: E402
    desktop_service_pb2,
    desktop_service_pb2_grpc,
    exec_pb2,
    sandbox_io_service_pb2,
    sandbox_io_service_pb2_grpc,
    sandbox_pb2,
    sandbox_service_pb2,
    sandbox_service_pb2_grpc,
)


class WolfpackError(Exception):
    """An error of the API: `reason` is one of docs/errors, `metadata` its facts."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, metadata: dict[str, str]):
        super().__init__(f"{reason}: {message}")
        self.code, self.reason, self.message, self.metadata = code, reason, message, metadata


def _error(error: grpc.RpcError) -> WolfpackError:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return WolfpackError(error.code(), info.reason, error.details() or "", dict(info.metadata))


@dataclasses.dataclass
class ExecResult:
    """How a program ended and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes
    via: int


class Wolfpack:
    """A connection to one gateway. `ca` (PEM) turns TLS on; without it the address must be a loopback one."""

    def __init__(self, address: str, api_key: str, ca: bytes | None = None):
        if ca is None:
            self.channel = grpc.insecure_channel(address)
        else:
            self.channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca))
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._sandboxes = sandbox_service_pb2_grpc.SandboxServiceStub(self.channel)
        self._io = sandbox_io_service_pb2_grpc.SandboxIoServiceStub(self.channel)
        self._desktop = desktop_service_pb2_grpc.DesktopServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def _call(self, method, request, timeout: float = 30.0):
        try:
            return method(request, metadata=self._metadata, timeout=timeout)
        except grpc.RpcError as error:
            raise _error(error) from None

    def create(
        self,
        *,
        image: str = "",
        command: list[str] | None = None,
        desktop: bool = False,
        display_name: str = "",
        labels: dict[str, str] | None = None,
        wait: float = 60.0,
    ) -> sandbox_pb2.Sandbox:
        """Makes a sandbox; returns it RUNNING, or raises when it FAILED or did not start within `wait` seconds."""
        spec = sandbox_pb2.SandboxSpec(image=image, command=command or [], desktop=desktop)
        sandbox = sandbox_pb2.Sandbox(display_name=display_name, labels=labels or {}, spec=spec)
        request = sandbox_service_pb2.CreateSandboxRequest(request_id=str(uuid.uuid4()), sandbox=sandbox)
        created = self._call(self._sandboxes.CreateSandbox, request).sandbox
        return self.wait_running(created.name, wait) if wait else created

    def wait_running(self, name: str, timeout: float) -> sandbox_pb2.Sandbox:
        watch = self._sandboxes.WatchSandboxes(
            sandbox_service_pb2.WatchSandboxesRequest(name=name), metadata=self._metadata, timeout=timeout
        )
        try:
            for event in watch:
                if event.WhichOneof("event") != "upserted":
                    continue
                status = event.upserted.status
                if status.state == sandbox_pb2.SANDBOX_STATE_RUNNING:
                    return event.upserted
                if status.state in (
                    sandbox_pb2.SANDBOX_STATE_FAILED,
                    sandbox_pb2.SANDBOX_STATE_DELETING,
                    sandbox_pb2.SANDBOX_STATE_DELETED,
                ):
                    raise WolfpackError(grpc.StatusCode.FAILED_PRECONDITION, status.reason, status.message, {})
        except grpc.RpcError as error:
            raise _error(error) from None
        finally:
            watch.cancel()
        raise WolfpackError(grpc.StatusCode.UNAVAILABLE, "WATCH_ENDED", "the watch ended before the sandbox ran", {})

    def get(self, name: str) -> sandbox_pb2.Sandbox:
        return self._call(self._sandboxes.GetSandbox, sandbox_service_pb2.GetSandboxRequest(name=name)).sandbox

    def list(self) -> list[sandbox_pb2.Sandbox]:
        found: list[sandbox_pb2.Sandbox] = []
        request = sandbox_service_pb2.ListSandboxesRequest()
        while True:
            page = self._call(self._sandboxes.ListSandboxes, request)
            found.extend(page.sandboxes)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def delete(self, name: str) -> None:
        self._call(self._sandboxes.DeleteSandbox, sandbox_service_pb2.DeleteSandboxRequest(name=name))

    def exec(self, name: str, argv: list[str], stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        """Runs a program to its end with `stdin` as its whole input."""
        requests: queue.SimpleQueue = queue.SimpleQueue()
        start = sandbox_io_service_pb2.SandboxExecStart(sandbox=name, exec=exec_pb2.ExecStart(argv=argv))
        requests.put(sandbox_io_service_pb2.ExecRequest(start=start))
        for at in range(0, len(stdin), 32768):
            piece = exec_pb2.ExecInput(stdin=stdin[at : at + 32768])
            requests.put(sandbox_io_service_pb2.ExecRequest(input=piece))
        requests.put(sandbox_io_service_pb2.ExecRequest(input=exec_pb2.ExecInput(close_stdin=exec_pb2.CloseStdin())))
        requests.put(None)
        call = self._io.Exec(iter(requests.get, None), metadata=self._metadata, timeout=timeout)
        stdout, stderr, via, code = bytearray(), bytearray(), 0, None
        try:
            for response in call:
                if response.WhichOneof("frame") == "started":
                    via = response.started.via
                    continue
                kind = response.output.WhichOneof("output")
                if kind == "exit":
                    code = response.output.exit.code
                else:
                    chunk, sink = getattr(response.output, kind), stdout if kind == "stdout" else stderr
                    if chunk.offset != len(sink):
                        raise WolfpackError(grpc.StatusCode.DATA_LOSS, "OUTPUT_GAP", f"{kind} has a gap", {})
                    sink.extend(chunk.data)
        except grpc.RpcError as error:
            raise _error(error) from None
        if code is None:
            raise WolfpackError(grpc.StatusCode.UNKNOWN, "NO_EXIT", "the call ended without an exit", {})
        return ExecResult(code, bytes(stdout), bytes(stderr), via)

    def screenshot(self, name: str) -> bytes:
        """The desktop as a PNG."""
        return self._call(self._desktop.GetScreenshot, desktop_service_pb2.GetScreenshotRequest(sandbox=name)).image

    def clipboard(self, name: str) -> str:
        return self._call(self._desktop.GetClipboard, desktop_service_pb2.GetClipboardRequest(sandbox=name)).text

    def set_clipboard(self, name: str, text: str) -> None:
        self._call(self._desktop.SetClipboard, desktop_service_pb2.SetClipboardRequest(sandbox=name, text=text))
