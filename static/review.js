// The diff of the merge page: the way through it, what was viewed, the line under the cursor, and comments on it.

const card = document.querySelector("[data-files]");
const files = [...card.querySelectorAll("details.file")];
const $ = (selector, at = card) => at.querySelector(selector);
const all = (selector, at = card) => [...at.querySelectorAll(selector)];
const shown = (element) => element.getClientRects().length > 0;
const BELOW_TOP = 70; // pixels hidden by the header

function goTo(element, block = "start") {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  element.scrollIntoView({ block, behavior });
  element.focus({ preventScroll: true });
}

// ---- viewed ------------------------------------------------------------------------------------------------------

const isViewed = (file) => !$("[data-viewed]", file).hidden;

function paint() {
  const count = $("[data-viewed-count]");
  if (count) count.textContent = `${files.filter(isViewed).length} of ${files.length} viewed`;
}

/** The file that holds the focus or the cursor, else the first one on screen. */
function current() {
  const focused = files.find((file) => file.contains(document.activeElement)) || files.find((file) => $(".at", file));
  return focused || files.find((file) => file.getBoundingClientRect().bottom > BELOW_TOP + 40) || files.at(-1);
}

function mark(file, viewed) {
  const button = $("[data-view] button", file);
  $("[data-viewed]", file).hidden = !viewed;
  if (button) button.setAttribute("aria-pressed", viewed), (button.value = viewed ? "0" : "1");
  file.open = !viewed;
  paint();
  const headers = JSON.parse(document.body.getAttribute("hx-headers"));
  const place = new URL(file.getAttribute("hx-get"), location.href).pathname + "viewed/";
  fetch(place, { method: "POST", headers, keepalive: true, body: new URLSearchParams({ viewed: viewed ? "1" : "0" }) })
    .then((reply) => reply.ok || Promise.reject())
    .catch(() => (($("[data-viewed]", file).hidden = viewed), ($("[data-viewed-count]").textContent = "could not be stored: no connection")));
}

function view() {
  const file = current();
  if (!file) return;
  clear();
  mark(file, true);
  const at = files.indexOf(file);
  const next = [...files.slice(at + 1), ...files.slice(0, at)].find((other) => !isViewed(other));
  if (next) next.open = true;
  goTo($("summary", next || file));
}

// ---- changes and lines -------------------------------------------------------------------------------------------

/** Changes of all open files in order; a closed one counts as one stop, at its summary. */
const changes = () => files.flatMap((file) => (file.open ? all(".hunk", file) : [$("summary", file)]));
const lines = () => all("tr[data-at], .thread").filter(shown);

let last = null; // the change that n and p went to

function step(by) {
  const list = changes();
  if (!list.length) return;
  const at = list.indexOf(last);
  const visible = list.findIndex((stop) => stop.getBoundingClientRect().top > BELOW_TOP - 5);
  const from = at >= 0 ? at + by : visible < 0 ? list.length - 1 : visible - (by < 0 ? 1 : 0);
  last = list[Math.min(list.length - 1, Math.max(0, from))];
  clear();
  goTo(last);
}

let cursor = null; // { file, at } or { thread }: rows are replaced, names stay

function clear() {
  all(".at").forEach((row) => row.classList.remove("at"));
  cursor = null;
}

function select(row, at = row.dataset.at) {
  clear();
  row.classList.add("at");
  row.tabIndex = -1;
  cursor = row.matches(".thread") ? { thread: row.id } : { file: row.closest("details.file").dataset.path, at };
}

const atCursor = () => $(".at");

function walk(by) {
  const list = lines();
  if (!list.length) return;
  const from = atCursor() || (last?.isConnected && $("tr[data-at]", last));
  const at = list.indexOf(from);
  const visible = list.findIndex((row) => row.getBoundingClientRect().top > BELOW_TOP);
  const to = at < 0 ? Math.max(0, visible) : atCursor() ? at + by : at;
  select(list[Math.min(list.length - 1, Math.max(0, to))]);
  goTo(atCursor(), "nearest");
}

