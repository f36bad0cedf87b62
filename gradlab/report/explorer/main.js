// The beginning: tables that sort, then, where the browser can read what the page holds, the instrument.
"use strict";

for (const table of /** @type {NodeListOf<HTMLTableElement>} */ (document.querySelectorAll("table.sortable"))) {
  table.tHead?.addEventListener("click", (event) => {
    const head = event.target instanceof Element ? event.target.closest("th") : null;
    if (head) sortTable(table, head);
  });
}

for (const code of document.querySelectorAll("code.command")) copyable(code, `Copy the command ${code.textContent}`);

/** @param {HTMLTableElement} table @param {HTMLTableCellElement} head */
function sortTable(table, head) {
  const down = head.getAttribute("aria-sort") === "ascending", column = head.cellIndex, numeric = head.classList.contains("n");
  for (const other of head.parentElement?.children ?? []) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  /** @param {HTMLTableRowElement} row */
  const text = (row) => row.cells[column].textContent ?? "";
  /** @param {string} cell */
  const number = (cell) => ({ inf: Infinity, "-inf": -Infinity, nan: NaN, "–": NaN }[cell] ?? Number(cell));
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, text: text(row), number: numeric ? number(text(row)) : 0 }));
  rows.sort((a, b) => {
    if (!numeric) return (down ? -1 : 1) * a.text.localeCompare(b.text);
    if (Number.isNaN(a.number) || Number.isNaN(b.number)) return Number(Number.isNaN(a.number)) - Number(Number.isNaN(b.number));
    return (down ? -1 : 1) * (a.number < b.number ? -1 : a.number > b.number ? 1 : 0);
  });
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

async function begin() {
  const held = document.getElementById("held"), host = document.getElementById("explore");
  if (!held || !host || typeof DecompressionStream === "undefined") return;
  const data = await unpack(held.textContent ?? "");
  held.remove();
  shownData = data;
  host.hidden = false;
  document.querySelector("nav a[href='#explore']")?.removeAttribute("hidden");
  make("div", { id: "live", class: "aside", role: "status" }, host);
  if (location.hash.includes("=")) arrive(data, location.hash.slice(1));
  /** @type {Explorer | null} */
  let explorer = null;
  const below = make("div", { id: "opened" });
  if (data.size > 1) {
    make("h2", {}, host, "Every run");
    explorer = new Explorer(make("div", {}, host), data, (run, beside) => {
      clearTimeout(waiting);
      history.replaceState(standing(), "", `#${address(data)}`);
      history.pushState(null, "", location.href);
      view.run = run;
      view.step = -1;
      view.beside = beside ?? data.head.before?.[run] ?? view.beside;
      opened.choose();
      heading.scrollIntoView({ block: "start" });
      heading.focus();
    });
  }
  const heading = make("h2", { tabindex: "-1" }, host, data.size > 1 ? "A run opened" : "The run, step by step");
  host.append(below);
  const opened = new Opened(below, data);
  const show = () => { explorer?.show(); opened.show(); };
  show();
  const again = () => {
    const { zooms } = view;
    show();
    view.zooms = zooms;
    for (const one of figures) if (zooms.has(one.id)) one.zoomed(); else one.reset();
    comeBack();
  };
  addEventListener("popstate", () => { if (location.hash.includes("=")) { arrive(data, location.hash.slice(1)); again(); } });
  const repaint = () => { repainted(); explorer?.draw(); opened.show(); for (const one of figures) one.plot?.redraw(false); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  addEventListener("beforeprint", () => { printing = true; repaint(); });
  addEventListener("afterprint", () => { printing = false; repaint(); });
  history.scrollRestoration = "manual";
  comeBack();
  let scrolling = 0;
  addEventListener("scroll", () => { clearTimeout(scrolling); scrolling = setTimeout(() => history.replaceState(standing(), ""), 150); }, { passive: true });
  // The rest is laid out when there is time: then bars and pictures of the whole page are true.
  setTimeout(() => { document.documentElement.classList.add("whole"); }, 200);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

/** Where the reader stands: what begins last above the window's top, and how far. */
function standing() {
  const shown = [...document.querySelectorAll("main [id]")].filter((one) => one.getClientRects().length);
  const last = shown.findLast((one) => one.getBoundingClientRect().top < 1);
  return last ? { id: last.id, above: last.getBoundingClientRect().top } : null;
}

/** After a reload, to where the reader stood: the browser looks for it before there is all of the page. */
function comeBack() {
  const stood = history.state, last = document.getElementById(stood?.id ?? "");
  if (last) scrollTo(0, scrollY + last.getBoundingClientRect().top - stood.above);
}

void begin();
