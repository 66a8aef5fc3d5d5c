import assert from "node:assert/strict";
import { test } from "node:test";
import { translate } from "../src/translate.ts";

const check = (line: string, expected: unknown) => assert.deepEqual(JSON.parse(translate(line)), expected, line);

test("a field becomes a record with its type and time", () => {
  check("meter,site=a power=1.5,on=true,count=7i 1700000000123456789", [
    { n: "meter/a/power", v: 1.5, t: 1700000000.123 },
    { n: "meter/a/on", vb: true, t: 1700000000.123 },
    { n: "meter/a/count", v: 7, t: 1700000000.123 },
  ]);
  check('door state="open, \\"wide\\""', [{ n: "door/state", vs: 'open, "wide"' }]);
  check("# a comment\n\nbig\\ hall t=-4e1", [{ n: "big_hall/t", v: -40 }]);
});

test("what is wrong is named by its line", () => {
  for (const bad of ["meter", "meter power", "meter power=", "meter power=warm", 'a b="c', "a b=1 soon", "a b=1 2 3", "_a b=1"]) {
    assert.throws(() => translate(`ok v=1\n${bad}`), /line 2: /, bad);
  }
  assert.throws(() => translate("\n".repeat(5_000)), /more than 5000 lines/);
});
