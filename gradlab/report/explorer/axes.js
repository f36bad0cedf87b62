// Axes, ticks and colours: linear or logarithmic, with a strip below for exact zeros and one above for inf and nan.
"use strict";

/**
 * @typedef {object} Axis
 * @property {string} label
 * @property {boolean} log
 * @property {boolean} [whole] whole numbers only: layers and steps
 * @property {number} low in decades where it is logarithmic
 * @property {number} high
 * @property {boolean} zero whether there are exact zeros to show apart
 * @property {boolean} broken whether there are values that are not finite
 * @property {boolean} [beyond] whether finite values above the axis are shown with them
 * @property {[number, number]} [within] the ends of what has a tick
 */

/** @typedef {{low: number, high: number, positive: number, below: boolean, broken: boolean}} Extent */
/** @type {WeakMap<readonly Value[], Extent>} */
const extents = new WeakMap();

/** The ends of values, remembered: `positive` is the least above zero, `below` whether any is not. @param {readonly Value[]} values @returns {Extent} */
function extentOf(values) {
  let found = extents.get(values);
  if (found) return found;
  found = { low: Infinity, high: -Infinity, positive: Infinity, below: false, broken: false };
  for (const value of values) {
    if (value === null) continue;
    if (!Number.isFinite(value)) { found.broken = true; continue; }
    if (value < found.low) found.low = value;
    if (value > found.high) found.high = value;
    if (value <= 0) found.below = true;
    else if (value < found.positive) found.positive = value;
  }
  extents.set(values, found);
  return found;
}

/** The axis that holds all of several rows of values. @param {string} label @param {readonly (readonly Value[])[]} rows @param {boolean} log @param {boolean} [whole] @returns {Axis} */
function axisOf(label, rows, log, whole = false) {
  let low = Infinity, high = -Infinity, zero = false, broken = false;
  for (const row of rows) {
    const one = extentOf(row);
    low = Math.min(low, log ? one.positive : one.low);
    if (!log || one.high > 0) high = Math.max(high, one.high);
    zero ||= log && one.below;
    broken ||= one.broken;
  }
  if (low > high) [low, high] = log ? [0.1, 1] : [0, 1];
  if (log) [low, high] = [Math.log10(low), Math.log10(high)];
  // Around a single value there is room for ticks that differ.
  if (high - low <= (log ? 0.1 : Math.abs(high) * 1e-6)) {
    const room = log ? 0.05 : Math.abs(high) / 20 || 0.25;
    [low, high] = [low - room, high + room];
  }
  return { label, log, whole, low, high, zero, broken };
}

/** @type {WeakMap<readonly Value[], Float64Array>[]} */
const along = [new WeakMap(), new WeakMap()];

/** Values before strips and ends are seen to, remembered: their logarithms or themselves; NaN where null, Infinity where not finite. @param {readonly Value[]} values @param {boolean} log */
function plainly(values, log) {
  const known = along[Number(log)];
  let found = known.get(values);
  if (!found) {
    found = Float64Array.from(values, (value) => (value === null ? NaN : !Number.isFinite(value) ? Infinity : log ? Math.log10(Math.max(value, 0)) : value));
    known.set(values, found);
  }
  return found;
}

/** The axis ends at `cap` where values lie higher: an explosion would flatten all else. @param {Axis} axis @param {Value} cap @returns {Axis} */
function capped(axis, cap) {
  const high = cap === null || (axis.log && cap <= 0) ? Infinity : axis.log ? Math.log10(cap) + 2 : 2 * Math.abs(cap);
  return high < axis.high && high > axis.low ? { ...axis, high, broken: true, beyond: true } : axis;
}

/** Where a value stands, in the units of the axis; null where it is not measured. @param {Axis} axis @param {Value} value @returns {Value} */
function placed(axis, value) {
  if (value === null) return null;
  const span = axis.high - axis.low;
  if (!Number.isFinite(value)) return axis.high + 0.1 * span;
  const at = !axis.log ? value : value > 0 ? Math.log10(value) : axis.low - 0.1 * span;
  return axis.beyond && at > axis.high + 0.05 * span ? axis.high + 0.1 * span : at;
}

/** What stands at a place of the axis: its strips are of what is endless. @param {Axis} axis @param {number} at */
function valueAt(axis, at) {
  const span = axis.high - axis.low;
  if (axis.broken && at >= axis.high + 0.1 * span) return Infinity;
  if (axis.zero && at <= axis.low - 0.1 * span) return -Infinity;
  return axis.log ? 10 ** at : at;
}

/** Both ends, strips included. @param {Axis} axis @returns {[number, number]} */
function ends(axis) {
  const span = axis.high - axis.low;
  return [axis.low - span * (axis.zero ? 0.15 : 0.04), axis.high + span * (axis.broken ? 0.15 : 0.04)];
}

