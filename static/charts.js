// <lab-chart spec='{...}'>: one metric of some trials, read once by HTTP and then streamed. What a person has chosen
// (zoom, smoothing, log, hidden lines) lives in the address, so a reload or a sent link shows the same.

import { histories, parseFrame } from "./curves.js";
import { Line } from "./lines.js";
import { newItem, skeleton, valuesTable } from "./parts.js";
import { Plot, colourOf, dashOf, number, readColours } from "./plot.js";

const EVERY = 100, BUCKETS = 1000, MAX_RETRY = 30000; // ms between two drawings; buckets of a history
const WEIGHTS = [0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999]; // stops of the slider
const BAND = "band"; // the name of the band among the hidden lines
const charts = new Map(); // id -> element
const lab = (window.lab ??= {});

// What all charts of the page share.
const query = new URLSearchParams(location.search);
const view = {
  smooth: Number(query.get("smooth")) || 0,
  log: query.get("log") === "1",
  hide: new Set((query.get("hide") ?? "").split(",").filter(Boolean)),
};

function remember(changes) {
  const address = new URL(location);
  for (const [name, value] of Object.entries(changes)) {
    if (value) address.searchParams.set(name, value); else address.searchParams.delete(name);
  }
  history.replaceState(history.state, "", address);
}

function share(changes) {
  Object.assign(view, changes);
  remember({ smooth: view.smooth || "", log: view.log ? "1" : "", hide: [...view.hide].join(",") });
  for (const chart of charts.values()) chart.reflect();
}

class LabChart extends HTMLElement {
  static observedAttributes = ["spec", "empty"];
  spec = { lines: [], band: [] };
  lines = new Map(); // trial -> Line, of lines and band
  from = null; // zoom; null is the beginning, or the newest
  to = null;
  #drawn = 0;
  #timer = 0;
  #tries = 0;
  #step = null; // under the crosshair
  #cutting = null; // AbortController of the history of a zoom
  visible = false;

  connectedCallback() {
    charts.set(this.id, this);
    if (this.plot) return; // it was only moved
    const [from, to] = (query.get(`x.${this.id}`) ?? "..").split("..");
    this.from = from === "" ? null : Number(from);
    this.to = to === "" || to === undefined ? null : Number(to);
    this.build();
    sight.observe(this);
    new ResizeObserver(() => this.resize()).observe(this.parts.plot);
    this.read();
  }

  disconnectedCallback() {
    queueMicrotask(() => {
      if (this.isConnected) return;
      charts.delete(this.id);
      sight.unobserve(this);
      for (const line of this.lines.values()) lab.live.leave(line);
      this.lines.clear();
      this.plot = null;
    });
  }

  attributeChangedCallback() { if (this.plot) this.read(); }

  // Take the spec in: what is there already stays as it is.
  read() {
    const before = this.spec.metric;
    this.spec = { lines: [], band: [], title: "", unit: "", height: 220, ...JSON.parse(this.getAttribute("spec") || "{}") };
    const wanted = new Map();
    for (const trial of this.spec.band) wanted.set(trial, { live: true, inBand: true });
    for (const line of this.spec.lines) wanted.set(line.trial, { slot: 0, ...line, inBand: false });
    for (const [trial, line] of this.lines) {
      if (wanted.has(trial) && before === this.spec.metric) continue;
      lab.live.leave(line);
      this.lines.delete(trial);
    }
    for (const [trial, options] of wanted) {
      const line = this.lines.get(trial) ?? new Line(this, trial);
      const begins = options.live && !line.live && line.full;
      Object.assign(line, options);
      this.lines.set(trial, line);
      if (begins) lab.live.follow(line);
    }
    this.parts.empty.textContent = this.getAttribute("empty") || "No points yet.";
    this.dress();
    if (this.visible) this.see();
    this.resize();
  }

  // On screen, or near it: read what was not read yet.
  see() {
    const fresh = [...this.lines.values()].filter((line) => !line.full && !line.asking);
    if (fresh.length) this.load(fresh);
    this.later();
  }

