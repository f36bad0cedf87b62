// One figure: uPlot's frame (axes, zoom, cursor, pixels), what is painted into it, its legend, and what can be copied.
"use strict";

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {string} colour
 * @property {Value[]} x
 * @property {Value[]} y
 * @property {string[]} [names] of its points
 * @property {number} [run]
 * @property {string} [group] its entry of the legend
 * @property {number[]} [dash]
 * @property {number} [width]
 */
/** @typedef {{x: Value, y: Value, colour: string, style: number, name: string, run: number, chosen: boolean, group: string}} Dot */
/** @typedef {{steps: number[], places: number[], names: string[], values: Value[][], ramp: string, scale: Axis}} Cells */
/** @typedef {{name: string, words?: string, colour: string, dash?: boolean, style?: number}} Entry */
/** @typedef {"x" | "y" | "c"} Side */
/**
 * @typedef {object} Picture
 * @property {Axis} x
 * @property {Axis} y
 * @property {Line[]} [lines]
 * @property {Line[]} [behind] faint, not in the legend
 * @property {Dot[]} [dots]
 * @property {Cells} [cells]
 * @property {number | null} [mark] a step
 * @property {Entry[]} [legend]
 * @property {string} [key] what the legend's entries are values of
 * @property {number} [unnamed] how many more entries there are than the legend has room for
 * @property {string} told what a screen reader says
 */
/**
 * @typedef {object} Wishes
 * @property {() => void} [redraw] an axis was switched
 * @property {"x" | "y" | "xy" | "c"} [logs] which axes can be switched, or the scale of the colours
 * @property {(run: number) => void} [open]
 * @property {(step: number) => void} [step]
 * @property {(box: Box | null) => void} [brush] of values, whatever the axes
 * @property {number} [height]
 */

const SIDES = { x: "x", y: "y", c: "colour" };

/** @type {Set<Figure>} */
const figures = new Set();

