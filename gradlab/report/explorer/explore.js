// All runs at once: a scatter of two outcomes, filters, the table that follows them, and what the brushed group did.
"use strict";

const LINES = 1000, ROWS = 50, CHIPS = 12, NAMED_MOST = 24;
const LOGS = new Set(["loss_final", "loss_heldout", "loss_first", "loss_last", "vanishing_ratio", "rate", "rate_theory", "chi1", "depth_scale", "optim.lr"]);

class Explorer {
  /** @param {HTMLElement} host @param {Data} data @param {(run: number, beside?: number) => void} open */
  constructor(host, data, open) {
    this.data = data;
    this.open = open;
    this.rows = ROWS;
    /** @type {number[]} */
    this.kept = [];
    /** @type {number[]} */
    this.group = [];
    this.choices = make("div", { class: "bar" }, host);
    this.filters = make("details", { class: "filters", open: "" }, host);
    this.filters.open = matchMedia("(min-width: 50rem)").matches;
    make("summary", {}, this.filters, "Filters");
    this.chips = make("div", { class: "keys" }, this.filters);
    const line = make("p", { class: "count" }, host);
    this.count = make("strong", { role: "status", id: "count" }, line);
    this.pair = button(line, "Compare the two", () => this.open(this.group[0], this.group[1]), { hidden: "" });
    button(line, "Show all", () => { view.filters.clear(); view.ranges.clear(); view.box = null; view.picked.clear(); this.refilter(); this.fillChips(); });
    const grid = make("div", { class: "grid" }, host);
    const redraw = () => this.draw();
    this.scatter = new Figure(grid, "scatter", "Every run", { logs: "xy", redraw, open, brush: (box) => { view.box = box; if (!box) view.picked.clear(); this.refilter(); } });
    this.profile = new Figure(grid, "group-profile", "δ by layer", { logs: "y", redraw, open });
    this.loss = new Figure(grid, "group-loss", "Loss by step", { logs: "y", redraw, open });
    this.norm = new Figure(grid, "group-norm", "Gradient norm by step, before clipping", { logs: "y", redraw, open });
    this.note = make("p", { class: "soft" }, host);
    this.table = make("div", { class: "scroll", tabindex: "0", id: "table" }, host);
    this.more = button(host, "More rows", () => { this.rows += 200; this.fill(); });
  }
  /** The choices that stand by themselves. */
  defaults() {
    const { data } = this, has = /** @param {string} name */ (name) => data.fields.has(name);
    view.x ||= ["vanishing_ratio", "rate", "loss_final", "loss_last", data.outcomes[0]?.name].find((name) => name && has(name)) ?? "";
    view.y ||= ["loss_final", "loss_heldout", "loss_last", "accuracy"].find((name) => has(name) && name !== view.x) ?? view.x;
    // Hundreds of seeds have no order that colours could show.
    const telling = /** @param {string} name */ (name) => { const field = data.fields.get(name), many = field?.labels?.length ?? 0; return many > 1 && (field?.kind !== "key" || field.swept || many <= 24); };
    view.colour ||= (has("change") ? ["result"] : ["verdict", ...[...data.keys].sort((a, b) => Number(b.swept) - Number(a.swept)).map((field) => field.name)]).find(telling) ?? "state";
  }
  show() {
    this.defaults();
    const { data } = this, numbers = /** @type {[string, string][]} */ ([...data.outcomes, ...data.keys.filter((field) => field.numbers)].map((field) => [field.name, field.name]));
    const paints = /** @type {[string, string][]} */ ([...data.fields.values()].filter((field) => field.labels).map((field) => [field.name, field.name]));
    this.choices.replaceChildren();
    const redo = () => { view.box = null; changed(); this.refilter(); };
    choice(this.choices, "across", numbers, view.x, (value) => { view.x = value; redo(); });
    choice(this.choices, "up", numbers, view.y, (value) => { view.y = value; redo(); });
    choice(this.choices, "colour", paints, view.colour, (value) => { view.colour = value; changed(); this.draw(); });
    if (data.blocks.time && data.blocks.depth) choice(this.choices, "δ by", [["depth", "layer"], ["time", "time step"]], this.along(), (value) => { view.along = value; changed(); this.draw(); });
    choice(this.choices, "δ at", [["start", "step 0"], ["end", "the end"]], view.when, (value) => { view.when = value; changed(); this.draw(); });
    this.fillChips();
    this.refilter();
  }
  /** The axis along which δ is drawn: by itself time, where every run has it. */
  along() {
    const { time } = this.data.blocks;
    return view.along || (time && [...Array(this.data.size).keys()].every((run) => time.has(run)) ? "time" : "depth");
  }
  fillChips() {
    this.chips.replaceChildren();
    const { data } = this, verdicts = data.head.verdicts.filter((name) => data.fields.get("verdict")?.labels?.some((label) => label.split("+").includes(name)));
    this.chipsOf("verdict", verdicts);
    for (const field of data.fields.values()) if (field.kind === "state" && field.name !== "verdict") this.chipsOf(field.name, field.labels ?? []);
    for (const field of data.keys) {
      const labels = field.labels ?? [];
      if (labels.length <= CHIPS) this.chipsOf(field.name, labels);
      else if (field.numbers) this.rangeOf(field);
      else this.listOf(field);
    }
  }
  /** @param {string} name @param {string[]} labels */
  chipsOf(name, labels) {
    if (labels.length < 2) return;
    const set = make("fieldset", {}, this.chips);
    make("legend", {}, set, name);
    for (const label of labels) {
      const one = button(set, label, () => {
        const chosen = view.filters.get(name) ?? new Set();
        if (!chosen.delete(label)) chosen.add(label);
        if (chosen.size) view.filters.set(name, chosen); else view.filters.delete(name);
        one.setAttribute("aria-pressed", String(chosen.has(label)));
        this.refilter();
      }, { "aria-pressed": String(view.filters.get(name)?.has(label) ?? false), class: "chip" });
      one.dir = "auto";
    }
  }
  /** Numbers of many values are filtered by their ends. @param {Field} field */
  rangeOf(field) {
    const set = make("fieldset", {}, this.chips), known = /** @type {number[]} */ ((field.numbers ?? []).filter((value) => value !== null && Number.isFinite(value)));
    make("legend", {}, set, field.name);
    const [least, most] = [known.reduce((a, b) => Math.min(a, b), Infinity), known.reduce((a, b) => Math.max(a, b), -Infinity)], given = view.ranges.get(field.name) ?? [least, most];
    const inputs = ["from", "to"].map((word, at) => {
      const label = make("label", {}, set, `${word} `), input = make("input", { type: "number", step: "any", value: String(given[at]) }, label);
      input.addEventListener("change", () => {
        // An end that is left empty is open.
        const [low, high] = inputs.map((one, end) => (one.value === "" ? [least, most][end] : Number(one.value)));
        if (low <= least && high >= most) view.ranges.delete(field.name); else view.ranges.set(field.name, [low, high]);
        this.refilter();
      });
      return input;
    });
  }
  /** Names of many values are chosen from a list. @param {Field} field */
  listOf(field) {
    const set = make("fieldset", {}, this.chips), list = make("select", { multiple: "", size: "4", "aria-label": field.name }, set);
    list.multiple = true;
    make("legend", {}, set, field.name);
    for (const label of field.labels ?? []) make("option", { value: label }, list, label).selected = view.filters.get(field.name)?.has(label) ?? false;
    list.addEventListener("change", () => {
      const chosen = new Set([...list.selectedOptions].map((one) => one.value));
      if (chosen.size) view.filters.set(field.name, chosen); else view.filters.delete(field.name);
      this.refilter();
    });
  }
  /** Whether a run passes every filter. @param {number} run */
  passes(run) {
    for (const [name, chosen] of view.filters) {
      const field = this.data.fields.get(name);
      if (!field) continue;
      const label = this.data.label(field, run);
      if (name === "verdict" ? !label.split("+").some((one) => chosen.has(one)) : !chosen.has(label)) return false;
    }
    for (const [name, [low, high]] of view.ranges) {
      const value = this.data.fields.get(name)?.numbers?.[run] ?? null;
      if (value === null || !(value >= low && value <= high)) return false;
    }
    return true;
  }
  refilter() {
    this.kept = [...Array(this.data.size).keys()].filter((run) => this.passes(run));
    this.rows = ROWS;
    changed();
    this.draw();
  }
  /** An outcome of each run; a loss that a run left no more, because it diverged, is beyond all others. @param {string} name */
  numbers(name) {
    const state = this.data.fields.get("state"), numbers = this.data.fields.get(name)?.numbers ?? [];
    return name.startsWith("loss_") && state ? numbers.map((value, run) => (value === null && this.data.label(state, run) === "diverged" ? Infinity : value)) : numbers;
  }
  /** @param {string} name @param {"x" | "y"} side */
  scatterAxis(name, side) {
    const values = this.numbers(name), log = LOGS.has(name) !== this.scatter.switched(side);
    return axisOf(name, [values], log);
  }
  /** The runs of the group: those that are seen in the box, and those that were picked. @param {(run: number) => string} group the entry of the legend */
  inGroup(group) {
    const { box } = view, [across, up] = [this.numbers(view.x), this.numbers(view.y)];
    /** @param {Value | undefined} value @param {number} low @param {number} high */
    const within = (value, low, high) => { const at = Number.isFinite(value ?? null) ? Number(value) : Infinity; return value !== null && value !== undefined && at >= low && at <= high; };
    return this.kept.filter((run) => view.picked.has(run) || (box && within(across[run], box[0], box[1]) && within(up[run], box[2], box[3]) && this.scatter.shown({ name: group(run) })));
  }
  draw() {
    const { data } = this, field = data.fields.get(view.colour), labels = field?.labels ?? [];
    /** @type {(run: number) => string} */
    const colour = (run) => { const place = field?.code?.[run] ?? 0; return field?.numbers ? ordered(place, labels.length) : named(place); };
    const group = /** @param {number} run */ (run) => labels[field?.code?.[run] ?? 0] ?? "";
    const x = this.scatterAxis(view.x, "x"), y = this.scatterAxis(view.y, "y");
    this.group = this.inGroup(group);
    const chosen = new Set(this.group), looked = this.group.length ? this.group : this.kept;
    const said = `${this.kept.length} of ${data.size} runs${this.group.length ? `, ${this.group.length} in the group` : ""}`;
    this.count.textContent = said;
    this.pair.hidden = this.group.length !== 2;
    const [across, up] = [this.numbers(view.x), this.numbers(view.y)];
    const lost = this.kept.filter((run) => (across[run] ?? null) === null || (up[run] ?? null) === null).length;
    const used = [...new Set(this.kept.map((run) => field?.code?.[run] ?? 0))].sort((a, b) => a - b);
    const style = /** @param {number} place */ (place) => (field?.numbers ? 0 : styled(place));
    const legend = used.slice(0, NAMED_MOST).map((place) => ({ name: labels[place] ?? "", colour: field?.numbers ? ordered(place, labels.length) : named(place), style: style(place) }));
    const unnamed = used.length - legend.length, key = field?.short;
    this.scatter.draw({
      x, y, legend, key, unnamed, told: `${said}, ${view.y} over ${view.x}. Left and right arrow walk through the runs, Enter opens one.`,
      dots: this.kept.map((run) => ({ x: across[run] ?? null, y: up[run] ?? null, colour: colour(run), style: style(field?.code?.[run] ?? 0), name: data.words(run), run, chosen: chosen.has(run), group: group(run) })),
    });
    const drawn = looked.length <= LINES ? looked : looked.filter((_, at) => Math.floor((at * LINES) / looked.length) !== Math.floor(((at - 1) * LINES) / looked.length));
    const behind = this.group.length && this.kept.length <= LINES ? this.kept.filter((run) => !chosen.has(run)) : [];
    /** @param {number} run @param {boolean} faint @param {Value[]} xs @param {Value[] | undefined} ys @returns {Line} */
    const line = (run, faint, xs, ys) => ({ name: data.words(run), run, group: group(run), colour: faint ? paint("faint") : colour(run), width: faint ? 0.6 : drawn.length > 60 ? 0.8 : 1.4, dash: faint ? undefined : DASHES[style(field?.code?.[run] ?? 0)], x: xs, y: ys ?? [] });
    const axis = this.along();
    /** @param {number} run @param {boolean} faint */
    const profile = (run, faint) => {
      const block = data.blocks[axis], last = view.when === "end" ? (block?.steps(run).length ?? 1) - 1 : 0;
      return line(run, faint, block?.places(run) ?? [], data.profile(run, axis, "signal_grad_norm", last));
    };
    /** @param {string} name @returns {(run: number, faint: boolean) => Line} */
    const curve = (name) => (run, faint) => line(run, faint, data.blocks.steps.steps(run), data.blocks.steps.values(run, name)?.[0]);
    const state = data.fields.get("state");
    const told = /** @param {number} many */ (many) => (drawn.length < looked.length ? `${many} of ${looked.length} runs, evenly picked` : many < looked.length ? `${many} of ${looked.length} runs: the others have none` : `${many} runs`);
    /** @param {Figure} one @param {(run: number, faint: boolean) => Line} of @param {string} across @param {string} up */
    const lines = (one, of, across, up) => {
      const front = drawn.map((run) => of(run, false)).filter((each) => each.y.length), back = behind.map((run) => of(run, true)).filter((each) => each.y.length);
      one.root.hidden = !front.some((each) => each.x.length > 1);
      const ended = front.filter((each) => state && data.label(state, /** @type {number} */ (each.run)) === "finished");
      const calm = Math.max(...front.map((each) => (Number.isFinite(each.y[0]) ? Number(each.y[0]) : 0)), ...ended.map((each) => extentOf(each.y).high));
      const x = axisOf(across, front.map((each) => each.x), false, true), y = axisOf(up, [...front, ...back].map((each) => each.y), !one.switched("y"));
      one.draw({ x, y: front.length > 1 && ended.length ? capped(y, calm) : y, lines: front, behind: back, legend, key, unnamed, told: `${told(front.length)}.` });
    };
    this.profile.heading.textContent = `δ by ${axis === "time" ? "time step" : "layer"}, ${view.when === "end" ? "at the end" : "at step 0"}`;
    lines(this.profile, profile, axis === "time" ? "time step" : "layer", "‖δ‖");
    lines(this.loss, curve("loss"), "step", "loss");
    lines(this.norm, curve("grad_norm"), "step", "‖∂loss/∂θ‖");
    this.note.textContent = [lost ? `${lost} runs have no ${view.x} or no ${view.y}, and no dot.` : "", drawn.length < looked.length ? `The figures draw ${told(drawn.length)}.` : "", ...data.head.notes].join(" ").trim();
    this.fill();
  }
  fill() {
    const { data } = this, columns = [...data.fields.values()].filter((field) => field.kind !== "outcome" || ["loss_final", "accuracy", "vanishing_ratio", view.x, view.y].includes(field.name));
    columns.sort((a, b) => Number(a.kind === "key") - Number(b.kind === "key"));
    const down = view.sort.startsWith("-"), by = data.fields.get(down ? view.sort.slice(1) : view.sort), sorted = [...this.kept];
    /** @param {number} run */
    const key = (run) => by?.numbers ? (by.numbers[run] ?? NaN) : by?.code?.[run] ?? 0;
    if (by) sorted.sort((a, b) => { const [left, right] = [key(a), key(b)]; return Number.isNaN(left) || Number.isNaN(right) ? Number(Number.isNaN(left)) - Number(Number.isNaN(right)) : (down ? -1 : 1) * (left < right ? -1 : left > right ? 1 : 0); });
    const focus = document.activeElement instanceof HTMLElement && this.table.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    this.table.replaceChildren();
    const table = make("table", {}, this.table), top = make("tr", {}, make("thead", {}, table));
    make("th", { scope: "col" }, top, "group");
    make("th", { scope: "col" }, top, "run");
    for (const field of columns) {
      const head = make("th", { scope: "col", class: field.numbers ? "n" : "", "aria-sort": field === by ? (down ? "descending" : "ascending") : "" }, top);
      button(head, field.short, () => { view.sort = field === by && !down ? `-${field.name}` : field.name; changed(); this.fill(); }, { title: field.name, "data-key": `sort ${field.name}` });
    }
    const body = make("tbody", {}, table), chosen = new Set(this.group);
    for (const run of sorted.slice(0, this.rows)) {
      const row = make("tr", { class: chosen.has(run) ? "chosen" : "" }, body), id = data.head.ids[run];
      const box = make("input", { type: "checkbox", "aria-label": `${id} in the group`, "data-key": `group ${run}` }, make("td", {}, row));
      box.checked = chosen.has(run);
      box.addEventListener("change", () => { if (!view.picked.delete(run)) view.picked.add(run); changed(); this.draw(); });
      button(make("td", { class: "mono" }, row), id.slice(0, 8), () => this.open(run), { title: `Open ${id}`, "data-key": `open ${run}` });
      for (const field of columns) make("td", { class: field.numbers ? "n" : "", dir: "auto" }, row, data.label(field, run));
    }
    this.more.hidden = this.rows >= sorted.length;
    this.more.textContent = `More rows (${Math.min(this.rows, sorted.length)} of ${sorted.length})`;
    if (focus) /** @type {HTMLElement | null} */ (this.table.querySelector(`[data-key="${CSS.escape(focus)}"]`))?.focus();
  }
}