// Fragments are replaced when something was said: the cursor stays where it was.
document.addEventListener("htmx:afterSettle", () => {
  if (cursor && !atCursor()) {
    const file = files.find((one) => one.dataset.path === cursor.file);
    const row = cursor.thread ? document.getElementById(cursor.thread) : file && $(`tr[data-at="${cursor.at}"]`, file);
    row?.classList.add("at");
  }
  paint();
  reach();
});

// ---- comments ----------------------------------------------------------------------------------------------------

function unsay() {
  const open = $(".saying");
  const row = open?.previousElementSibling;
  open?.remove();
  row?.focus({ preventScroll: true });
}

/** A form below the line under the cursor; without one, the field for the whole change. */
function say() {
  const row = atCursor();
  const thread = row?.matches(".thread") && $("details", row);
  if (thread) return (thread.open = true), $("textarea", thread).focus();
  if (!row) return goTo(document.getElementById("say-all"), "center");
  const [side, line] = (cursor.at || row.dataset.at).split(":");
  const held = row.closest("[data-diff]");
  if (!held.dataset.sides.split(" ").includes(side)) return;
  unsay();
  const form = $("#say-line").content.firstElementChild.cloneNode(true);
  const place = document.createElement("tr");
  place.className = "talk saying";
  place.insertCell().colSpan = 4;
  place.cells[0].append(form);
  Object.assign(form.elements.path, { value: held.dataset.path });
  Object.assign(form.elements.side, { value: side });
  Object.assign(form.elements.line, { value: line });
  form.elements.text.setAttribute("aria-label", `Comment on line ${line} of ${held.dataset.path}`);
  row.after(place);
  window.htmx?.process(form);
  form.elements.text.focus();
}

/** Of the thread under the cursor, else of the first unresolved one. */
function settle() {
  const thread = atCursor()?.matches(".thread") ? atCursor() : $(".thread:not(.resolved)", document);
  const button = thread && $("[data-settle]", thread);
  if (button) thread.closest("[data-files]") && select(thread), button.click();
}

/** Where the address points at a thread in a file: unfold it and go there. */
let wanted = location.hash.startsWith("#c-") ? location.hash.slice(1) : "";

function reach() {
  const thread = wanted && document.getElementById(wanted);
  if (!thread) return;
  wanted = "";
  thread.closest("details.file")?.setAttribute("open", "");
  if (thread.closest("[data-files]")) select(thread);
  goTo(thread, "center");
}

addEventListener("hashchange", () => {
  wanted = location.hash.startsWith("#c-") ? location.hash.slice(1) : "";
  reach();
});

// ---- listening ---------------------------------------------------------------------------------------------------

const ACTS = { view, say, unsay, settle, next: () => step(1), previous: () => step(-1), down: () => walk(1), up: () => walk(-1) };

card.addEventListener("click", (event) => {
  const act = event.target.closest("[data-diff-act]")?.dataset.diffAct;
  if (act) return ACTS[act]();
  const number = event.target.closest("td.n, td.s");
  const row = number?.closest("tr[data-at]");
  if (row) select(row, number.dataset.at || row.dataset.at), say();
});
card.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-view]")) return;
  event.preventDefault();
  mark(event.target.closest("details.file"), event.submitter.value === "1");
});
// Who opens a form wants to write in it.
document.addEventListener("toggle", ({ target }) => {
  if (target.open && target.matches(".override, .thread details, .file-bar details")) $("textarea", target)?.focus();
}, true);
document.addEventListener("keydown", (event) => {
  const form = event.target.closest?.(".say, .thread form");
  if (!form) return;
  if (event.key === "Escape" && form.closest(".saying")) event.preventDefault(), event.stopPropagation(), unsay();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.preventDefault(), form.requestSubmit();
}, true);
addEventListener("scrollend", () => {
  if (last && Math.abs(last.getBoundingClientRect().top - BELOW_TOP) > innerHeight) last = null;
});

$("[data-needs-script]").hidden = false;
paint();
reach();
