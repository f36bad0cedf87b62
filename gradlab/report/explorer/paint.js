// What is painted into a figure's frame, and what lies nearest to the pointer.
"use strict";

/** @typedef {{text: string, left: number, top: number, run?: number, step?: number}} Near */
/** @typedef {(one: {group?: string, name: string}) => boolean} Shown */
/** @typedef {string | Value} Cell */

/** From the units of an axis to pixels, as a factor and what is added. @param {uPlot} plot @param {"x" | "y"} side @param {boolean} device */
function pixels(plot, side, device) {
  const scale = plot.scales[side], low = scale.min ?? 0, high = scale.max ?? 1;
  const from = plot.valToPos(low, side, device), factor = (plot.valToPos(high, side, device) - from) / (high - low);
  return { factor, from: from - low * factor };
}

/** @param {uPlot} plot @param {Picture} picture @param {Line} line */
function paintLine(plot, picture, line) {
  const { ctx } = plot, x = pixels(plot, "x", true), y = pixels(plot, "y", true), span = picture.y.high - picture.y.low;
  const across = plainly(line.x, picture.x.log), up = plainly(line.y, picture.y.log);
  const under = picture.y.low - 0.05 * span, over = picture.y.high + 0.05 * span, marked = line.x.length < 40 && !line.dash;
  ctx.strokeStyle = ctx.fillStyle = line.colour;
  ctx.lineWidth = (line.width ?? 1.5) * devicePixelRatio;
  ctx.setLineDash((line.dash ?? []).map((part) => part * devicePixelRatio));
  ctx.beginPath();
  let pen = false;
  /** @type {number[]} */
  const marks = [];
  for (let at = 0; at < across.length; at += 1) {
    let row = up[at];
    if (Number.isNaN(row) || Number.isNaN(across[at])) { pen = false; continue; }
    const strip = row === -Infinity || row === Infinity || (picture.y.beyond && row > over);
    if (strip) row = row === -Infinity ? picture.y.low - 0.1 * span : picture.y.high + 0.1 * span;
    const left = x.from + across[at] * x.factor, top = y.from + row * y.factor;
    if (pen) ctx.lineTo(left, top); else ctx.moveTo(left, top);
    pen = true;
    if (marked || row > over || (picture.y.zero && row < under)) marks.push(left, top);
  }
  ctx.stroke();
  const radius = 2.2 * devicePixelRatio;
  for (let at = 0; at < marks.length; at += 2) ctx.fillRect(marks[at] - radius, marks[at + 1] - radius, 2 * radius, 2 * radius);
}

/** @param {uPlot} plot @param {Picture} picture @param {Dot[]} dots */
function paintDots(plot, picture, dots) {
  const { ctx } = plot, x = pixels(plot, "x", true), y = pixels(plot, "y", true);
  const some = dots.some((dot) => dot.chosen), radius = (dots.length > 1500 ? 2.5 : 4) * devicePixelRatio;
  for (const chosen of some ? [false, true] : [false]) {
    for (const dot of dots) {
      if (dot.chosen !== chosen) continue;
      const column = placed(picture.x, dot.x), row = placed(picture.y, dot.y);
      if (column === null || row === null) continue;
      ctx.globalAlpha = some && !chosen ? 0.25 : 0.85;
      const [left, top] = [x.from + column * x.factor, y.from + row * y.factor];
      ctx.fillStyle = ctx.strokeStyle = dot.colour;
      ctx.lineWidth = 1.6 * devicePixelRatio;
      ctx.setLineDash([]);
      ctx.beginPath();
      if (dot.style === 2) {
        for (const side of [-1, 1]) { ctx.moveTo(left - radius, top - side * radius); ctx.lineTo(left + radius, top + side * radius); }
      } else ctx.arc(left, top, radius, 0, 2 * Math.PI);
      if (dot.style) ctx.stroke(); else ctx.fill();
      if (!chosen) continue;
      ctx.strokeStyle = paint("ink");
      ctx.lineWidth = devicePixelRatio;
      ctx.stroke();
    }
  }
  ctx.globalAlpha = 1;
}

