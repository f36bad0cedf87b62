// What the page holds (gradlab/report/inside.py), as values: null is "not measured", NaN and Infinity are themselves.
"use strict";

/** @typedef {number | null} Value */
/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} short
 * @property {"key" | "state" | "outcome"} kind
 * @property {string[]} [labels] the values in order, as text
 * @property {number[]} [code] the place of each run's value in them
 * @property {Value[]} [numbers]
 * @property {boolean} [swept]
 */
/** @typedef {{codes: [number, number], scales: [number, number]}} Packed */
/**
 * @typedef {object} RawBlock
 * @property {number[][]} steps
 * @property {number[][]} places
 * @property {number[]} step
 * @property {number[]} place
 * @property {string[][]} [names]
 * @property {string} [index] of an instrument: what its places are
 * @property {Record<string, Packed>} quantities
 */
/**
 * @typedef {object} Head
 * @property {number} schema
 * @property {string[]} ids
 * @property {Field[]} fields
 * @property {string[]} verdicts every verdict there is, the gravest first
 * @property {string[]} notes
 * @property {Record<string, RawBlock>} blocks
 * @property {number[] | null} before
 * @property {[string, number][][]} told
 * @property {string[]} sources
 * @property {(string | null)[]} again
 * @property {(string | null)[]} cures
 * @property {Record<string, string>} errors
 * @property {Record<string, {places: number, lines: [number, number]}>} theory
 */

const NULL = 0, ZERO = 1, NAN = 2, INF = 3, FIRST = 4, LAST = 0x7fff, SIGN = 0x8000;

/** The runs' rows of one table along one axis. */
class Block {
  /** @param {RawBlock} raw @param {Uint8Array} bytes behind the head */
  constructor(raw, bytes) {
    this.raw = raw;
    this.bytes = bytes;
    /** @type {Map<string, Value[][] | null>} */
    this.known = new Map();
    /** @type {Map<string, Int32Array>} */
    this.starts = new Map();
  }
  /** @param {number} run */
  has(run) { return this.raw.step[run] >= 0; }
  /** @param {number} run */
  steps(run) { return this.raw.steps[this.raw.step[run]] ?? []; }
  /** @param {number} run */
  places(run) { return this.raw.places[this.raw.place[run]] ?? []; }
  /** @param {number} run */
  names(run) { return this.raw.names?.[this.raw.place[run]] ?? []; }
  /** @param {string} quantity @returns {Float32Array} */
  scales(quantity) {
    const [begin, length] = this.raw.quantities[quantity].scales;
    return new Float32Array(this.bytes.buffer, this.bytes.byteOffset + begin, length / 4);
  }
  /** Where each run's codes begin; a run without any has those of the next. @param {string} quantity */
  begins(quantity) {
    let starts = this.starts.get(quantity);
    if (!starts) {
      const scales = this.scales(quantity);
      starts = new Int32Array(this.raw.step.length + 1);
      for (let run = 0; run < this.raw.step.length; run += 1) {
        const cells = Number.isNaN(scales[2 * run]) ? 0 : this.steps(run).length * this.places(run).length;
        starts[run + 1] = starts[run] + cells;
      }
      this.starts.set(quantity, starts);
    }
    return starts;
  }
  /** The values of a run, a row a place and a column a recorded step; null where it has none. @param {number} run @param {string} quantity @returns {Value[][] | null} */
  values(run, quantity) {
    const key = `${quantity} ${run}`;
    let found = this.known.get(key);
    if (found === undefined) {
      found = this.raw.quantities[quantity] && this.has(run) ? this.unpacked(run, quantity) : null;
      this.known.set(key, found);
    }
    return found;
  }
  /** @param {number} run @param {string} quantity @returns {Value[][] | null} */
  unpacked(run, quantity) {
    const starts = this.begins(quantity), scales = this.scales(quantity);
    const low = scales[2 * run], high = scales[2 * run + 1];
    if (Number.isNaN(low)) return null;
    const [begin, length] = this.raw.quantities[quantity].codes, half = length / 2;
    const width = this.steps(run).length;
    /** @type {Value[][]} */
    const rows = [];
    for (let at = starts[run]; at < starts[run + 1]; at += width) {
      /** @type {Value[]} */
      const row = [];
      let code = 0;
      for (let column = 0; column < width; column += 1) {
        const place = begin + at + column;
        code = (code + this.bytes[place] + 256 * this.bytes[place + half]) & 0xffff;
        row.push(decoded(code, low, high));
      }
      rows.push(row);
    }
    return rows;
  }
}