/** Places of at most about `most` ticks between two ends of what is seen. @param {Axis} axis @param {number} low @param {number} high @param {number} most */
function ticks(axis, low, high, most) {
  const span = axis.high - axis.low, from = Math.max(low, axis.low - 0.04 * span), to = Math.min(high, axis.high + 0.04 * span);
  /** @type {number[]} */
  let found = [];
  if (axis.log && to - from > 3) {
    const step = [1, 2, 3, 5, 10, 20, 50].find((nice) => nice * most >= to - from) ?? 100;
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  } else if (axis.log) {
    const lower = 10 ** from, upper = 10 ** to;
    // Even numbers crowd at the upper end; over less than half a decade there are no others.
    const rows = [[1, 1.5, 2, 3, 4, 5, 7], [1, 2, 3, 5], [1, 2, 5], [1, 3]].map((leads) => [0, 1, 2, 3].flatMap((more) => leads.map((lead) => lead * 10 ** (Math.floor(from) + more))).filter((value) => value >= lower && value <= upper));
    const fit = rows.find((row) => row.length <= most) ?? [];
    found = (fit.length > 2 ? fit : even(lower, upper, most).filter((value) => value > 0)).map(Math.log10);
  } else {
    found = even(from, to, most).filter((value) => !axis.whole || Number.isInteger(value));
  }
  const { within } = axis;
  if (within) found = found.filter((at) => at >= within[0] && at <= within[1]);
  if (axis.zero && low < axis.low - 0.05 * span) found.unshift(axis.low - 0.1 * span);
  if (axis.broken && high > axis.high + 0.05 * span) found.push(axis.high + 0.1 * span);
  return found;
}

/** Round numbers between two ends. @param {number} low @param {number} high @param {number} most */
function even(low, high, most) {
  const rough = (high - low) / Math.max(1, most), decade = 10 ** Math.floor(Math.log10(rough || 1));
  const step = decade * ([1, 2, 5].find((lead) => lead * decade >= rough) ?? 10);
  /** @type {number[]} */
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9 && found.length < 60; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** What stands at a tick. @param {Axis} axis @param {number} at */
function tickLabel(axis, at) {
  const span = axis.high - axis.low;
  if (at > axis.high + 0.05 * span) return axis.beyond ? "beyond" : "inf, nan";
  if (axis.zero && at < axis.low - 0.05 * span) return axis.log ? "≤0" : "0";
  if (!axis.log) return plainTick(at);
  const decade = Math.round(at);
  // Over many decades each is a power of ten: 10⁻² beside 10⁻⁴, not 0.01.
  if (Math.abs(at - decade) < 1e-9 && decade !== 0 && (span > 3 || decade < -3 || decade > 4)) {
    return `10${[...String(decade)].map((sign) => RAISED[/** @type {keyof typeof RAISED} */ (sign)]).join("")}`;
  }
  return plainTick(10 ** at);
}

/** @param {number} value */
function plainTick(value) {
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6)) return value.toExponential().replace(/(\.\d\d)\d*e/, "$1e").replace("e+", "e");
  return String(Number(value.toPrecision(6)));
}

/** @type {Record<string, string[]>} */
const RAMPS = {
  // Viridis (van der Walt & Smith) and magma from white on: even in lightness, also for the colour-blind.
  viridis: ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"],
  magma: ["#fcfdbf", "#feca8d", "#fd9668", "#f1605d", "#cd4071", "#9e2f7f", "#721f81", "#440f76", "#180f3e"],
};

/** A colour of a ramp. @param {string} name @param {number} share 0..1 */
function ramp(name, share) {
  const stops = RAMPS[name], at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.floor(at), part = at - low, from = stops[low], to = stops[Math.min(low + 1, stops.length - 1)];
  const mixed = [1, 3, 5].map((place) => {
    const a = parseInt(from.slice(place, place + 2), 16), b = parseInt(to.slice(place, place + 2), 16);
    return Math.round(a + (b - a) * part);
  });
  return `rgb(${mixed.join(",")})`;
}

/** Okabe & Ito's colours for the colour-blind, and lighter ones of the same hues for a dark page. */
const NAMED = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#56b4e9", "#1c1c1a", "#8c6d31"];
const NAMED_DARK = ["#4aa8e0", "#f08a3c", "#2cc79a", "#e09fc6", "#f0c04a", "#9ad4f5", "#ecece6", "#c8a868"];

let printing = false;
/** @type {Map<string, string>} */
const theme = new Map();

/** The page has become dark or light, or is printed. */
function repainted() { theme.clear(); }

/** @param {string} name @param {() => string} look */
function remembered(name, look) {
  let found = theme.get(name);
  if (found === undefined) theme.set(name, (found = look()));
  return found;
}

/** Whether figures are drawn for a dark page; paper is light. */
function isDark() { return remembered("dark", () => (!printing && matchMedia("(prefers-color-scheme: dark)").matches ? "yes" : "")) !== ""; }

/** @param {number} place */
function named(place) { const found = isDark() ? NAMED_DARK : NAMED; return found[place % found.length]; }

/** How values beyond the colours are told apart: 0 full, 1 a ring or dashes, 2 a cross or dots. @param {number} place */
function styled(place) { return Math.floor(place / NAMED.length) % DASHES.length; }
const DASHES = [undefined, [7, 3], [2, 3]];

/** Of values in order, whose ends must stand out from the page. @param {number} place @param {number} many */
function ordered(place, many) {
  const share = many > 1 ? place / (many - 1) : 0.5;
  return ramp("viridis", isDark() ? 0.25 + 0.75 * share : 0.85 * share);
}

/** A colour of the page. @param {"ink" | "soft" | "line" | "card" | "bad" | "link" | "faint" | "edge"} name */
function paint(name) {
  if (printing) return { ink: "#000", soft: "#444", line: "#ddd", card: "#fff", bad: "#b2182b", link: "#005a94", faint: "#bbb", edge: "#8a8a84" }[name];
  return remembered(name, () => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
}
