// InfluxDB's line protocol to SenML (RFC 8428): `meter,site=a power=1.5,on=true 1700000000000000000` becomes one record a field.

interface Record {
  n: string;
  v?: number;
  vs?: string;
  vb?: boolean;
  t?: number;
}

/** Most lines at a time: what comes out must fit an event. */
const LINES_MAX = 5_000;

/** The records of all lines, as JSON. Throws with the number of the first line that is wrong. */
export function translate(text: string): string {
  const lines = text.split("\n").map((line) => line.trim());
  if (lines.length > LINES_MAX) throw new RangeError(`more than ${LINES_MAX} lines`);
  const records = lines.flatMap((line, at) => {
    if (line === "" || line.startsWith("#")) return [];
    try {
      return parse(line);
    } catch (fault) {
      throw new SyntaxError(`line ${at + 1}: ${(fault as Error).message}`);
    }
  });
  return JSON.stringify(records);
}

function parse(line: string): Record[] {
  const [head, fields, time, ...rest] = split(line, " ");
  if (!head || !fields || rest.length > 0) throw new SyntaxError("not `name,tag=value field=value time`");
  const [name, ...tags] = split(head, ",").map(unescape);
  const path = [name, ...tags.map((tag) => tag.slice(tag.indexOf("=") + 1))].map(plain).join("/");
  const t = time === undefined ? {} : { t: seconds(time) };
  return split(fields, ",").map((field) => {
    const [key, value, ...more] = split(field, "=");
    if (!key || !value || more.length > 0) throw new SyntaxError(`\`${field}\` is not field=value`);
    return { n: `${path}/${plain(unescape(key))}`, ...typed(value), ...t };
  });
}

/** The value with SenML's name for its type. */
function typed(value: string): Pick<Record, "v" | "vs" | "vb"> {
  if (value.length > 1 && value.startsWith('"') && value.endsWith('"')) {
    return { vs: value.slice(1, -1).replace(/\\(["\\])/g, "$1") };
  }
  if (/^(t|true)$/i.test(value)) return { vb: true };
  if (/^(f|false)$/i.test(value)) return { vb: false };
  const number = /^-?[0-9.]+(e[+-]?[0-9]+)?[iu]?$/i.test(value) ? Number(value.replace(/[iu]$/, "")) : NaN;
  if (!Number.isFinite(number)) throw new SyntaxError(`\`${value}\` is no value`);
  return { v: number };
}

/** Nanoseconds since 1970 as seconds, to a millisecond. */
function seconds(time: string): number {
  if (!/^-?[0-9]{1,19}$/.test(time)) throw new SyntaxError(`\`${time}\` is no time in nanoseconds`);
  return Number(BigInt(time) / 1_000_000n) / 1000;
}

/** Cuts at `separator`, but not in quotes nor after a backslash. */
function split(text: string, separator: string): string[] {
  const parts = [""];
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const letter = text[at]!;
    if (letter === "\\" && at + 1 < text.length) {
      parts[parts.length - 1] += letter + text[++at]!;
    } else if (letter === separator && !quoted) {
      parts.push("");
    } else {
      if (letter === '"') quoted = !quoted;
      parts[parts.length - 1] += letter;
    }
  }
  if (quoted) throw new SyntaxError("a quote that does not end");
  return parts;
}

const unescape = (text: string): string => text.replace(/\\([, =])/g, "$1");

/** Names of SenML begin with a letter or digit and hold only these characters. */
function plain(text: string): string {
  const name = text.replace(/[^A-Za-z0-9\-:._]/g, "_");
  if (!/^[A-Za-z0-9]/.test(name)) throw new SyntaxError(`\`${text}\` is no name`);
  return name;
}
