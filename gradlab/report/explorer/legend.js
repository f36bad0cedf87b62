// What the colours of a figure mean, beside it and in the picture of it that is copied.
"use strict";

/** What a scale of colours says in words: its ends, then what has a colour of its own, with that colour. @param {Cells} cells */
function meanings({ scale, values }) {
  const [low, high] = [scale.low, scale.high].map((end) => figure(scale.log ? 10 ** end : end));
  /** @type {[string, string][]} */
  const apart = [];
  if (scale.zero) apart.push(["exactly 0", isDark() ? "#000000" : "#ffffff"]);
  if (scale.broken) apart.push(["inf or nan", paint("bad")]);
  if (values.some((row) => row.includes(null))) apart.push(["not measured", paint("line")]);
  return { low, high, apart };
}

/** @param {HTMLElement} host @param {Cells} cells */
function fillRamp(host, cells) {
  const { low, high, apart } = meanings(cells), stops = Array.from({ length: 9 }, (_, at) => ramp(cells.ramp, at / 8));
  make("span", {}, host, low);
  make("span", { class: "colours", style: `background: linear-gradient(to right, ${stops.join(",")})` }, host);
  make("span", {}, host, high);
  for (const [words, colour] of apart) make("span", { class: "apart", style: `--swatch: ${colour}` }, host, words);
}

const ROW = 18, HEAD = 26, RAMP = 150;

/** A figure's picture with its heading above and its legend below. @param {HTMLCanvasElement} plot @param {string} heading @param {Picture} picture */
function pictured(plot, heading, picture) {
  const canvas = make("canvas", {}), unit = devicePixelRatio, width = plot.width / unit, ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const font = "12px system-ui, sans-serif", entries = picture.legend ?? [], told = picture.cells ? meanings(picture.cells) : null;
  /** @type {{words: string, draw: (x: number, y: number) => number}[]} what stands in the legend; a mark is drawn, and says how wide it is */
  const parts = [];
  if (picture.key) parts.push({ words: `${picture.key}:`, draw: () => 0 });
  for (const entry of entries) parts.push({ words: entry.words ?? entry.name, draw: (x, y) => marked(ctx, entry, Boolean(picture.lines), x, y) });
  if (picture.unnamed) parts.push({ words: `and ${picture.unnamed} more`, draw: () => 0 });
  if (told && picture.cells) {
    const { ramp: name } = picture.cells;
    parts.push({ words: told.low, draw: () => 0 }, {
      words: told.high, draw: (x, y) => {
        for (let at = 0; at < RAMP; at += 1) { ctx.fillStyle = ramp(name, at / (RAMP - 1)); ctx.fillRect(x + at, y - 10, 1.5, 12); }
        return RAMP + 6;
      },
    });
    for (const [words, colour] of told.apart) parts.push({ words, draw: (x, y) => marked(ctx, { name: words, colour }, false, x, y) });
  }
  ctx.font = font;
  let [x, row] = [10, 0];
  const places = parts.map(({ words }, at) => {
    const wide = ctx.measureText(words).width + (told && at === 1 ? RAMP : 16) + 14;
    if (x > 10 && x + wide > width) [x, row] = [10, row + 1];
    x += wide;
    return [x - wide, row];
  });
  canvas.width = plot.width;
  canvas.height = plot.height + unit * (HEAD + (parts.length ? (row + 1) * ROW + 8 : 0));
  ctx.fillStyle = paint("card");
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.drawImage(plot, 0, HEAD * unit);
  ctx.scale(unit, unit);
  ctx.fillStyle = paint("ink");
  ctx.font = "600 14px system-ui, sans-serif";
  ctx.fillText(heading, 10, 18, width - 20);
  ctx.font = font;
  parts.forEach(({ words, draw }, at) => {
    const [left, line] = places[at], y = HEAD + plot.height / unit + (line + 1) * ROW - 4, mark = draw(left, y);
    ctx.fillStyle = paint("ink");
    ctx.fillText(words, left + mark, y, width - left - mark);
  });
  return canvas;
}

/** The mark of an entry, as its lines or dots are drawn; how wide it is. @param {CanvasRenderingContext2D} ctx @param {Entry} entry @param {boolean} lines @param {number} x @param {number} y */
function marked(ctx, entry, lines, x, y) {
  const style = entry.style ?? 0, dash = entry.dash ? [5, 4] : lines ? DASHES[style] : undefined;
  ctx.fillStyle = ctx.strokeStyle = entry.colour;
  ctx.lineWidth = 2;
  ctx.setLineDash([]);
  if (!dash && !style) {
    ctx.fillRect(x, y - 9, 10, 10);
    ctx.strokeStyle = paint("edge");
    ctx.lineWidth = 0.5;
    ctx.strokeRect(x, y - 9, 10, 10);
    return 16;
  }
  ctx.beginPath();
  if (dash) { ctx.setLineDash([4, 2]); ctx.moveTo(x, y - 4); ctx.lineTo(x + 12, y - 4); }
  else if (style === 1) ctx.arc(x + 5, y - 4, 4, 0, 2 * Math.PI);
  else for (const side of [-1, 1]) { ctx.moveTo(x + 1, y - 4 - 4 * side); ctx.lineTo(x + 9, y - 4 + 4 * side); }
  ctx.stroke();
  return 16;
}