class Figure {
  /** @param {HTMLElement} host @param {string} id @param {string} title @param {Wishes} wishes */
  constructor(host, id, title, wishes) {
    this.id = id;
    this.title = title;
    this.wishes = wishes;
    this.brushing = Boolean(wishes.brush);
    this.root = make("figure", { class: "live", id: `figure-${id}` }, host);
    this.heading = make("h3", {}, this.root, title);
    this.tools = make("div", { class: "tools", role: "group", "aria-label": `${title}: tools` }, this.root);
    this.area = make("div", { class: "area", tabindex: "0", role: "img" }, this.root);
    this.tip = make("div", { class: "tip", hidden: "" }, this.area);
    this.legend = make("div", { class: "legend" }, this.root);
    this.numbers = make("div", { class: "scroll numbers", tabindex: "0", hidden: "" }, this.root);
    /** @type {uPlot | null} */
    this.plot = null;
    /** @type {Picture | null} */
    this.picture = null;
    this.at = -1;
    this.clicking = 0;
    this.makeTools();
    this.area.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.resize()).observe(this.area);
    figures.add(this);
  }
  makeTools() {
    for (const side of /** @type {Side[]} */ (["x", "y", "c"])) {
      if (!this.wishes.logs?.includes(side)) continue;
      button(this.tools, `${SIDES[side]}: log`, () => {
        const name = `${this.id}.${side}`;
        if (!view.logs.delete(name)) view.logs.add(name);
        changed();
        this.wishes.redraw?.();
      }, { class: `log-${side}` });
    }
    if (this.wishes.brush) {
      this.mode = button(this.tools, "Drag: brush", () => {
        this.brushing = !this.brushing;
        this.frame();
      }, { title: "What dragging does: choose a group of runs, or zoom" });
    }
    button(this.tools, "Reset", () => { this.reset(); this.wishes.brush?.(null); }, { title: "The whole picture again (double click)" });
    button(this.tools, "CSV", () => copyText(csv(this.rows()), `${this.id}.csv`, this.tools), { title: "Copy the numbers that are seen" });
    button(this.tools, "PNG", () => this.copyPicture(), { title: "Copy the picture" });
    const table = button(this.tools, "Table", () => {
      this.numbers.hidden = !this.numbers.hidden;
      table.setAttribute("aria-expanded", String(!this.numbers.hidden));
      this.tabulate();
    }, { "aria-expanded": "false", title: "The numbers as a table" });
  }
  /** Whether an axis is switched from what it is by itself. @param {Side} side */
  switched(side) { return view.logs.has(`${this.id}.${side}`); }
  /** @param {Picture} picture */
  draw(picture) {
    const before = this.picture, labels = before?.x.label !== picture.x.label || before.y.label !== picture.y.label;
    const moved = !before || String([ends(before.x), ends(before.y)]) !== String([ends(picture.x), ends(picture.y)]) || before.x.log !== picture.x.log || before.y.log !== picture.y.log;
    this.picture = picture;
    this.area.setAttribute("aria-label", `${this.heading.textContent}. ${picture.told}`);
    for (const side of /** @type {Side[]} */ (["x", "y", "c"])) {
      const tool = this.tools.querySelector(`.log-${side}`), axis = side === "c" ? picture.cells?.scale : picture[side];
      if (tool) tool.textContent = `${SIDES[side]}: ${axis?.log ? "log" : "linear"}`;
    }
    this.tip.hidden = true;
    this.at = -1;
    this.showLegend();
    if (before && (moved || labels)) view.zooms.delete(this.id);
    if (!this.plot || labels) this.frame();
    else if (moved) this.plot.setData([ends(picture.x), ends(picture.y)]);
    else this.plot.redraw(false);
    this.tabulate();
  }
  /** Looks as closely as the view says. */
  zoomed() {
    const zoom = view.zooms.get(this.id), plot = this.plot;
    if (zoom && plot) plot.batch(() => { plot.setScale("x", { min: zoom[0], max: zoom[1] }); plot.setScale("y", { min: zoom[2], max: zoom[3] }); });
  }
  /** What is seen has changed: the view keeps it where it is not the whole. @param {uPlot} plot */
  scaled(plot) {
    const { x, y } = /** @type {Picture} */ (this.picture), whole = [...ends(x), ...ends(y)], spans = [whole[1] - whole[0], whole[3] - whole[2]];
    const seen = /** @type {Box} */ ([plot.scales.x.min, plot.scales.x.max, plot.scales.y.min, plot.scales.y.max].map(Number));
    if (!this.numbers.hidden) this.tabulate();
    if (seen.some((end, at) => Math.abs(end - whole[at]) > 1e-6 * spans[at >> 1])) view.zooms.set(this.id, seen);
    else if (!view.zooms.delete(this.id)) return;
    changed();
  }
  showLegend() {
    const focused = [...this.legend.children].indexOf(/** @type {Element} */ (document.activeElement));
    this.legend.replaceChildren();
    if (this.picture?.cells) fillRamp(make("div", { class: "ramp" }, this.legend), this.picture.cells);
    if (this.picture?.key) make("span", { class: "soft" }, this.legend, `${this.picture.key}:`);
    for (const entry of this.picture?.legend ?? []) {
      const lines = Boolean(this.picture?.lines), style = entry.style ?? 0;
      const one = button(this.legend, entry.words ?? entry.name, () => {
        const off = view.off.get(this.id) ?? new Set();
        if (!off.delete(entry.name)) off.add(entry.name);
        view.off.set(this.id, off);
        one.setAttribute("aria-pressed", String(this.shown(entry)));
        changed();
        if (this.wishes.brush) this.wishes.redraw?.();
        this.plot?.redraw(false);
        this.tabulate();
      }, { "aria-pressed": String(this.shown(entry)), class: entry.dash ? "dashed" : ["", lines ? "dashed" : "ring", lines ? "dotted" : "cross"][style] });
      one.style.setProperty("--swatch", entry.colour);
      one.dir = "auto";
    }
    if (this.picture?.unnamed) make("span", { class: "soft" }, this.legend, `and ${this.picture.unnamed} more`);
    if (focused >= 0) /** @type {HTMLElement | undefined} */ (this.legend.children[focused])?.focus();
  }
  /** @param {{group?: string, name: string}} one */
  shown(one) { return !view.off.get(this.id)?.has(one.group ?? one.name); }
  size() { return { width: Math.max(200, this.area.clientWidth), height: this.wishes.height ?? 300 }; }
  resize() {
    const width = this.size().width;
    if (this.plot && width !== this.plot.width) this.plot.setSize(this.size());
  }
  /** @param {"x" | "y"} which */
  axis(which) { return /** @type {Picture} */ (this.picture)[which]; }
  /** uPlot's frame anew: where its axes have other names. */
  frame() {
    const picture = this.picture;
    if (!picture) return;
    this.plot?.destroy();
    if (this.mode) this.mode.textContent = this.brushing ? "Drag: brush" : "Drag: zoom";
    const [x, y] = [ends(picture.x), ends(picture.y)];
    /** @param {"x" | "y"} which @param {number} size @param {number} space @returns {uPlot.Axis} */
    const side = (which, size, space) => ({
      label: picture[which].label, labelSize: 20, size, labelFont: "12px system-ui", font: "12px system-ui", gap: 3, labelGap: 0,
      stroke: () => paint("ink"), grid: { stroke: () => paint("line"), width: 1 }, ticks: { stroke: () => paint("line"), width: 1, size: 4 },
      splits: (plot, _, low, high) => ticks(this.axis(which), low, high, Math.max(2, (size > 40 ? plot.bbox.height : plot.bbox.width) / devicePixelRatio / space)),
      values: (_, places) => places.map((at) => tickLabel(this.axis(which), at)),
    });
    /** @type {uPlot.Options} */
    const options = {
      ...this.size(),
      scales: { x: { time: false, range: (_, low, high) => [low, high] }, y: { range: (_, low, high) => [low, high] } },
      axes: [side("x", 30, 55), side("y", 58, 34)],
      series: [{}, { paths: () => null, points: { show: false } }],
      legend: { show: false },
      cursor: { drag: { x: true, y: true, uni: 20, setScale: !this.brushing }, points: { show: false } },
      padding: [10, 14, 0, 0],
      hooks: {
        drawClear: [(plot) => { plot.ctx.fillStyle = paint("card"); plot.ctx.fillRect(0, 0, plot.ctx.canvas.width, plot.ctx.canvas.height); this.strips(plot); }],
        draw: [(plot) => this.painted(plot)],
        setSelect: [(plot) => this.selected(plot)],
        setCursor: [(plot) => this.hover(plot)],
        setScale: [(plot) => this.scaled(plot)],
      },
    };
    this.plot = new uPlot(options, [x, y], this.area);
    // Of a figure that is zoomed a click may be the first half of a double one, which shows the whole again.
    this.plot.over.addEventListener("click", (event) => {
      clearTimeout(this.clicking);
      if (event.detail < 2) this.clicking = setTimeout(() => this.clicked(), view.zooms.has(this.id) ? 300 : 0);
    });
    touch(this.plot.over);
    this.zoomed();
  }
  reset() {
    if (!this.picture) return;
    const [x, y] = [ends(this.picture.x), ends(this.picture.y)];
    this.plot?.batch(() => { this.plot?.setScale("x", { min: x[0], max: x[1] }); this.plot?.setScale("y", { min: y[0], max: y[1] }); });
  }
  /** @param {uPlot} plot */
  strips(plot) {
    const { x, y } = /** @type {Picture} */ (this.picture), { left, top, width, height } = plot.bbox;
    plot.ctx.fillStyle = paint("line");
    plot.ctx.globalAlpha = 0.45;
    /** @param {number} at @param {number} to @param {"x" | "y"} side */
    const strip = (at, to, side) => {
      const [a, b] = [at, to].map((value) => Math.min(Math.max(plot.valToPos(value, side, true), side === "x" ? left : top), side === "x" ? left + width : top + height));
      if (side === "y") plot.ctx.fillRect(left, Math.min(a, b), width, Math.abs(a - b));
      else plot.ctx.fillRect(Math.min(a, b), top, Math.abs(a - b), height);
    };
    for (const [side, axis] of /** @type {["x" | "y", Axis][]} */ ([["x", x], ["y", y]])) {
      const span = axis.high - axis.low;
      if (axis.zero) strip(axis.low - span, axis.low - 0.05 * span, side);
      if (axis.broken) strip(axis.high + 0.05 * span, axis.high + span, side);
    }
    plot.ctx.globalAlpha = 1;
  }
  /** @param {uPlot} plot */
  painted(plot) {
    const picture = /** @type {Picture} */ (this.picture), { ctx } = plot, { left, top, width, height } = plot.bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, top, width, height);
    ctx.clip();
    if (picture.cells) paintCells(plot, picture.cells);
    for (const line of picture.behind ?? []) paintLine(plot, picture, line);
    for (const line of picture.lines ?? []) if (this.shown(line)) paintLine(plot, picture, line);
    paintDots(plot, picture, (picture.dots ?? []).filter((dot) => this.shown(dot)));
    if (picture.mark !== null && picture.mark !== undefined) {
      const at = plot.valToPos(/** @type {number} */ (placed(picture.x, picture.mark)), "x", true);
      ctx.strokeStyle = paint("bad");
      ctx.lineWidth = 1.5 * devicePixelRatio;
      ctx.setLineDash([]);
      ctx.beginPath();
      ctx.moveTo(at, top);
      ctx.lineTo(at, top + height);
      ctx.stroke();
    }
    ctx.restore();
  }
  /** @param {uPlot} plot */
  selected(plot) {
    const { left, top, width, height } = plot.select;
    if (!this.brushing || !this.wishes.brush || width < 3 || height < 3) return;
    const [x, y] = [this.axis("x"), this.axis("y")], across = [left, left + width].map((at) => valueAt(x, plot.posToVal(at, "x")));
    const up = [top + height, top].map((at) => valueAt(y, plot.posToVal(at, "y")));
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.wishes.brush([across[0], across[1], up[0], up[1]]);
  }
  /** What is nearest to the pointer. @param {uPlot} plot */
  hover(plot) {
    const { left, top } = plot.cursor, picture = /** @type {Picture} */ (this.picture);
    if (left === undefined || top === undefined || left === null || top === null || left < 0) { this.tip.hidden = true; this.near = null; return; }
    this.near = nearest(plot, picture, left, top, (one) => this.shown(one));
    this.say(this.near);
  }
  /** @param {Near | null} near */
  say(near) {
    this.tip.hidden = !near;
    if (!near || !this.plot) return;
    this.tip.textContent = near.text;
    const { offsetLeft, offsetTop, clientWidth } = this.plot.over, width = Math.min(this.tip.offsetWidth, this.area.clientWidth);
    this.tip.style.left = `${Math.max(0, Math.min(near.left + offsetLeft + 12, offsetLeft + clientWidth - width))}px`;
    this.tip.style.top = `${near.top + offsetTop + 14}px`;
  }
  clicked() {
    const near = this.near;
    if (!near) return;
    if (near.step !== undefined && this.wishes.step) this.wishes.step(near.step);
    else if (near.run !== undefined) this.wishes.open?.(near.run);
  }
  /** Plus, minus, arrows and 0 zoom and move; of dots the arrows walk from one to the next. @param {KeyboardEvent} event */
  pressed(event) {
    const plot = this.plot, picture = this.picture;
    if (!plot || !picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const dots = (picture.dots ?? []).filter((dot) => this.shown(dot) && dot.x !== null && dot.y !== null);
    const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (dots.length && along) {
      dots.sort((a, b) => /** @type {number} */ (placed(picture.x, a.x)) - /** @type {number} */ (placed(picture.x, b.x)));
      this.at = (this.at + along + dots.length) % dots.length;
      this.near = aboutDot(plot, picture, dots[this.at]);
      this.say(this.near);
      announce(this.near.text);
    } else if (event.key === "Enter") this.clicked();
    else if (event.key === "+" || event.key === "-") zoom(plot, event.key === "+" ? 0.7 : 1 / 0.7, 0, 0);
    else if (event.key === "0") this.reset();
    else if (event.key.startsWith("Arrow")) zoom(plot, 1, (along ?? 0) * 0.15, ({ ArrowUp: 1, ArrowDown: -1 }[event.key] ?? 0) * 0.15);
    else return;
    event.preventDefault();
  }
  /** What is seen, as rows of a table: a head, then values. @returns {Cell[][]} */
  rows() { return this.picture ? rowsOf(this.picture, this.plot, (one) => this.shown(one)) : []; }
  tabulate() { if (!this.numbers.hidden) fillTable(this.numbers, this.rows(), 300); }
  copyPicture() {
    if (!this.plot || !this.picture) return;
    const words = { ...this.picture, legend: this.picture.legend?.filter((entry) => this.shown(entry)) };
    copyPicture(pictured(this.plot.ctx.canvas, this.heading.textContent ?? "", words), `${this.id}.png`, this.tools);
  }
}
