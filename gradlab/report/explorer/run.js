// One run opened, or two beside each other: layer by step, the profile at a step beside theory's, curves, verdicts, commands.
"use strict";

/** @type {Record<string, {label: string, share: boolean}>} */
const QUANTITIES = {
  signal_grad_norm: { label: "‖δ‖", share: false },
  weight_grad_norm: { label: "‖∂loss/∂W‖", share: false },
  update_ratio: { label: "‖ΔW‖/‖W‖", share: false },
  act_std: { label: "standard deviation of h", share: false },
  saturated: { label: "share of saturated entries", share: true },
  dead: { label: "share of dead units", share: true },
  act_correlation: { label: "mean cosine of two samples", share: true },
  signal_grad_rms: { label: "root mean square of δ", share: false },
  attention_entropy: { label: "entropy of attention", share: true },
};
const AXES = { depth: "layer", time: "time step" };
const MOST_LISTED = 1500;
const INSTRUMENT = "instrument ";
/** A scale is logarithmic by itself where values span so much. */
const WIDE = 30;
/** How near two numbers are that the page has rounded. */
const SAME = 0.01;

class Opened {
  /** @param {HTMLElement} host @param {Data} data */
  constructor(host, data) {
    this.data = data;
    this.bar = make("div", { class: "bar" }, host);
    this.differs = make("div", {}, host);
    this.facts = make("div", { class: "facts" }, host);
    this.choices = make("div", { class: "bar" }, host);
    const label = make("label", { class: "slider" }, host, "step ");
    this.slider = make("input", { type: "range", min: "0", step: "1", id: "step" }, label);
    this.at = make("output", { for: "step" }, label);
    this.slider.addEventListener("input", () => { view.step = this.steps()[Number(this.slider.value)] ?? -1; changed(); this.draw(); });
    const grid = make("div", { class: "grid" }, host), redraw = () => this.draw();
    const step = /** @param {number} at */ (at) => { view.step = at; changed(); this.draw(); };
    this.heats = ["run", "other"].map((name, at) => new Figure(grid, `heat-${name}`, "By layer and step", { step, height: 320, redraw, ...(at ? {} : { logs: "c" }) }));
    this.profile = new Figure(grid, "profile", "At this step", { logs: "y", redraw });
    this.loss = new Figure(grid, "loss", "Loss by step", { logs: "y", redraw, step });
    this.norm = new Figure(grid, "norm", "Gradient norm by step", { logs: "y", redraw, step });
    this.given = Object.keys(data.blocks).filter((name) => name.startsWith(INSTRUMENT)).map((name, at) => ({ name, figure: new Figure(grid, `given-${at}`, wordsOf(name), { logs: "y", redraw, step }) }));
  }
  /** The block along the chosen axis. */
  block() { return this.data.blocks[view.axis] ?? this.data.blocks.depth; }
  /** The recorded steps of the run. */
  steps() { return this.block()?.steps(view.run) ?? []; }
  /** @returns {number[]} */
  runs() { return view.beside >= 0 && view.beside !== view.run ? [view.run, view.beside] : [view.run]; }
  /** Another run, or another beside it: everything anew. */
  show() {
    const { data } = this;
    if (view.run < 0) {
      view.run = this.first();
      view.beside = data.head.before?.[view.run] ?? view.beside;
    }
    if (!data.blocks[view.axis]?.has(view.run)) view.axis = data.axis(view.run);
    if (!this.able().includes(view.quantity)) view.quantity = this.able()[0] ?? "signal_grad_norm";
    this.fillBar();
    this.fillDiffers();
    // A page of a single run has said it above.
    if (data.size > 1) this.facts.replaceChildren(...this.runs().map((run, at) => this.told(run, at)));
    this.choices.replaceChildren();
    const axes = /** @type {[string, string][]} */ (["depth", "time"].filter((axis) => data.blocks[axis]?.has(view.run)).map((axis) => [axis, axis === "depth" ? "layers" : "time steps"]));
    if (axes.length > 1) choice(this.choices, "along", axes, view.axis, (value) => { view.axis = value; changed(); this.show(); });
    choice(this.choices, "show", this.able().map((name) => [name, QUANTITIES[name].label]), view.quantity, (value) => { view.quantity = value; changed(); this.draw(); });
    this.draw();
  }
  /** The first run that is ill and was measured; of a cure the first of the change that did best. */
  first() {
    const every = [...Array(this.data.size).keys()], measured = every.filter((run) => this.data.blocks.depth?.has(run)), change = this.data.fields.get("change");
    if (change) return measured.find((run) => change.code?.[run] === 1) ?? 0;
    return measured.find((run) => this.data.label(/** @type {Field} */ (this.data.fields.get("verdict")), run) !== "healthy") ?? measured[0] ?? 0;
  }
  /** The quantities that one of the runs has. @returns {string[]} */
  able() {
    const block = this.block();
    return Object.keys(QUANTITIES).filter((name) => block?.raw.quantities[name] && this.runs().some((run) => block.values(run, name)));
  }
  fillBar() {
    const { data } = this;
    this.bar.replaceChildren();
    if (data.size < 2) return;
    const go = /** @param {number} by */ (by) => { view.run = (view.run + by + data.size) % data.size; if (data.head.before) view.beside = data.head.before[view.run]; this.choose(); };
    /** @param {string} name @param {number} chosen @param {boolean} none @param {(run: number) => void} choose */
    const list = (name, chosen, none, choose) => {
      const text = /** @param {number} run */ (run) => `${data.head.ids[run].slice(0, 8)} ${data.words(run, 6)}`;
      if (data.size <= MOST_LISTED) {
        const options = /** @type {[string, string][]} */ ([...Array(data.size).keys()].map((run) => [String(run), text(run)]));
        choice(this.bar, name, none ? [["-1", "nothing"], ...options] : options, String(chosen), (value) => choose(Number(value)));
        return;
      }
      const label = make("label", { class: "choice" }, this.bar, `${name} `), input = make("input", { value: chosen >= 0 ? data.head.ids[chosen] : "", placeholder: "id of a run" }, label);
      input.addEventListener("change", () => { const found = data.head.ids.findIndex((id) => input.value && id.startsWith(input.value.trim())); if (found >= 0 || none) choose(found); });
    };
    list("run", view.run, false, (run) => { view.run = run; if (data.head.before) view.beside = data.head.before[run]; this.choose(); });
    button(this.bar, "Previous", () => go(-1));
    button(this.bar, "Next", () => go(1));
    list("beside", view.beside, true, (run) => { view.beside = run; this.choose(); });
    if (view.beside >= 0) button(this.bar, "Swap", () => { [view.run, view.beside] = [view.beside, view.run]; this.choose(); });
  }
  choose() { changed(); this.show(); announce(`Opened ${this.data.words(view.run)}`); }
  /** The keys and outcomes in which two runs differ. */
  fillDiffers() {
    this.differs.replaceChildren();
    const [one, other] = this.runs(), { data } = this;
    if (other === undefined) return;
    const rows = [...data.fields.values()].map((field) => [field.name, data.label(field, one), data.label(field, other)]).filter(([, left, right]) => left !== right);
    make("h3", {}, this.differs, "In what they differ");
    const host = make("div", { class: "scroll", tabindex: "0", id: "differs" }, this.differs);
    fillTable(host, [["key or outcome", data.head.ids[one], data.head.ids[other]], ...rows], 100);
  }
  /** What a run is, what is wrong with it, and the commands that repeat and heal it. @param {number} run @param {number} at */
  told(run, at) {
    const { data } = this, one = make("article", {}), head = make("h3", {}, one);
    make("span", { class: "swatch", style: `--swatch: ${named(at)}` }, head);
    make("code", {}, head, data.head.ids[run]);
    make("span", { class: "soft", dir: "auto" }, head, ` ${data.words(run) === data.head.ids[run] ? "" : data.words(run)}`);
    for (const [sentence, source] of data.head.told[run] ?? []) {
      const line = make("p", { class: "verdict" }, one, `${sentence}. `);
      if (data.head.sources[source]) make("span", { class: "soft" }, line, `Judged by ${data.head.sources[source]}.`);
    }
    const error = data.head.errors[String(run)];
    if (error) make("p", { class: "verdict" }, one, `It failed: ${error}`);
    for (const [name, text] of [["run again", data.head.again[run]], ["heal", data.head.cures[run]]]) {
      if (!text) continue;
      const line = make("p", { class: "command" }, one, `${name}: `);
      copyable(make("code", {}, line, text), `Copy what to ${name}`);
    }
    return one;
  }
  draw() {
    const { data } = this, block = this.block(), steps = this.steps(), quantity = view.quantity, kind = QUANTITIES[quantity];
    const at = Math.max(0, steps.findLastIndex((step) => step <= view.step)), step = steps[at] ?? 0;
    this.slider.max = String(Math.max(0, steps.length - 1));
    this.slider.value = String(at);
    this.slider.disabled = steps.length < 2;
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.at.textContent = steps.length ? `${step} of ${steps[steps.length - 1]}` : "nothing was recorded";
    const axis = view.axis === "time" ? "time" : "depth", noun = AXES[axis], runs = this.runs();
    const all = runs.flatMap((run) => block?.values(run, quantity)?.flat() ?? []);
    const coloured = !kind.share !== this.heats[0].switched("c"), scale = axisOf(kind.label, kind.share && !coloured ? [[0, 1], all] : [all], coloured);
    this.heats.forEach((heat, place) => {
      const run = runs[place], rows = run === undefined ? null : block?.values(run, quantity);
      heat.root.hidden = !rows;
      if (!rows || run === undefined) return;
      const own = block.steps(run), places = block.places(run);
      heat.heading.textContent = `${kind.label} by ${noun} and step${runs.length > 1 ? `: ${data.head.ids[run].slice(0, 8)}` : ""}`;
      const edges = [borders(own), borders(places)].map((found) => [found[0], found[found.length - 1]]);
      heat.draw({
        x: { ...axisOf("step", [edges[0]], false, true), within: [own[0], own[own.length - 1]] }, y: axisOf(noun, [edges[1]], false, true), mark: step,
        cells: { steps: own, places, names: block.names(run), values: rows, ramp: kind.share ? "magma" : "viridis", scale },
        told: `${places.length} ${noun}s by ${own.length} recorded steps, from ${figure(finite(rows.flat(), Math.min))} to ${figure(finite(rows.flat(), Math.max))}. A click or the slider chooses a step.`,
      });
    });
    /** @type {Line[]} */
    const lines = [];
    runs.forEach((run, place) => {
      const rows = block?.values(run, quantity), own = block?.steps(run) ?? [], column = Math.max(0, own.findLastIndex((each) => each <= step));
      const name = runs.length > 1 ? data.head.ids[run].slice(0, 8) : "measured", colour = named(place);
      if (rows) lines.push({ name, group: name, colour, names: block.names(run), x: block.places(run), y: data.profile(run, axis, quantity, column), width: 2 });
      const theory = quantity === "signal_grad_norm" ? data.theory(run, axis) : null;
      if (!theory) return;
      const whose = runs.length > 1 ? `theory of ${name}` : "theory", moved = carried(theory, data.profile(run, axis, quantity, 0), data.profile(run, axis, quantity, column));
      const told = column === 0 || !moved ? `${whose}, step 0` : `${whose} of step 0, from δ of this step`;
      lines.push({ name: told, group: whose, colour: runs.length > 1 ? colour : paint("ink"), dash: [5, 4], x: block.places(run), y: moved ?? theory });
    });
    this.profile.heading.textContent = `${kind.label} by ${noun}, step ${step}`;
    const values = [all, ...lines.filter((line) => line.dash).map((line) => line.y)], log = !kind.share !== this.profile.switched("y");
    const text = lines.filter((line) => !line.dash).map((line) => `${line.name}: ${figure(line.y[0] ?? null)} at ${noun} ${line.x[0]}, ${figure(line.y[line.y.length - 1] ?? null)} at ${line.x[line.x.length - 1]}`).join("; ");
    this.profile.draw({ x: axisOf(noun, lines.map((line) => line.x), false, true), y: axisOf(kind.label, values, log), lines, legend: entries(lines), told: `Step ${step}. ${text}.` });
    this.curves(this.loss, [["loss", ""]], "loss", step);
    this.curves(this.norm, [["grad_norm", "before clipping"], ["grad_norm_clipped", "after"]], "‖∂loss/∂θ‖", step);
    for (const { name, figure } of this.given) this.measured(figure, name, step);
  }
  /** What an instrument gave: over its index at the step, or over the steps. @param {Figure} one @param {string} name @param {number} step */
  measured(one, name, step) {
    const block = this.data.blocks[name], runs = this.runs().filter((run) => block.has(run)), words = wordsOf(name);
    one.root.hidden = !runs.length;
    if (!runs.length) return;
    const indexed = runs.some((run) => block.places(run).length > 1), all = runs.flatMap((run) => block.values(run, "value")?.flat() ?? []);
    /** @type {Line[]} */
    const lines = runs.map((run, place) => {
      const rows = block.values(run, "value") ?? [], own = block.steps(run), column = Math.max(0, own.findLastIndex((each) => each <= step));
      const told = this.runs().length > 1 ? this.data.head.ids[run].slice(0, 8) : words;
      return { name: told, group: told, colour: named(place), width: 2, x: indexed ? block.places(run) : own, y: indexed ? rows.map((row) => row[column] ?? null) : rows[0] ?? [] };
    });
    const low = finite(all, Math.min) ?? 0, high = finite(all, Math.max) ?? 0, log = (low > 0 && high > WIDE * low) !== one.switched("y");
    one.heading.textContent = indexed ? `${words}, step ${step}` : `${words} by step`;
    one.draw({
      x: axisOf(indexed ? block.raw.index ?? "index" : "step", lines.map((line) => line.x), false, true), y: axisOf(words, [all], log), lines, legend: entries(lines),
      ...(indexed ? {} : { mark: step }), told: `From ${figure(low)} to ${figure(high)} over all its records.`,
    });
  }
  /** @param {Figure} one @param {[string, string][]} columns @param {string} label @param {number} mark */
  curves(one, columns, label, mark) {
    const { steps } = this.data.blocks, runs = this.runs();
    const clipped = runs.some((run) => { const [before, after] = ["grad_norm", "grad_norm_clipped"].map((column) => steps.values(run, column)?.[0]); return before && after?.some((value, at) => value !== null && Math.abs(value / Number(before[at]) - 1) > SAME); });
    const lines = runs.flatMap((run, place) => columns.slice(0, clipped ? 2 : 1).map(([column, words], at) => {
      const name = [runs.length > 1 ? this.data.head.ids[run].slice(0, 8) : "", clipped ? words : ""].filter(Boolean).join(", ") || label;
      return { name, group: name, colour: named(place), dash: at ? [4, 3] : undefined, x: steps.steps(run), y: steps.values(run, column)?.[0] ?? [] };
    })).filter((line) => line.y.length);
    one.root.hidden = !lines.some((line) => line.x.length > 1);
    const last = lines[0]?.y.filter((value) => value !== null).pop() ?? null;
    one.draw({
      x: axisOf("step", lines.map((line) => line.x), false, true), y: axisOf(label, lines.map((line) => line.y), !one.switched("y")),
      lines, legend: entries(lines), mark, told: `From ${figure(lines[0]?.y[0] ?? null)} to ${figure(last)}; step ${mark} is marked.`,
    });
  }
}

/** @param {Line[]} lines @returns {Entry[]} */
function entries(lines) {
  return lines.length > 1 ? lines.map((line) => ({ name: line.group ?? line.name, words: line.name, colour: line.colour, dash: Boolean(line.dash) })) : [];
}

/** The quantity of an instrument's block. @param {string} name */
function wordsOf(name) { return name.slice(INSTRUMENT.length).replaceAll("_", " "); }

/** Theory's line of step 0 from δ of another step on: where it met the measured one, last of all, it meets it again. @param {Value[]} theory @param {Value[]} first @param {Value[]} now @returns {Value[] | null} */
function carried(theory, first, now) {
  const at = theory.findLastIndex((value, place) => value !== null && value > 0 && Math.abs(Number(first[place]) / value - 1) < SAME);
  const factor = at < 0 ? NaN : Number(now[at]) / Number(theory[at]);
  return factor > 0 && Number.isFinite(factor) ? theory.map((value) => (value === null ? null : value * factor)) : null;
}

/** @param {Value[]} values @param {(...values: number[]) => number} which */
function finite(values, which) {
  const known = /** @type {number[]} */ (values.filter((value) => value !== null && Number.isFinite(value)));
  return known.length ? known.reduce((a, b) => which(a, b)) : null;
}
