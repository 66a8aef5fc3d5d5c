/**
 * A reading in °C becomes one in °F; null if the text is none.
 * AssemblyScript has no JSON of its own, so this looks for one number; the package `json-as` parses the whole.
 */
export function convert(text: string): string | null {
  const key = text.indexOf('"value"');
  if (key < 0) return null;
  const colon = text.indexOf(":", key + 7);
  if (colon < 0) return null;
  const celsius = parseFloat(text.slice(colon + 1));
  if (!isFinite(celsius)) return null;
  const fahrenheit = Math.round((celsius * 1.8 + 32) * 100) / 100;
  return '{"value":' + fahrenheit.toString() + "}";
}
