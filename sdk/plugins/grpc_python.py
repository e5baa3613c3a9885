"""A protoc plugin that writes gRPC stubs for Python.

grpcio-tools holds the generator but offers it only as a flag of its own protoc, not as the plugin program that buf
can call: this takes buf's request and calls that protoc with the same files.
"""

import pathlib
import sys
import tempfile

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc


def main() -> int:
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    services = {file.name for file in request.proto_file if file.service}
    files = [name for name in request.file_to_generate if name in services]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        descriptors = descriptor_pb2.FileDescriptorSet(file=request.proto_file)
        (root / "set.binpb").write_bytes(descriptors.SerializeToString())
        out = root / "out"
        out.mkdir()
        if files:
            code = protoc.main(
                ["protoc", f"--descriptor_set_in={root / 'set.binpb'}", f"--grpc_python_out={out}", *files]
            )
            if code != 0:
                response.error = f"grpc_tools.protoc ended with {code}"
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=str(path.relative_to(out)), content=path.read_text())
    sys.stdout.buffer.write(response.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())
