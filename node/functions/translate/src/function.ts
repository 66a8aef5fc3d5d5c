// `POST` line protocol, get SenML. An event is the same: its data are the lines, the answer is the reply.

import {
  Fields,
  IncomingBody,
  IncomingRequest,
  OutgoingBody,
  OutgoingResponse,
  ResponseOutparam,
} from "wasi:http/types@0.2.4";
import { translate } from "./translate.js";

const CHUNK_BYTES = 64n * 1024n;

export const incomingHandler = {
  handle(request: IncomingRequest, responseOut: ResponseOutparam): void {
    if (request.method().tag !== "post") {
      return answer(responseOut, 405, "text/plain", "POST lines of the line protocol\n");
    }
    let reply: string;
    try {
      reply = translate(read(request));
    } catch (fault) {
      console.error(String(fault));
      return answer(responseOut, 400, "text/plain", `${fault}\n`);
    }
    answer(responseOut, 200, "application/senml+json", reply);
  },
};

/** The whole body of a request, as text. */
function read(request: IncomingRequest): string {
  const body = request.consume();
  const stream = body.stream();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  try {
    for (;;) text += decoder.decode(stream.blockingRead(CHUNK_BYTES), { stream: true });
  } catch (end) {
    if ((end as { payload?: { tag: string } }).payload?.tag !== "closed") throw end;
  }
  stream[Symbol.dispose]?.();
  IncomingBody.finish(body);
  return text + decoder.decode();
}

function answer(responseOut: ResponseOutparam, status: number, mediaType: string, text: string): void {
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
  stream[Symbol.dispose]?.();
  OutgoingBody.finish(body, undefined);
}
