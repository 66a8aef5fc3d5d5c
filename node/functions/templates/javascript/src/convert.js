// What {{name}} does, without anything of the node: so it can be tested anywhere.

/** A reading in °C becomes one in °F. */
export function convert(text) {
  const { value } = JSON.parse(text);
  if (!Number.isFinite(value)) throw new TypeError(`not a reading: ${text.slice(0, 80)}`);
  return JSON.stringify({ value: Math.round((value * 1.8 + 32) * 100) / 100 });
}
