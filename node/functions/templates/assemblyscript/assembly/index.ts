// The function {{name}}: data on standard input, attributes in the variables CE_…, the reply on standard output.
// An HTTP request comes the same way, with its method in HTTP_METHOD and its body as the data.

import { convert } from "./convert";
import { environment, exit, input, log, output } from "./wasi";

if (environment("HTTP_METHOD") == "GET") {
  output("hello from {{name}}\n");
} else {
  const data = input();
  const reply = convert(data);
  if (reply) {
    output(reply);
  } else {
    // Standard error is the function's log; a failure makes the node try the event again.
    log("not a reading: " + data.slice(0, 80) + "\n");
    exit(1);
  }
}