/** Where each of ascending places begins and ends: halfway to its neighbours. @param {number[]} places */
function borders(places) {
  const inner = places.slice(1).map((place, at) => (place + places[at]) / 2);
  const first = places[0] - (inner.length ? inner[0] - places[0] : 0.5), last = places[places.length - 1];
  return [first, ...inner, last + (inner.length ? last - inner[inner.length - 1] : 0.5)];
}

/** @param {Cells} cells @param {Value} value */
function cellColour(cells, value) {
  if (value === null) return paint("line");
  if (!Number.isFinite(value)) return paint("bad");
  if (value === 0 && cells.scale.log) return isDark() ? "#000000" : "#ffffff";
  const at = /** @type {number} */ (placed(cells.scale, value));
  return ramp(cells.ramp, (at - cells.scale.low) / (cells.scale.high - cells.scale.low));
}

/** @param {uPlot} plot @param {Cells} cells */
function paintCells(plot, cells) {
  const { ctx } = plot, x = pixels(plot, "x", true), y = pixels(plot, "y", true);
  const across = borders(cells.steps).map((at) => Math.round(x.from + at * x.factor)), up = borders(cells.places).map((at) => Math.round(y.from + at * y.factor));
  cells.values.forEach((row, place) => row.forEach((value, step) => {
    ctx.fillStyle = cellColour(cells, value);
    ctx.fillRect(across[step], up[place + 1], across[step + 1] - across[step], up[place] - up[place + 1]);
  }));
}

/** @param {uPlot} plot @param {Picture} picture @param {Dot} dot @returns {Near} */
function aboutDot(plot, picture, dot) {
  const left = plot.valToPos(/** @type {number} */ (placed(picture.x, dot.x)), "x"), top = plot.valToPos(/** @type {number} */ (placed(picture.y, dot.y)), "y");
  return { left, top, run: dot.run, text: `${dot.name}\n${picture.x.label} ${figure(dot.x)}, ${picture.y.label} ${figure(dot.y)}` };
}

/** What is nearest to a place, in pixels of the page. @param {uPlot} plot @param {Picture} picture @param {number} left @param {number} top @param {Shown} shown @returns {Near | null} */
function nearest(plot, picture, left, top, shown) {
  if (picture.cells) return nearestCell(plot, picture, picture.cells, left, top);
  const x = pixels(plot, "x", false), y = pixels(plot, "y", false);
  let best = 30 * 30;
  /** @type {Near | null} */
  let found = null;
  for (const dot of picture.dots ?? []) {
    const column = placed(picture.x, dot.x), row = placed(picture.y, dot.y);
    if (column === null || row === null || !shown(dot)) continue;
    const far = (x.from + column * x.factor - left) ** 2 + (y.from + row * y.factor - top) ** 2;
    if (far < best) { best = far; found = aboutDot(plot, picture, dot); }
  }
  for (const line of picture.lines ?? []) {
    if (!shown(line)) continue;
    const at = closest(line, picture.x, (left - x.from) / x.factor), column = placed(picture.x, line.x[at] ?? null), row = placed(picture.y, line.y[at] ?? null);
    if (column === null || row === null) continue;
    const [across, down] = [x.from + column * x.factor, y.from + row * y.factor], far = (across - left) ** 2 / 4 + (down - top) ** 2;
    if (far < best) {
      best = far;
      found = { left: across, top: down, run: line.run, step: Number(line.x[at]), text: `${line.name}\n${picture.x.label} ${line.x[at]}${nameOf(line.names?.[at], line.x[at])}, ${picture.y.label} ${figure(line.y[at])}` };
    }
  }
  return found;
}

/** The place of the point of a line nearest to x, which ascends. @param {Line} line @param {Axis} axis @param {number} at */
function closest(line, axis, at) {
  let low = 0, high = line.x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (Number(placed(axis, line.x[middle])) < at) low = middle; else high = middle;
  }
  return Math.abs(Number(placed(axis, line.x[low])) - at) < Math.abs(Number(placed(axis, line.x[high])) - at) ? low : high;
}

