// What {{name}} does, without anything of the node: so it can be tested anywhere.

interface Reading {
  value: number;
}

/** A reading in °C becomes one in °F. */
export function convert(text: string): string {
  const { value }: Partial<Reading> = JSON.parse(text);
  if (!Number.isFinite(value)) throw new TypeError(`not a reading: ${text.slice(0, 80)}`);
  const fahrenheit: Reading = { value: Math.round((value! * 1.8 + 32) * 100) / 100 };
  return JSON.stringify(fahrenheit);
}
