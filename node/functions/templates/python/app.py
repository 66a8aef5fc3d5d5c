"""The function {{name}}: requests as they are, events as `POST` with their attributes in the headers `ce-…`."""

import sys

from componentize_py_types import Ok
from convert import NotAReading, convert
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingBody,
    IncomingRequest,
    Method_Post,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)
from componentize_py_types import Err
from wit_world.imports.streams import StreamError_Closed

CHUNK_BYTES = 64 * 1024


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        if isinstance(request.method(), Method_Post):
            try:
                answer(response_out, 200, "application/json", convert(read(request)))
            except NotAReading as fault:
                # What a function writes is its log; any status but 2xx makes the node try the event again.
                print(fault, file=sys.stderr)
                answer(response_out, 400, "text/plain", f"{fault}\n".encode())
        else:
            answer(response_out, 200, "text/plain", b"hello from {{name}}\n")


def read(request: IncomingRequest) -> bytes:
    """The whole body of a request."""
    body = request.consume()
    data = bytearray()
    with body.stream() as stream:
        while True:
            try:
                data += stream.blocking_read(CHUNK_BYTES)
            except Err as fault:
                if isinstance(fault.value, StreamError_Closed):
                    break
                raise
    IncomingBody.finish(body)
    return bytes(data)


def answer(response_out: ResponseOutparam, status: int, media_type: str, data: bytes) -> None:
    response = OutgoingResponse(Fields.from_list([("content-type", media_type.encode())]))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        # The interface takes 4096 bytes at a time.
        for start in range(0, len(data), 4096):
            stream.blocking_write_and_flush(data[start : start + 4096])
    OutgoingBody.finish(body, None)
