"""A gRPC server that says what it was told: of one message, of a stream of them, and of what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent import futures

import grpc


def say(message: bytes, context: grpc.ServicerContext) -> bytes:
    told = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
    return json.dumps({"message": message.decode(), "told": told}).encode()


def repeat(messages: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    for message in messages:
        yield b"heard " + message


def fail(_message: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing here")


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    methods = {"Say": grpc.unary_unary_rpc_method_handler(say), "Repeat": grpc.stream_stream_rpc_method_handler(repeat), "Fail": grpc.unary_unary_rpc_method_handler(fail)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("example.Echo", methods),))
    server.add_insecure_port("127.0.0.1:50051")
    with open("/run/backends/inner.key", "rb") as key, open("/run/backends/inner.pem", "rb") as certificate:
        server.add_secure_port("127.0.0.1:50052", grpc.ssl_server_credentials([(key.read(), certificate.read())]))
    server.start()
    server.wait_for_termination()


main()