  address(lines, more) {
    const address = new URL("/series/", location);
    for (const line of lines) address.searchParams.append("trial", line.trial);
    address.searchParams.set("metric", this.spec.metric);
    for (const [name, value] of Object.entries(more)) if (value !== null) address.searchParams.set(name, value);
    return address;
  }

  // Histories of these lines: all of them, or what lies between two steps.
  async load(lines, zoom = null, signal = undefined) {
    const n = Math.min(BUCKETS, Math.max(2 * this.parts.plot.clientWidth, 200));
    for (const line of lines) line.asking++;
    let behind = [], problem = "";
    try {
      const range = zoom ? { from: zoom.from && Math.floor(zoom.from), to: zoom.to && Math.ceil(zoom.to) } : {};
      const answer = await fetch(this.address(lines, { n, ...range }), { signal });
      if (!answer.ok || answer.redirected) throw Object.assign(new Error(`The points could not be read (${answer.status}).`), answer.status < 500 && { final: true });
      const frame = parseFrame(await answer.arrayBuffer());
      const found = new Map([...histories(frame)].map((history) => [history.topic, history]));
      const generations = new Map(frame.blocks.map(({ header }) => [header.topic, header.generation]));
      behind = lines.filter((line) => this.lines.get(line.trial) === line
        && !line.read(generations.get(line.topic) ?? 0, found.get(line.topic), zoom));
      this.#tries = 0;
    } catch (error) {
      if (error.name === "AbortError") return;
      problem = error.final ? error.message : `${error.message} Trying again.`;
      if (!error.final) behind = lines;
    } finally {
      for (const line of lines) if (!--line.asking) line.recent = [];
      lab.live.tell();
    }
    this.parts.problem.textContent = problem;
    if (behind.length) setTimeout(() => this.isConnected && this.load(behind, zoom, signal), Math.min(500 * 2 ** this.#tries++, MAX_RETRY));
    this.draw();
    if (!problem) performance.mark(`drawn ${this.id}`); // what tests and the bench ask for
    if (!zoom && this.zoomed) this.cutOut();
  }

  // No websocket: what is shown is read again.
  poll() {
    if (!this.polled && this.visible) this.polled = this.load([...this.lines.values()]).finally(() => { this.polled = null; });
  }

  zoom(from, to) {
    const newest = this.range(true)[1], round = (step) => (step === null ? null : Number(step.toPrecision(7)));
    this.from = round(from);
    this.to = to !== null && to >= newest ? null : round(to);
    remember({ [`x.${this.id}`]: this.zoomed ? `${this.from ?? ""}..${this.to ?? ""}` : "" });
    this.draw();
    this.cutOut();
  }

  get zoomed() { return this.from !== null || this.to !== null; }

  cutOut() {
    this.#cutting?.abort();
    this.#cutting = null;
    if (!this.zoomed) {
      for (const line of this.lines.values()) line.cut = null;
      return this.draw();
    }
    this.#cutting = new AbortController();
    return this.load([...this.lines.values()], { from: this.from, to: this.to }, this.#cutting.signal);
  }

  get shown() { return [...this.lines.values()].filter((line) => !line.inBand && !view.hide.has(line.trial)); }
  get bands() { return view.hide.has(BAND) ? [] : [...this.lines.values()].filter((line) => line.inBand); }

  // The steps in sight; `whole`: of all that is there.
  range(whole = false) {
    let low = Infinity, high = -Infinity;
    for (const { full } of [...this.shown, ...this.bands]) {
      if (!full?.curve.length) continue;
      full.curve.sort();
      low = Math.min(low, full.curve.step[0]);
      high = Math.max(high, full.curve.end[full.curve.length - 1]);
    }
    if (!whole) { low = this.from ?? low; high = this.to ?? high; }
    if (!Number.isFinite(low)) low = 0;
    if (!(high > low)) high = low + 1;
    return [low, high];
  }

  // Draw soon: at most every EVERY ms, and only what can be seen.
  later() {
    if (this.#timer || !this.visible || document.hidden || lab.live.paused) return;
    this.#timer = setTimeout(() => requestAnimationFrame(() => { this.#timer = 0; this.draw(); }),
      Math.max(EVERY - (performance.now() - this.#drawn), 0));
  }

  draw() {
    if (!this.plot) return;
    if (!this.visible) return;
    this.#drawn = performance.now();
    this.plot.log = view.log;
    const [from, to] = this.range();
    this.plot.show({ from, to, lines: this.shown, bands: this.bands.map((line) => line.curve), weight: view.smooth });
    this.cross(this.#step);
  }

  // The crosshair; all charts of the page share it.
  cross(step) {
    this.#step = step;
    if (!this.visible) return;
    this.plot.cross(step);
    this.tell();
  }

  resize() {
    if (!this.plot) return;
    const { dialog, box, plot } = this.parts, full = dialog.open;
    this.plot.size(plot.clientWidth, full ? Math.max(dialog.clientHeight - box.offsetHeight + plot.offsetHeight, 160) : this.spec.height);
    this.draw();
  }

  // A choice that all charts share has changed, or the theme.
  reflect() {
    const { smooth, weight, log } = this.parts;
    smooth.value = Math.max(WEIGHTS.indexOf(view.smooth), 0);
    weight.textContent = view.smooth || "off";
    log.setAttribute("aria-pressed", view.log);
    this.dress();
    this.draw();
  }

  build() {
    this.parts = skeleton(this, WEIGHTS.length - 1);
    const { jump, fit, smooth, log, astable, expand, plot, dialog } = this.parts;
    jump.onclick = () => this.zoom(this.from, null);
    fit.onclick = () => this.zoom(null, null);
    smooth.oninput = () => share({ smooth: WEIGHTS[smooth.value] });
    log.onclick = () => share({ log: !view.log });
    astable.onclick = () => { this.parts.table.hidden = !this.parts.table.hidden; this.tabulate(); };
    expand.onclick = () => this.expand(!dialog.open);
    dialog.onclose = () => this.expand(false);
    plot.onkeydown = (event) => this.key(event);
    plot.onblur = () => { this.parts.said.textContent = ""; };
    this.plot = new Plot(plot, {
      select: (from, to) => this.zoom(from, to),
      fit: () => this.zoom(null, null),
      hover: (step) => { for (const chart of charts.values()) chart.cross(step); },
    });
    this.reflect();
  }

  // The whole window. The chart itself stays where it is in the page; what it shows moves into its dialog.
  expand(open) {
    const { dialog, box, expand } = this.parts;
    if (open === dialog.open && dialog.contains(box) === open) return;
    if (open) { dialog.append(box); dialog.setAttribute("aria-label", this.spec.title); dialog.showModal(); }
    else { this.prepend(box); if (dialog.open) dialog.close(); }
    expand.setAttribute("aria-label", open ? "Close" : "Expand");
    expand.title = expand.getAttribute("aria-label");
    expand.focus();
    this.resize();
  }

  key(event) {
    const [from, to] = this.range(), move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    const share = ((this.#step ?? to) - from) / (to - from);
    const goal = event.key === "Home" ? 0 : event.key === "End" ? 1 : share + move / 100;
    if (Number.isNaN(goal)) return;
    event.preventDefault();
    for (const chart of charts.values()) chart.cross(from + Math.min(Math.max(goal, 0), 1) * (to - from));
    this.parts.said.textContent = `Step ${number(Math.round(this.#step))}: ${this.summary(this.#step).join(", ")}`;
  }

  summary(step) {
    return this.shown.filter(({ curve }) => curve.length).map(({ label, curve }) => `${label} ${number(curve.last[curve.at(step)])}`);
  }

  // Everything but the drawing that follows the spec.
  dress() {
    const { title, csv, legend } = this.parts, { spec } = this;
    title.textContent = spec.title || spec.metric;
    if (spec.unit) title.append(Object.assign(document.createElement("span"), { textContent: spec.unit }));
    csv.href = this.address([...this.lines.values()], { format: "csv" });
    csv.setAttribute("aria-label", `${title.textContent} as CSV`);
    const items = spec.lines.map(({ trial, label }) => [trial, label]);
    if (spec.band.length) items.push([BAND, spec.bandLabel || "baseline"]);
    for (const old of [...legend.children]) if (!items.some(([trial]) => trial === old.dataset.line)) old.remove();
    for (const [trial, label] of items) legend.append(this.legendItem(trial, label));
  }

  legendItem(trial, label) {
    let item = [...this.parts.legend.children].find((old) => old.dataset.line === trial);
    if (!item) {
      item = newItem(trial);
      item.onmouseenter = () => this.fade(trial);
      item.onmouseleave = () => this.fade(null);
      item.firstChild.onclick = () => {
        const hide = new Set(view.hide);
        if (!hide.delete(trial)) hide.add(trial);
        share({ hide });
      };
    }
    const swatch = item.querySelector("i"), line = this.lines.get(trial);
    swatch.className = trial === BAND ? "chart-swatch chart-swatch-band" : "chart-swatch";
    if (line && trial !== BAND) {
      swatch.style.borderTopColor = `var(${colourOf(line)})`;
      swatch.style.borderTopStyle = dashOf(line).length ? "dashed" : "solid";
    }
    item.querySelector(".chart-label").textContent = label;
    item.firstChild.setAttribute("aria-pressed", !view.hide.has(trial));
    return item;
  }

  fade(trial) {
    for (const line of this.lines.values()) line.faded = trial !== null && line.trial !== trial;
    this.draw();
  }

  // The words around the drawing: values under the crosshair, ages, the summary, the table.
  tell() {
    const { plot, empty, legend, jump, fit } = this.parts, lines = [...this.lines.values()];
    const any = lines.some(({ full }) => full?.curve.length);
    empty.hidden = any || !lines.every(({ full }) => full);
    fit.hidden = !this.zoomed;
    jump.hidden = this.to === null || !lines.some((line) => line.live && line.at);
    for (const item of legend.children) {
      const line = this.lines.get(item.dataset.line), [, value, age] = item.firstChild.querySelectorAll("span, b, small");
      if (item.dataset.line === BAND) value.textContent = this.bandText();
      else if (line?.curve.length) value.textContent = number(this.#step === null ? line.newest.value : line.curve.last[line.curve.at(this.#step)]);
      const text = line ? line.age : "";
      if (age.textContent !== text) age.textContent = text;
      item.classList.toggle("chart-live", text !== "" && text !== "ended");
    }
    const tip = this.shown.reduce((best, line) => (line.newest.step > (best?.newest.step ?? -Infinity) ? line : best), null);
    const count = this.shown.length, name = this.spec.title || this.spec.metric;
    plot.setAttribute("aria-label", `${count} ${count === 1 ? "line" : "lines"}, ${name}, ${
      tip ? `newest ${number(tip.newest.value)} at step ${number(tip.newest.step)}` : "no points yet"}`);
  }

  bandText() {
    const { band } = this.plot ?? {};
    if (!band?.step.length) return "";
    const last = band.step.length - 1, share = ((this.#step ?? Infinity) - band.step[0]) / (band.step[last] - band.step[0] || 1);
    return number(band.mean[Math.round(Math.min(Math.max(share, 0), 1) * last)]);
  }

  tabulate() {
    const { astable, table } = this.parts;
    astable.setAttribute("aria-expanded", !table.hidden);
    if (!table.hidden) table.replaceChildren(valuesTable(this.lines.values(), this.spec.bandLabel || "baseline"));
  }
}

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.visible = isIntersecting;
    if (isIntersecting) target.see();
  }
}, { rootMargin: "400px" });

function recolour() {
  readColours();
  for (const chart of charts.values()) chart.draw();
}

function start() {
  readColours();
  customElements.define("lab-chart", LabChart);
  new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) for (const chart of charts.values()) chart.later(); });
  lab.live.addEventListener("pause", () => { for (const chart of charts.values()) chart.later(); });
  setInterval(() => {
    if (!document.hidden) for (const chart of charts.values()) if (chart.visible) { chart.tell(); chart.tabulate(); }
  }, 1000);
}

lab.charts = charts;
if (lab.live) start(); else document.addEventListener("lab:live", start, { once: true });
