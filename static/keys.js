// Keyboard, palette, theme, copying, confirming, and times that stay current.
//
// Pages say what they offer by attributes and never listen to keys themselves: data-key="a" (that key clicks it),
// data-go="r" (after g), data-row with data-open (j, k, o), data-command="Pause" (palette), data-copy="text",
// data-copy-evidence (Y), data-confirm="question", data-filter (/), rel=prev and rel=next ([ and ]).

const $ = (selector, at = document) => at.querySelector(selector);
const all = (selector, at = document) => [...at.querySelectorAll(selector)];
const shown = (el) => el.getClientRects().length > 0;
const off = () => document.body.dataset.shortcuts === "off";

function make(tag, attributes = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== false) el.setAttribute(name, value);
  el.append(...children.filter((child) => child != null));
  return el;
}

// ---- messages ----------------------------------------------------------------------------------------------------

const messages = $("#messages");
messages?.classList.add("toasts");

function dismissable(message, seconds) {
  const close = make("button", { type: "button", class: "quiet icon", "aria-label": "Close" }, "×");
  close.onclick = () => message.remove();
  message.append(close);
  if (!seconds) return;
  const leave = () => (message.matches(":hover, :focus-within") ? setTimeout(leave, 1000) : message.remove());
  setTimeout(leave, 1000 * seconds);
}

export function say(text, level = "success") {
  if (!messages) return;
  all(".brief", messages).forEach((old) => old.remove());
  const message = make("p", { class: `message brief ${level}` }, text);
  messages.append(message);
  dismissable(message, level === "error" ? 0 : 3);
}

all(".message").forEach((message) => dismissable(message, message.matches(".error, .warning") ? 0 : 8));

// ---- copying -----------------------------------------------------------------------------------------------------

