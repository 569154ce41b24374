// The kernel board in the browser: a problem opens without a reload, arrow keys walk the rows, changed cells are marked.

const $ = (selector) => document.querySelector(selector);
const links = () => [...document.querySelectorAll(".kernel-map [data-problem]")];
const LASTS = 4000; // ms that a changed cell stays marked
const PARTS = ["kernel-map", "kernel-roofline", "kernel-problem"];
const here = () => new URL(location.href).searchParams;
let chosen = here().get("problem") || "", workload = here().get("w") || "";

/** The address of this view with the chosen problem; live fragments ask with it, too. */
function address(path = location.href) {
  const url = new URL(path, location.href);
  for (const [name, value] of [["problem", chosen], ["w", workload]]) {
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  return url;
}

function paint() {
  for (const link of links()) {
    const row = link.closest("tr"), on = link.dataset.problem === chosen;
    row.classList.toggle("chosen", on);
    if (on) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
  $(".kernels-grid").classList.toggle("has-problem", Boolean(chosen));
}

function open() {
  const url = address();
  history.replaceState(history.state, "", url);
  paint();
  url.searchParams.set("part", "problem");
  window.htmx.ajax("GET", url.href, { target: "#kernel-problem", swap: "outerHTML" }).then(() => {
    const panel = $("#kernel-problem");
    $(".beside").scrollTop = 0;
    if (innerWidth <= 1180) panel.scrollIntoView({ block: "start" }); // it stands above the map there
    panel.focus({ preventScroll: true }); // Enter on a row leads into what it opened
  });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-problem], [data-workload]");
  if (!link || !window.htmx || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if ("problem" in link.dataset) [chosen, workload] = [link.dataset.problem, ""];
  else workload = new URL(link.href).searchParams.get("w") || "";
  open();
});

document.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || $("dialog[open]")) return;
  const at = document.activeElement?.closest?.(".kernel-map tr")?.querySelector("[data-problem]");
  if (!at && document.activeElement !== document.body) return; // scrolling and fields keep their keys
  const list = links();
  const next = at ? list[list.indexOf(at) + step] : list.find((link) => link.dataset.problem === chosen) || list[0];
  if (!next) return;
  event.preventDefault();
  next.focus({ preventScroll: true });
  next.closest("tr").scrollIntoView({ block: "nearest" });
});

// ---- live --------------------------------------------------------------------------------------------------------

document.addEventListener("htmx:configRequest", (event) => {
  if (!PARTS.includes(event.detail.elt.id)) return;
  const url = address(event.detail.path);
  event.detail.path = url.pathname + url.search;
});

const cells = (row) => [...row.querySelectorAll(".cells li, .mean")];
let before = new Map(); // row id -> what its cells said

document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id !== "kernel-map") return;
  before = new Map([...document.querySelectorAll(".kernel-map tr[id]")].map((row) => [row.id, cells(row).map((cell) => cell.textContent)]));
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (!PARTS.includes(event.detail.target.id)) return;
  paint();
  for (const [id, said] of before) {
    const row = document.getElementById(id);
    for (const [number, cell] of row ? cells(row).entries() : []) if (cell.textContent !== said[number]) tell(cell);
  }
  before = new Map();
});

function tell(cell) {
  cell.classList.add("changed");
  setTimeout(() => cell.classList.remove("changed"), LASTS);
}

paint();
