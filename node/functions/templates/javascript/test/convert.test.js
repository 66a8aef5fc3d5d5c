import assert from "node:assert/strict";
import { test } from "node:test";
import { convert } from "../src/convert.js";

test("readings are converted", () => {
  assert.equal(convert('{"value": 20}'), '{"value":68}');
});

test("what is no reading is refused", () => {
  for (const bad of ["", "warm", "{}", "null", '{"value": "20"}']) assert.throws(() => convert(bad), bad);
});
