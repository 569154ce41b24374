// The diff of the merge page: what was viewed (kept in this browser, by commit and path), and the way through it.

const root = document.querySelector(".merge");
const card = document.querySelector("[data-files]");
const files = [...card.querySelectorAll("details.file")];
const BELOW_TOP = 70; // pixels hidden by the header

const keyOf = (file) => `viewed:${root.dataset.commit}:${file.dataset.path}`;

function viewed(file, value) {
  try {
    if (value === true) localStorage.setItem(keyOf(file), "1");
    if (value === false) localStorage.removeItem(keyOf(file));
    return localStorage.getItem(keyOf(file)) === "1";
  } catch {
    return file.dataset.seen === "1"; // storage is off: it holds for this page
  }
}

function paint() {
  for (const file of files) file.querySelector("[data-viewed]").hidden = !viewed(file);
  const count = files.filter((file) => viewed(file)).length;
  card.querySelector("[data-viewed-count]").textContent = `viewed ${count} of ${files.length}`;
}

function goTo(element) {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  element.scrollIntoView({ block: "start", behavior });
  element.focus({ preventScroll: true });
}

/** The file that holds the focus, else the first one on screen. */
function current() {
  const focused = files.find((file) => file.contains(document.activeElement));
  return focused || files.find((file) => file.getBoundingClientRect().bottom > BELOW_TOP + 40) || files.at(-1);
}

function view() {
  const file = current();
  if (!file) return;
  file.dataset.seen = "1";
  viewed(file, true);
  file.open = false;
  const at = files.indexOf(file);
  const next = [...files.slice(at + 1), ...files.slice(0, at)].find((other) => !viewed(other));
  if (next) next.open = true;
  goTo((next || file).querySelector("summary"));
  paint();
}

/** Changes of all open files in order; a closed one counts as one stop, at its summary. */
function stops() {
  return files.flatMap((file) => (file.open ? [...file.querySelectorAll(".hunk")] : [file.querySelector("summary")]));
}

let last = null;

function step(by) {
  const list = stops();
  if (!list.length) return;
  const at = list.indexOf(last);
  const visible = list.findIndex((stop) => stop.getBoundingClientRect().top > BELOW_TOP - 5);
  const from = at >= 0 ? at + by : visible < 0 ? list.length - 1 : visible - (by < 0 ? 1 : 0);
  last = list[Math.min(list.length - 1, Math.max(0, from))];
  goTo(last);
}

const ACTS = { view, next: () => step(1), previous: () => step(-1) };

card.addEventListener("click", (event) => {
  const act = event.target.closest("[data-diff-act]")?.dataset.diffAct;
  if (act) ACTS[act]();
});
addEventListener("scrollend", () => {
  if (last && Math.abs(last.getBoundingClientRect().top - BELOW_TOP) > innerHeight) last = null;
});

card.querySelector("[data-needs-script]").hidden = false;
for (const file of files) if (viewed(file)) file.open = false;
paint();
