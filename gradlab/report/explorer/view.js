// What a reader has chosen, kept in the address; and the small things of a page: elements, buttons, tables, copies.
"use strict";

/**
 * @typedef {object} View
 * @property {string} x
 * @property {string} y
 * @property {string} colour
 * @property {Map<string, Set<string>>} filters
 * @property {Map<string, [number, number]>} ranges
 * @property {Box | null} box
 * @property {Set<number>} picked
 * @property {string} sort
 * @property {string} when
 * @property {string} along the axis of the group's δ, where it was chosen
 * @property {number} run
 * @property {number} beside
 * @property {string} axis
 * @property {string} quantity
 * @property {number} step
 * @property {Set<string>} logs figures' axes that are switched
 * @property {Map<string, Box>} zooms what is seen of figures that do not show the whole
 * @property {Map<string, Set<string>>} off figures' entries of the legend that are switched off
 */
/** @typedef {[number, number, number, number]} Box from and to across, from and to upwards */
/** @type {View} */
const view = {
  x: "", y: "", colour: "", filters: new Map(), ranges: new Map(), box: null, picked: new Set(), sort: "", when: "start", along: "",
  run: -1, beside: -1, axis: "", quantity: "signal_grad_norm", step: -1, logs: new Set(), zooms: new Map(), off: new Map(),
};

/** The view as the address has it. @param {Data} data */
function address(data) {
  const told = new URLSearchParams();
  /** @param {string} name @param {string} value */
  const say = (name, value) => { if (value) told.set(name, value); };
  for (const name of /** @type {const} */ (["x", "y", "colour", "sort", "axis"])) say(name, view[name]);
  if (view.when !== "start") say("when", view.when);
  say("along", view.along);
  if (view.quantity !== "signal_grad_norm") say("show", view.quantity);
  for (const [key, labels] of view.filters) for (const label of labels) told.append(`is.${key}`, label);
  for (const [key, [low, high]] of view.ranges) say(`in.${key}`, `${low},${high}`);
  /** @param {Box} box */
  const rounded = (box) => box.map((value) => Number(value.toPrecision(6))).join(",");
  if (view.box) say("box", rounded(view.box));
  if (view.picked.size) say("picked", [...view.picked].map((run) => data.head.ids[run]).join(","));
  if (view.run >= 0) say("run", data.head.ids[view.run]);
  if (view.beside >= 0) say("with", data.head.ids[view.beside]);
  if (view.step >= 0) say("step", String(view.step));
  say("switched", [...view.logs].join(","));
  for (const [id, box] of view.zooms) say(`zoom.${id}`, rounded(box));
  for (const [id, names] of view.off) for (const name of names) told.append(`off.${id}`, name);
  return told.toString();
}

/** Takes a view from the address; what it does not know it leaves alone. @param {Data} data @param {string} text */
function arrive(data, text) {
  const told = new URLSearchParams(text), place = new Map(data.head.ids.map((id, run) => [id, run]));
  /** @param {string | null} id */
  const runOf = (id) => place.get(id ?? "") ?? -1;
  const able = new Set([...data.fields.keys()]);
  for (const name of /** @type {const} */ (["x", "y", "colour"])) { const value = told.get(name); if (value && able.has(value)) view[name] = value; }
  /** @param {string} name */
  const axis = (name) => { const found = told.get(name) ?? ""; return (found === "depth" || found === "time") && data.blocks[found] ? found : ""; };
  view.sort = told.get("sort") ?? view.sort;
  view.axis = axis("axis");
  view.along = axis("along");
  view.when = told.get("when") === "end" ? "end" : "start";
  view.quantity = told.get("show") ?? "signal_grad_norm";
  /** @param {string} text @returns {Box | null} */
  const boxOf = (text) => { const box = text.split(",").map(Number); return box.length === 4 && box[0] < box[1] && box[2] < box[3] ? [box[0], box[1], box[2], box[3]] : null; };
  view.filters = new Map();
  view.ranges = new Map();
  view.zooms = new Map();
  view.off = new Map();
  for (const [name, value] of told) {
    const [kind, key] = [name.slice(0, 3), name.slice(3)], [part, id] = name.split("."), zoom = part === "zoom" ? boxOf(value) : null;
    const field = data.fields.get(key), known = field?.labels?.flatMap((label) => (key === "verdict" ? label.split("+") : [label]));
    if (zoom?.every(Number.isFinite)) view.zooms.set(id, zoom);
    if (part === "off") view.off.set(id, (view.off.get(id) ?? new Set()).add(value));
    if (kind === "is." && known?.includes(value)) view.filters.set(key, (view.filters.get(key) ?? new Set()).add(value));
    const ends = value.split(",").map(Number);
    if (kind === "in." && field?.numbers && ends.length === 2 && ends[0] <= ends[1]) view.ranges.set(key, [ends[0], ends[1]]);
  }
  view.box = boxOf(told.get("box") ?? "");
  view.picked = new Set((told.get("picked") ?? "").split(",").map(runOf).filter((run) => run >= 0));
  view.run = told.has("run") ? runOf(told.get("run")) : view.run;
  view.beside = runOf(told.get("with"));
  view.step = told.has("step") ? Number(told.get("step")) : -1;
  view.logs = new Set((told.get("switched") ?? "").split(",").filter(Boolean));
}

