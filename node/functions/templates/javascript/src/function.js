// The function {{name}}: requests as they are, events as `POST` with their attributes in the headers `ce-…`.

import { Fields, IncomingBody, OutgoingBody, OutgoingResponse, ResponseOutparam } from "wasi:http/types@0.2.4";
import { convert } from "./convert.js";

const CHUNK_BYTES = 64n * 1024n;

export const incomingHandler = {
  handle(request, responseOut) {
    if (request.method().tag !== "post") {
      return answer(responseOut, 200, "text/plain", "hello from {{name}}\n");
    }
    let reply;
    try {
      reply = convert(read(request));
    } catch (fault) {
      // What a function writes is its log; any status but 2xx makes the node try the event again.
      console.error(fault.message);
      return answer(responseOut, 400, "text/plain", `${fault.message}\n`);
    }
    answer(responseOut, 200, "application/json", reply);
  },
};

/** The whole body of a request, as text. */
function read(request) {
  const body = request.consume();
  const stream = body.stream();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  try {
    for (;;) text += decoder.decode(stream.blockingRead(CHUNK_BYTES), { stream: true });
  } catch (end) {
    if (end.payload?.tag !== "closed") throw end;
  }
  stream[Symbol.dispose]();
  IncomingBody.finish(body);
  return text + decoder.decode();
}

function answer(responseOut, status, mediaType, text) {
  const response = new OutgoingResponse(Fields.fromList([["content-type", new TextEncoder().encode(mediaType)]]));
  response.setStatusCode(status);
  const body = response.body();
  ResponseOutparam.set(responseOut, { tag: "ok", val: response });
  const stream = body.write();
  const data = new TextEncoder().encode(text);
  // The interface takes 4096 bytes at a time.
  for (let start = 0; start < data.length; start += 4096) {
    stream.blockingWriteAndFlush(data.subarray(start, start + 4096));
  }
  stream[Symbol.dispose]();
  OutgoingBody.finish(body, undefined);
}
