// The palette (commands of the page at once, what the lab holds from /palette/ a moment later) and the sheet of keys.
// Loaded by keys.js, which gives it its tools: a second copy of that module would listen to every key twice.

const NOTHING = "Nothing found. Experiments are found by number, too: 17.";

export function palette({ make, openDialog }, known) {
  if (document.querySelector("dialog.palette")) return;
  const input = make("input", {
    type: "text", role: "combobox", "aria-expanded": "true", "aria-controls": "palette-list", "aria-autocomplete": "list",
    "aria-label": "Search and commands", autocomplete: "off", spellcheck: "false",
    placeholder: "An experiment's number, a hypothesis, a command …",
  });
  const list = make("ul", { id: "palette-list", role: "listbox", "aria-label": "Results" });
  const note = make("p", { class: "empty", role: "status", hidden: "" });
  const box = openDialog("Search and commands", input, list, note);
  box.classList.add("palette");
  let found = []; // what the server answered last
  let items = []; // what is shown
  let active = 0;
  let asked = 0;
  let timer = 0;

  function option(item, index) {
    const row = make("li", { role: "option", id: `palette-${index}`, "aria-selected": String(index === active) },
      make("span", { class: "kind" }, item.kind), make("span", { class: "text" }, item.text),
      item.hint ? make("span", { class: "hint" }, item.hint) : null, item.key ? make("kbd", {}, item.key) : null);
    row.onclick = () => run(item);
    return row;
  }

  function draw() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const mine = known.filter((item) => words.every((word) => item.text.toLowerCase().includes(word)));
    items = words.length ? [...mine.slice(0, 6), ...found] : [...mine, ...found];
    active = Math.max(0, Math.min(active, items.length - 1));
    list.replaceChildren(...items.map(option));
    note.hidden = items.length > 0;
    note.textContent = NOTHING;
    if (items.length) input.setAttribute("aria-activedescendant", `palette-${active}`);
    else input.removeAttribute("aria-activedescendant");
    list.children[active]?.scrollIntoView({ block: "nearest" });
  }

  async function ask() {
    const mine = ++asked;
    try {
      const reply = await fetch(`/palette/?q=${encodeURIComponent(input.value.trim())}`);
      const body = reply.ok ? await reply.json() : { items: [] };
      if (mine !== asked) return;
      found = body.items;
      draw();
    } catch {
      // No connection: the commands of the page still work.
    }
  }

  function run(item) {
    box.close();
    if (item.run) item.run();
    else location.assign(item.url);
  }

  input.addEventListener("input", () => {
    active = 0;
    draw();
    clearTimeout(timer);
    timer = setTimeout(ask, 120);
  });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (!step && event.key !== "Enter") return;
    event.preventDefault();
    if (!step) return items[active] && run(items[active]);
    const next = active + step;
    active = Math.abs(step) > 1 ? next : (next + items.length) % (items.length || 1);
    draw();
  });
  draw();
  ask();
}

function keysHere({ all, shown, hint, rows, experimentOf }) {
  const list = [];
  const seen = new Set();
  for (const el of all("[data-key]").filter(shown)) {
    if (!seen.has(el.dataset.key)) list.push([el.dataset.key, hint(el)]);
    seen.add(el.dataset.key);
  }
  if (rows().length) list.push(["j k", "next and previous row"], ["o", "open the row"]);
  if (rows().some(experimentOf)) list.push(["x", "select; X a range"], ["c", "compare the selected"]);
  if (all('[rel="prev"], [rel="next"]').length) list.push(["[ ]", "previous and next"]);
  if (all("[data-filter]").length) list.push(["/", "filter"]);
  if (all("[data-copy-evidence]").length) list.push(["Y", "copy the evidence"]);
  return list;
}

export function sheet(tools) {
  const { make, openDialog, all, hint, off } = tools;
  const section = (title, list) =>
    list.length &&
    make("section", {}, make("h3", {}, title), make("dl", {}, ...list.flatMap(([keys, what]) => [
      make("dt", {}, ...keys.split(" ").map((key) => make("kbd", {}, key))), make("dd", {}, what)])));
  const parts = [
    section("This page", keysHere(tools)),
    section("Go to", all("[data-go]").filter((el) => el.href).map((el) => [`g ${el.dataset.go}`, hint(el)])),
    section("Everywhere", [["Ctrl K", "search and commands"], ["?", "this sheet"], ["t", "theme"], [".", "pause and go on"],
      ["y", "copy the address of this view"], ["u", "up one level"], ["Esc", "close"]]),
  ];
  const note = off() ? "Single keys are switched off in your settings; Ctrl K works." : "Single keys can be switched off in your settings.";
  openDialog("Keyboard shortcuts", make("header", {}, make("h2", {}, "Keyboard shortcuts")),
    make("div", { class: "keys", tabindex: "0" }, ...parts.filter(Boolean)), make("footer", {}, note));
}
