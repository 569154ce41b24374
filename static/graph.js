// The idea graph in the browser: choosing a node without a reload, walking by arrow keys, staying at the newest end.

const $ = (selector) => document.querySelector(selector);
const nodes = () => [...document.querySelectorAll("svg.ideas a.node")];
const still = matchMedia("(prefers-reduced-motion: reduce)");
let chosen = new URL(location.href).searchParams.get("node") || "";

/** The address of this view with the chosen node; live fragments ask with it, too. */
function address(path = location.href) {
  const url = new URL(path, location.href);
  if (chosen) url.searchParams.set("node", chosen);
  else url.searchParams.delete("node");
  return url;
}

function paint() {
  const list = nodes();
  const now = list.find((node) => node.dataset.node === chosen);
  for (const node of list) {
    node.classList.toggle("chosen", node === now);
    node.setAttribute("tabindex", node === (now || list.at(-1)) ? "0" : "-1");
    if (node === now) node.setAttribute("aria-current", "true");
    else node.removeAttribute("aria-current");
  }
  const line = now ? lineage(now, list) : new Set();
  for (const node of list) node.classList.toggle("line", line.has(node.dataset.node));
  $("svg.ideas")?.classList.toggle("traced", line.size > 1);
  document.querySelectorAll("table.nodes tr").forEach((row) => row.classList.toggle("chosen", row.id === `row-${chosen}`));
}

/** The node and all that it builds on, as far as it is drawn. */
function lineage(node, list) {
  const byKey = new Map(list.map((one) => [one.dataset.node, one]));
  const found = new Set();
  const open = [node.dataset.node];
  while (open.length) {
    const key = open.pop();
    if (found.has(key) || !byKey.has(key)) continue;
    found.add(key);
    open.push(...byKey.get(key).dataset.parents.split(" ").filter(Boolean));
  }
  return found;
}

function choose(key, focus) {
  if (!key || !window.htmx) return;
  chosen = key;
  const url = address();
  history.replaceState(history.state, "", url);
  paint();
  const node = document.getElementById(`node-${key}`);
  if (focus) node?.focus({ preventScroll: true });
  reveal(node);
  url.searchParams.set("part", "node");
  window.htmx.ajax("GET", url.href, { target: "#node", swap: "morph:outerHTML" }).then(() => {
    if (innerWidth <= 1100 && !focus) $("#node").scrollIntoView({ block: "nearest" }); // it stands above or below the graph
  });
}

function reveal(node) {
  const box = $("#across");
  if (!box || !node) return;
  const at = node.getBoundingClientRect();
  const frame = box.getBoundingClientRect();
  if (at.left > frame.left + 40 && at.right < frame.right - 40) return;
  box.scrollBy({ left: at.left - frame.left - frame.width / 2, behavior: still.matches ? "auto" : "smooth" });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-node]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  choose(link.dataset.node, false);
});

/** Left: what it builds on. Right: the first that builds on it. Up and down: the nearest in the lanes beside. */
function neighbour(node, key) {
  const list = nodes();
  if (!node) return list.at(-1);
  if (key === "ArrowLeft") {
    const parents = node.dataset.parents.split(" ");
    return list.find((one) => one.dataset.node === parents[0]) || list[list.indexOf(node) - 1];
  }
  if (key === "ArrowRight") {
    const children = list.filter((one) => one.dataset.parents.split(" ").includes(node.dataset.node));
    const same = children.find((one) => one.dataset.lane === node.dataset.lane);
    return same || children[0] || list[list.indexOf(node) + 1];
  }
  const step = key === "ArrowDown" ? 1 : -1;
  const siblings = list.filter((one) => one.dataset.lane === node.dataset.lane && one.dataset.parents === node.dataset.parents);
  const beside = siblings[siblings.indexOf(node) + step];
  if (siblings.length > 1 && beside) return beside;
  const lanes = [...new Set(list.map((one) => Number(one.dataset.lane)))].sort((a, b) => a - b);
  const lane = lanes[lanes.indexOf(Number(node.dataset.lane)) + step];
  const x = (one) => one.transform.baseVal.consolidate().matrix.e;
  const there = list.filter((one) => Number(one.dataset.lane) === lane);
  return there.sort((a, b) => Math.abs(x(a) - x(node)) - Math.abs(x(b) - x(node)))[0];
}

document.addEventListener("keydown", (event) => {
  if (!event.key.startsWith("Arrow") || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  if (!$("svg.ideas a.node") || $("dialog[open]") || event.target.closest?.("input, select, textarea, .scroll")) return;
  const inside = event.target.closest?.("svg.ideas a.node");
  const from = inside || nodes().find((node) => node.dataset.node === chosen);
  if (!inside && event.target !== document.body && !event.target.closest?.("#across, #main")) return;
  const next = neighbour(from, event.key);
  event.preventDefault();
  if (next) choose(next.dataset.node, true);
});

// ---- live --------------------------------------------------------------------------------------------------------

document.addEventListener("htmx:configRequest", (event) => {
  if (!["graph", "node", "bar"].includes(event.detail.elt.id)) return;
  const url = address(event.detail.path);
  event.detail.path = url.pathname + url.search;
});

let atEnd = true;
document.addEventListener("htmx:beforeSwap", () => {
  const box = $("#across");
  if (box) atEnd = box.scrollLeft + box.clientWidth >= box.scrollWidth - 30;
});
document.addEventListener("htmx:afterSwap", () => {
  paint();
  const box = $("#across");
  if (box && atEnd) box.scrollLeft = box.scrollWidth;
});

// ---- begin -------------------------------------------------------------------------------------------------------

// A phone shows the same as a table, unless somebody asked for the drawing.
if (innerWidth <= 700 && $("#graph")?.dataset.view === "" && $("svg.ideas")) {
  const url = address();
  url.searchParams.set("view", "table");
  location.replace(url);
} else {
  const box = $("#across");
  if (box) box.scrollLeft = box.scrollWidth;
  reveal(document.getElementById(`node-${chosen}`));
  paint();
}