/** @param {number} code @param {number} low log10 of the least magnitude @param {number} high @returns {Value} */
function decoded(code, low, high) {
  const size = code & LAST, sign = code & SIGN ? -1 : 1;
  if (size === NULL) return null;
  if (size === ZERO) return 0;
  if (size === NAN) return NaN;
  if (size === INF) return sign * Infinity;
  return sign * 10 ** (low + ((size - FIRST) / (LAST - FIRST)) * (high - low));
}

/** Everything that the page knows of its runs. */
class Data {
  /** @param {Head} head @param {Uint8Array} bytes */
  constructor(head, bytes) {
    this.head = head;
    this.size = head.ids.length;
    this.bytes = bytes;
    /** @type {Map<string, Value[]>} */
    this.profiles = new Map();
    for (const field of head.fields) field.numbers = field.numbers?.map((value) => (value === null ? null : Number(value)));
    this.fields = new Map(head.fields.map((field) => [field.name, field]));
    /** @type {Record<string, Block>} */
    this.blocks = Object.fromEntries(Object.entries(head.blocks).map(([name, raw]) => [name, new Block(raw, bytes)]));
    this.keys = head.fields.filter((field) => field.kind === "key");
    this.outcomes = head.fields.filter((field) => field.kind === "outcome");
  }
  /** What a field says of a run, as text. @param {Field} field @param {number} run */
  label(field, run) {
    if (field.labels && field.code) return field.labels[field.code[run]];
    return figure(field.numbers?.[run] ?? null);
  }
  /** A run by the keys in which it differs from others. @param {number} run @param {number} [most] */
  words(run, most = 9) {
    const change = this.fields.get("change"), seed = this.fields.get("seed");
    const swept = this.keys.filter((field) => field.swept || field === seed), keys = change ? [change, ...(seed ? [seed] : [])] : swept.length ? swept : this.keys;
    const told = keys.slice(0, most).map((field) => `${field.short}=${this.label(field, run)}`);
    return told.join(", ") || this.head.ids[run];
  }
  /** @param {number} run @returns {string[]} */
  verdicts(run) {
    const field = this.fields.get("verdict");
    return field ? this.label(field, run).split("+") : [];
  }
  /** The axis along which a run's layers are looked at first. @param {number} run */
  axis(run) { return this.blocks.time?.has(run) ? "time" : "depth"; }
  /** A quantity by place at one recorded step, remembered. @param {number} run @param {string} axis @param {string} quantity @param {number} column @returns {Value[]} */
  profile(run, axis, quantity, column) {
    const block = this.blocks[axis], key = `${axis} ${quantity} ${run} ${column}`;
    let found = this.profiles.get(key);
    if (!found) this.profiles.set(key, (found = block?.values(run, quantity)?.map((row) => row[column] ?? null) ?? []));
    return found;
  }
  /** What theory expects of δ at step 0, by place. @param {number} run @param {string} axis @returns {Value[] | null} */
  theory(run, axis) {
    const found = this.head.theory[axis];
    if (!found) return null;
    const [begin] = found.lines;
    const lines = new Float32Array(this.bytes.buffer, this.bytes.byteOffset + begin + 4 * run * found.places, found.places);
    const own = this.blocks[axis].places(run).map((place) => (Number.isFinite(lines[place]) ? 10 ** lines[place] : null));
    return own.some((value) => value !== null) ? own : null;
  }
}

/** @param {string} text base64 of compressed head and numbers */
async function unpack(text) {
  const letters = atob(text.trim()), packed = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at += 1) packed[at] = letters.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const whole = await new Response(stream).arrayBuffer();
  const length = new DataView(whole).getUint32(0, true);
  const head = /** @type {Head} */ (JSON.parse(new TextDecoder().decode(new Uint8Array(whole, 4, length))));
  // Scales are read in place, as numbers of four bytes.
  return new Data(head, new Uint8Array(whole.slice(4 + length)));
}

/** Four digits, words for what is not finite, a dash for what was not measured. @param {Value} value */
function figure(value) {
  if (value === null) return "–";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(4))) : value.toExponential(2).replace("e+", "e");
}