/** @type {Data | null} */
let shownData = null;
let waiting = 0;

/** Something was chosen: the address follows, a moment later. */
function changed() {
  clearTimeout(waiting);
  waiting = setTimeout(() => { if (shownData) history.replaceState(history.state, "", `#${address(shownData)}`); }, 150);
}

/** @template {keyof HTMLElementTagNameMap} T @param {T} tag @param {Record<string, string>} attributes @param {Element | null} [host] @param {string} [text] @returns {HTMLElementTagNameMap[T]} */
function make(tag, attributes, host, text) {
  const one = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== "" || name === "hidden") one.setAttribute(name, value);
  if (text !== undefined) one.textContent = text;
  host?.append(one);
  return one;
}

/** @param {Element} host @param {string} text @param {() => void} press @param {Record<string, string>} [attributes] */
function button(host, text, press, attributes = {}) {
  const one = make("button", { type: "button", ...attributes }, host, text);
  one.addEventListener("click", press);
  return one;
}

/** A list to choose from, with its name before it. @param {Element} host @param {string} name @param {[string, string][]} options value and text @param {string} chosen @param {(value: string) => void} choose */
function choice(host, name, options, chosen, choose) {
  const label = make("label", { class: "choice" }, host, `${name} `), list = make("select", { "aria-label": name }, label);
  for (const [value, text] of options) make("option", { value }, list, text);
  list.value = chosen;
  list.addEventListener("change", () => choose(list.value));
  return list;
}

/** Says something to a screen reader. @param {string} text */
function announce(text) {
  const live = document.getElementById("live");
  if (live) live.textContent = text;
}

/** A table with a head. @param {HTMLElement} host @param {Cell[][]} rows @param {number} most */
function fillTable(host, rows, most) {
  host.replaceChildren();
  const [head, ...body] = rows, table = make("table", {}, host), top = make("tr", {}, make("thead", {}, table));
  for (const cell of head ?? []) make("th", { scope: "col" }, top, String(cell));
  const under = make("tbody", {}, table);
  for (const row of body.slice(0, most)) {
    const line = make("tr", {}, under);
    for (const cell of row) make("td", { class: typeof cell === "string" ? "" : "n" }, line, typeof cell === "string" ? cell : figure(cell));
  }
  if (body.length > most) make("p", { class: "soft" }, host, `${most} of ${body.length} rows; CSV has them all.`);
}

/** Commas, a head, nan and inf as such, null empty; no text a spreadsheet would take for a formula. @param {Cell[][]} rows */
function csv(rows) {
  return rows.map((row) => row.map((cell) => {
    if (cell === null) return "";
    if (typeof cell === "number") return Number.isFinite(cell) ? String(Number(cell.toPrecision(6))) : figure(cell);
    const safe = /^[=+\-@\t\r]/.test(cell) && !/^[+-]?(\d[\d.]*(e[+-]?\d+)?|inf)$/.test(cell) ? `'${cell}` : cell;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }).join(",")).join("\n") + "\n";
}

/** Into the clipboard, or where there is none into a file. @param {string} text @param {string} name @param {Element} tools */
function copyText(text, name, tools) {
  const done = navigator.clipboard?.writeText(text) ?? Promise.reject(new Error("no clipboard"));
  done.then(() => told(tools, "copied"), () => { save(new Blob([text], { type: "text/csv" }), name); told(tools, `saved as ${name}`); });
}

/** A command with a button behind it that copies it. @param {Element} code @param {string} name of the button */
function copyable(code, name) {
  const host = make("span", { class: "copy" });
  code.after(host);
  button(host, "Copy", () => copyText(code.textContent ?? "", "command.txt", host), { "aria-label": name });
}

/** @param {HTMLCanvasElement} canvas @param {string} name @param {Element} tools */
function copyPicture(canvas, name, tools) {
  canvas.toBlob((blob) => {
    if (!blob) return;
    const done = typeof ClipboardItem === "undefined" || !navigator.clipboard ? Promise.reject(new Error("no clipboard")) : navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    done.then(() => told(tools, "copied"), () => { save(blob, name); told(tools, `saved as ${name}`); });
  });
}

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** @param {Element} tools @param {string} text */
function told(tools, text) {
  tools.querySelector(".told")?.remove();
  const one = make("span", { class: "told", role: "status" }, tools, text);
  setTimeout(() => one.remove(), 2500);
}