async function copy(text, what = "") {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard outside https and localhost: the old way, by a selection.
    const field = make("textarea", { readonly: "", class: "sr" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    if (!done) return say(`could not copy: ${text}`, "error");
  }
  say(what ? `Copied ${what}` : "Copied");
}

const permalink = () => {
  const url = new URL(location.href);
  url.searchParams.delete("part");
  return url.href;
};

function copyEvidence() {
  const el = $("[data-copy-evidence]");
  if (el) copy(el.dataset.copyEvidence || el.textContent.trim().replace(/\s+/g, " "), "the evidence");
}

// ---- theme and live ----------------------------------------------------------------------------------------------

const THEMES = ["system", "light", "dark"];
let stored = Promise.resolve(); // one after the other: the last choice is the one that stays

function nextTheme() {
  const root = document.documentElement;
  const theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  root.dataset.theme = theme;
  all('input[name="theme"]').forEach((input) => (input.checked = input.value === theme));
  say(theme === "system" ? "Theme: as the system" : `Theme: ${theme}`);
  const settings = $(".who");
  if (!settings) return;
  const headers = JSON.parse(document.body.getAttribute("hx-headers") || "{}");
  const body = new URLSearchParams({ act: "theme", theme });
  stored = stored.then(() => fetch(settings.href, { method: "POST", body, headers, keepalive: true })).then(
    (reply) => reply.ok || say("The theme could not be stored; it holds for this page", "warning"),
    () => say("No connection: the theme holds for this page", "warning"),
  );
}

function pauseLive() {
  const live = window.lab?.live;
  if (!live?.pause) return;
  const paused = live.paused;
  paused ? live.resume() : live.pause();
  say(paused ? "Live again" : "Paused: nothing on this page changes until you press . again");
}

// ---- rows --------------------------------------------------------------------------------------------------------

let at = null; // the id of the row under the cursor: rows are replaced, ids stay
const picked = new Map(); // row id -> experiment id

const rows = () => all("[data-row]").filter(shown);
const idOf = (row) => row.id || row.dataset.row;
const linkOf = (row) => $("[data-open]", row) || (row.matches("[data-open]") ? row : $("a[href]", row));
const current = () => (at === null ? null : rows().find((row) => idOf(row) === at)) || null;

function paint() {
  for (const row of rows()) {
    row.classList.toggle("cursor", idOf(row) === at);
    row.classList.toggle("picked", picked.has(idOf(row)));
  }
}

function move(step) {
  const list = rows();
  if (!list.length) return;
  const index = list.findIndex((row) => idOf(row) === at);
  const row = list[index < 0 ? (step > 0 ? 0 : list.length - 1) : Math.min(list.length - 1, Math.max(0, index + step))];
  at = idOf(row);
  paint();
  linkOf(row)?.focus({ preventScroll: true }); // so that Enter, screen readers and held regions know
  row.scrollIntoView({ block: "nearest" });
}

function experimentOf(row) {
  return row.dataset.compare || /\/e\/(\w+)\//.exec(linkOf(row)?.getAttribute("href") || "")?.[1];
}

let lastPick = null;

function pick(range) {
  const row = current() || (move(1), current());
  if (!row) return;
  const list = rows();
  const from = range && lastPick ? list.findIndex((other) => idOf(other) === lastPick) : -1;
  const to = list.indexOf(row);
  const chosen = from < 0 ? [row] : list.slice(Math.min(from, to), Math.max(from, to) + 1);
  for (const one of chosen) {
    if (!experimentOf(one)) continue;
    if (from < 0 && picked.has(idOf(one))) picked.delete(idOf(one));
    else picked.set(idOf(one), experimentOf(one));
  }
  lastPick = idOf(row);
  paint();
  if (picked.size) say(`${picked.size} selected; c compares them, Escape forgets them`);
  else say("Nothing selected");
}

function compare() {
  const link = $('[data-go="c"]');
  if (picked.size && link) location.assign(`${link.getAttribute("href")}?e=${[...picked.values()].join(",")}`);
  else say("Select experiments with x first");
}

// Fragments are morphed in place; what only the browser knows is put back.
for (const name of ["htmx:afterSwap", "htmx:afterSettle"]) document.addEventListener(name, paint);
document.addEventListener("pointerdown", (event) => {
  const row = event.target.closest?.("[data-row]");
  if (row) (at = idOf(row)), paint();
});

// ---- dialogs -----------------------------------------------------------------------------------------------------

function openDialog(title, ...children) {
  const box = make("dialog", { class: "sheet", "aria-label": title }, ...children);
  document.body.append(box);
  const before = document.activeElement;
  box.addEventListener("close", () => (box.remove(), before?.focus?.({ preventScroll: true })));
  box.addEventListener("click", (event) => event.target === box && box.close());
  box.showModal();
  return box;
}

function confirmThen(button) {
  const yes = make("button", { type: "button", class: button.className || "primary" }, button.dataset.hint || textOf(button));
  const no = make("button", { type: "button", class: "quiet" }, "Cancel");
  const row = make("div", { class: "actions" }, yes, no);
  const box = openDialog("Confirm", make("div", { class: "ask" }, make("p", {}, button.dataset.confirm), row));
  no.onclick = () => box.close();
  yes.onclick = () => {
    box.close();
    button.form.requestSubmit(Object.assign(button, { confirmed: true }));
    button.confirmed = false;
  };
  yes.focus();
}

document.addEventListener("click", (event) => {
  const target = event.target.closest?.("[data-confirm], [data-copy], [data-theme-toggle], [data-help], [data-palette]");
  if (!target) return;
  const data = target.dataset;
  if ("copy" in data) copy(data.copy);
  else if ("themeToggle" in data) nextTheme();
  else if ("help" in data) sheet();
  else if ("palette" in data) palette();
  else if (target.form && !target.confirmed && target.form.reportValidity()) confirmThen(target);
  else return;
  event.preventDefault();
});
// Enter in a field submits by the form's first button, which is then the submitter: it has to ask too.
document.addEventListener("submit", (event) => {
  const by = event.submitter;
  if (!by?.dataset.confirm || by.confirmed) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  confirmThen(by);
}, true);

const textOf = (el) => {
  const copy = el.cloneNode(true);
  all("kbd, .sr, .count", copy).forEach((part) => part.remove());
  return copy.textContent.trim().replace(/\s+/g, " ");
};
const hint = (el) => el.dataset.hint || el.dataset.command || el.getAttribute("aria-label") || textOf(el) || el.title;

// ---- palette -----------------------------------------------------------------------------------------------------

function commands() {
  const list = all("[data-command]").filter(shown).map((el) => ({ kind: "here", text: el.dataset.command, key: el.dataset.key, run: () => el.click() }));
  for (const el of all("[data-go]").filter((el) => el.href)) list.push({ kind: "go to", text: hint(el), key: `g ${el.dataset.go}`, url: el.href });
  const settings = $(".who");
  if (settings) list.push({ kind: "go to", text: "Settings", url: settings.href });
  list.push({ kind: "do", text: "Switch theme", key: "t", run: nextTheme }, { kind: "do", text: "Keyboard shortcuts", key: "?", run: sheet });
  list.push({ kind: "do", text: "Copy the address of this view", key: "y", run: () => copy(permalink(), "the address") });
  if (window.lab?.live?.pause) list.push({ kind: "do", text: "Pause or go on", key: ".", run: pauseLive });
  return list;
}

/** Palette and sheet are fetched when first asked for: most visits never do. */
async function sheets(name, ...given) {
  let module;
  try {
    module = await import("./palette.js");
  } catch {
    return say("No connection: this could not be loaded", "error");
  }
  module[name]({ make, openDialog, all, shown, hint, off, rows, experimentOf }, ...given);
}

const sheet = () => sheets("sheet");
const palette = () => sheets("palette", commands());

// ---- keys --------------------------------------------------------------------------------------------------------

let gone = -Infinity; // when g was pressed

const EVERYWHERE = {
  "?": sheet,
  t: nextTheme,
  ".": pauseLive,
  y: () => copy(permalink(), "the address of this view"),
  Y: copyEvidence,
  u: () => ($('[rel="up"]') || all(".crumbs a").at(-1))?.click(),
  j: () => move(1),
  k: () => move(-1),
  o: () => { const row = current(); if (row) linkOf(row)?.click(); },
  x: () => pick(false),
  X: () => pick(true),
  c: compare,
  "[": () => $('[rel="prev"]')?.click(),
  "]": () => $('[rel="next"]')?.click(),
  "/": () => { const field = all("[data-filter]").find(shown); if (field) { field.focus(); field.select?.(); } else palette(); },
};

/** The element that this key clicks: of the row under the cursor, of the chart under the pointer, else the first. */
function keyed(key) {
  const found = all(`[data-key="${CSS.escape(key)}"]`).filter((el) => shown(el) && !el.disabled);
  const row = current();
  return found.find((el) => row?.contains(el)) || found.find((el) => el.closest("lab-chart, .card")?.matches(":hover")) || found[0];
}

const typing = (el) => el?.isContentEditable || el?.matches?.("textarea, select, input:not([type=checkbox], [type=radio], [type=button], [type=submit], [type=range])");

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k" && $(".top")) {
    event.preventDefault();
    return palette();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.isComposing) return;
  if (event.key === "Escape" && typing(event.target) && !$("dialog[open]")) return event.target.blur();
  if (event.key === "Escape" && picked.size && !$("dialog[open]")) return picked.clear(), paint();
  if (off() || typing(event.target) || $("dialog[open]") || event.key.length > 1) return;
  const key = event.key;
  if (performance.now() - gone < 1500) {
    gone = -Infinity;
    const link = $(`[data-go="${CSS.escape(key)}"]`);
    if (link) return event.preventDefault(), link.click();
  }
  if (key === "g") return void (gone = performance.now());
  const own = keyed(key);
  if (own && !(key === "c" && picked.size)) own.click();
  else if (EVERYWHERE[key]) EVERYWHERE[key]();
  else return;
  event.preventDefault();
});

// ---- times -------------------------------------------------------------------------------------------------------

// By the server's clock: a browser whose own is wrong still says how long ago it was.
const skew = Date.now() - 1000 * (Number(document.body.dataset.now) || Date.now() / 1000);

function duration(seconds) {
  if (seconds < 100) return `${Math.floor(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function refreshTimes() {
  if (document.hidden || window.lab?.live?.paused) return;
  for (const el of all("time[data-ago]")) {
    const seconds = (Date.now() - skew - Date.parse(el.dateTime)) / 1000;
    if (seconds >= 10) el.textContent = `${duration(seconds)} ago`;
  }
}

setInterval(refreshTimes, 10_000);
document.addEventListener("visibilitychange", refreshTimes);