/** In brackets, where a place has a name that is not its number. @param {string | undefined} name @param {Value} place */
function nameOf(name, place) { return name && name !== String(place) ? ` (${name})` : ""; }

/** @param {uPlot} plot @param {Picture} picture @param {Cells} cells @param {number} left @param {number} top @returns {Near | null} */
function nearestCell(plot, picture, cells, left, top) {
  const across = borders(cells.steps), up = borders(cells.places), x = plot.posToVal(left, "x"), y = plot.posToVal(top, "y");
  const step = across.findIndex((end, at) => at && x < end) - 1, place = up.findIndex((end, at) => at && y < end) - 1;
  if (step < 0 || place < 0 || x < across[0] || y < up[0]) return null;
  const name = nameOf(cells.names[place], cells.places[place]);
  return { left, top, step: cells.steps[step], text: `${picture.y.label} ${cells.places[place]}${name}, step ${cells.steps[step]}: ${figure(cells.values[place][step])}` };
}

/** @param {uPlot} plot @param {number} factor @param {number} right @param {number} up shares of what is seen */
function zoom(plot, factor, right, up) {
  plot.batch(() => {
    for (const [side, by] of /** @type {["x" | "y", number][]} */ ([["x", right], ["y", up]])) {
      const { min, max } = plot.scales[side], low = min ?? 0, high = max ?? 1, middle = (low + high) / 2 + by * (high - low), half = ((high - low) / 2) * factor;
      plot.setScale(side, { min: middle - half, max: middle + half });
    }
  });
}

/** A finger that drags sideways does what a mouse does; up and down it scrolls. @param {HTMLElement} over */
function touch(over) {
  over.style.touchAction = "pan-y";
  for (const [from, to] of [["pointerdown", "mousedown"], ["pointermove", "mousemove"], ["pointerup", "mouseup"]]) {
    over.addEventListener(from, (event) => {
      const { pointerType, clientX, clientY } = /** @type {PointerEvent} */ (event);
      if (pointerType !== "touch") return;
      const [target, button] = [to === "mouseup" ? document : over, 0];
      target.dispatchEvent(new MouseEvent(to, { clientX, clientY, button, bubbles: true, view: window }));
    });
  }
}

/** What a figure shows, within what is zoomed to: a head, then rows. @param {Picture} picture @param {uPlot | null} plot @param {Shown} shown @returns {Cell[][]} */
function rowsOf(picture, plot, shown) {
  const { x, y } = picture, scales = plot?.scales;
  /** @param {Value} across @param {Value} up */
  const seen = (across, up) => {
    const column = placed(x, across), row = placed(y, up);
    if (column === null || row === null || !scales) return false;
    return column >= (scales.x.min ?? -Infinity) && column <= (scales.x.max ?? Infinity) && row >= (scales.y.min ?? -Infinity) && row <= (scales.y.max ?? Infinity);
  };
  /** @type {Cell[][]} */
  let rows = [];
  if (picture.cells) {
    const { cells } = picture, kept = cells.steps.map((_, at) => at).filter((at) => !scales || inside(cells.steps[at], scales.x));
    rows = [[y.label, "name", ...kept.map((at) => `step ${cells.steps[at]}`)]];
    cells.values.forEach((row, place) => { if (!scales || inside(cells.places[place], scales.y)) rows.push([cells.places[place], cells.names[place] ?? "", ...kept.map((at) => row[at])]); });
  } else if (picture.dots) {
    rows = [["run", "run_id", x.label, y.label, picture.key ?? "colour"], ...picture.dots.filter((dot) => shown(dot) && seen(dot.x, dot.y)).map((dot) => [dot.name, shownData?.head.ids[dot.run] ?? "", dot.x, dot.y, dot.group])];
  } else {
    rows = [["line", x.label, y.label]];
    for (const line of picture.lines ?? []) {
      if (shown(line)) line.x.forEach((across, at) => { if (seen(across, line.y[at])) rows.push([line.name, across, line.y[at]]); });
    }
  }
  return rows;
}

/** @param {number} value @param {uPlot.Scale} scale */
function inside(value, scale) { return value >= (scale.min ?? -Infinity) && value <= (scale.max ?? Infinity); }
