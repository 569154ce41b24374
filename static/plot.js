// One drawing: axes, bands, lines and marks on a canvas, and above it the crosshair and the selection of a zoom. All
// lengths are CSS pixels. What is drawn and why is decided in charts.js.

import { band } from "./curves.js";

const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3]]; // of slots 0-7, 8-15, ...
const COLOURS = 8;
const TOP = 12, RIGHT = 62, BOTTOM = 24, GAP = 7, LABEL = 13; // LABEL: between two values at the right edge
const css = {};

export const dashOf = (line) => (line.dash && line.slot < COLOURS ? DASHES[1] : DASHES[Math.floor(line.slot / COLOURS) % 4]);
export const colourOf = (line) => `--series-${line.slot % COLOURS}`;

export function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["muted", "grid", "band", ...Array.from({ length: COLOURS }, (_, i) => `series-${i}`)];
  for (const name of names) css[`--${name}`] = style.getPropertyValue(`--${name}`).trim();
  css.font = `11px ${getComputedStyle(document.body).fontFamily}`;
}

// A value with five digits, six places at most; `digits` after the point where the neighbours on an axis have as many.
export function number(value, digits) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "NaN";
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e7)) return value.toExponential(digits === undefined ? 2 : 1).replace("-", "−");
  const whole = digits === undefined && Number.isInteger(value);
  const places = digits ?? (whole ? 0 : Math.min(Math.max(4 - Math.floor(Math.log10(size)), 0), 6));
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", "−");
}

// Round steps between two values, at most n of them: [[value, text], ...].
function ticks(low, high, n, atLeast = 0) {
  const rough = Math.max((high - low) / Math.max(n, 1), atLeast), size = 10 ** Math.floor(Math.log10(rough));
  const step = size * [1, 2, 5, 10].find((times) => size * times >= rough * 0.999), out = [];
  const digits = Math.max(-Math.floor(Math.log10(step) + 1e-9), 0);
  for (let i = Math.ceil(low / step); i * step <= high; i++) out.push([i * step, number(i * step, digits)]);
  return out;
}

// Powers of ten, with 2 and 5 between them where there is room; within one decade as on a plain axis.
function logTicks(low, high, n) {
  const decades = Math.log10(high / low), out = [];
  if (decades < 1.2) return ticks(low, high, n);
  const every = Math.ceil(decades / n), times = every === 1 && decades * 3 < n ? [1, 2, 5] : [1];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += every) {
    for (const by of times) if (by * 10 ** power >= low && by * 10 ** power <= high) out.push(by * 10 ** power);
  }
  return out.map((value) => [value, number(Number(value.toPrecision(3)), value < 1 ? -Math.floor(Math.log10(value)) : 0)]);
}

// `hears` has select(from, to), fit() and hover(step or null).
export class Plot {
  #marked = "";
  #left = 40;
  scene = { lines: [], bands: [], from: 0, to: 1, weight: 0 };
  log = false;

  constructor(host, hears) {
    this.host = host;
    host.innerHTML = `<canvas></canvas><div class="chart-over"><div class="chart-cross" hidden></div><div class="chart-select" hidden></div></div>`;
    [this.canvas, this.over] = host.children;
    [this.crosshair, this.selection] = this.over.children;
    this.ctx = this.canvas.getContext("2d");
    this.#listen(hears);
  }

  #listen({ select, fit, hover }) {
    const { over, selection } = this;
    let from = null;
    const place = (event) => Math.min(Math.max(event.clientX - over.getBoundingClientRect().left, 0), this.width);
    const step = (x) => this.scene.from + (x / this.width) * (this.scene.to - this.scene.from);
    over.onpointerdown = (event) => {
      if (event.pointerType === "touch" || event.button) return; // a finger moves the crosshair
      from = place(event);
      over.setPointerCapture(event.pointerId);
    };
    over.onpointermove = (event) => {
      const x = place(event);
      if (from !== null) {
        selection.hidden = false;
        selection.style.left = `${Math.min(x, from)}px`;
        selection.style.width = `${Math.abs(x - from)}px`;
      }
      hover(step(x));
    };
    over.onpointerup = over.onpointercancel = (event) => {
      const x = place(event), begin = from;
      from = null;
      selection.hidden = true;
      if (begin === null || event.type === "pointercancel") return;
      if (Math.abs(x - begin) > 4) select(step(Math.min(x, begin)), step(Math.max(x, begin)));
    };
    over.onpointerleave = () => { if (from === null) hover(null); };
    over.ondblclick = fit;
  }

  size(width, height) {
    const ratio = devicePixelRatio || 1;
    if (width === this.full && height === this.tall && ratio === this.ratio) return;
    Object.assign(this, { full: width, tall: height, ratio, height: height - TOP - BOTTOM });
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = this.host.style.height = `${height}px`;
  }

  // A scene: lines {curve, slot, dash, faded}, curves of the band, the range of steps, the weight of the smoothing.
  show(scene) {
    this.scene = scene;
    this.band = scene.bands.length ? band(scene.bands, scene.from, scene.to) : null;
    for (const line of scene.lines) {
      line.curve.sort();
      line.smoothed = scene.weight ? line.curve.smooth(scene.weight) : null;
    }
    this.#scale();
    const { ctx } = this;
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    ctx.clearRect(0, 0, this.full, this.tall);
    ctx.font = css.font;
    if (this.any) this.#drawAxes(ctx);
    ctx.save();
    ctx.beginPath();
    ctx.rect(this.#left, TOP, this.width, this.height);
    ctx.clip();
    ctx.lineJoin = "round";
    if (this.band) this.#drawBand(ctx);
    for (const line of scene.lines) this.#drawLine(ctx, line);
    ctx.restore();
    this.#drawEnds(ctx);
    this.#mark();
  }

  cross(step) {
    const { from, to } = this.scene;
    this.crosshair.hidden = step === null || step < from || step > to;
    this.crosshair.style.left = `${((step - from) / (to - from)) * this.width}px`;
  }

  // Where steps and values lie; the left margin follows the longest text of the axis.
  #scale() {
    const { from, to } = this.scene, [low, high] = this.#range(), scale = this.log ? Math.log10 : (value) => value;
    const room = this.height / 34;
    this.rows = this.log ? logTicks(low, high, room) : ticks(low, high, room);
    this.ctx.font = css.font;
    this.#left = Math.ceil(Math.max(24, ...this.rows.map(([, text]) => this.ctx.measureText(text).width)) + GAP + 3);
    this.width = Math.max(this.full - this.#left - RIGHT, 10);
    this.columns = ticks(from, to, this.width / 60, 1);
    const tall = this.height / (scale(high) - scale(low)), wide = this.width / (to - from);
    this.X = (step) => this.#left + (step - from) * wide;
    this.Y = (value) => TOP + this.height - (scale(value) - scale(low)) * tall;
    const { style } = this.over;
    style.left = `${this.#left}px`; style.top = `${TOP}px`; style.width = `${this.width}px`; style.height = `${this.height}px`;
  }

  #range() {
    const { lines, from, to } = this.scene, floor = this.log ? Number.MIN_VALUE : -Infinity;
    let low = Infinity, high = -Infinity;
    const take = (value) => {
      if (value < low && value >= floor) low = value;
      if (value > high && value >= floor) high = value;
    };
    for (const { curve } of lines) {
      for (let i = 0; i < curve.length; i++) if (curve.end[i] >= from && curve.step[i] <= to) { take(curve.low[i]); take(curve.high[i]); }
    }
    for (const values of [this.band?.low ?? [], this.band?.high ?? []]) values.forEach(take);
    this.any = low <= high;
    if (!this.any) return this.log ? [0.1, 1] : [0, 1];
    if (this.log) return [low * (low / high) ** 0.06 * 0.98, high * (high / low) ** 0.06 * 1.02];
    const room = (high - low || Math.abs(high) || 1) * 0.08;
    return [low >= 0 && low < room ? 0 : low - room, high + room];
  }

  #drawAxes(ctx) {
    const bottom = TOP + this.height, right = this.#left + this.width;
    ctx.lineWidth = 1;
    ctx.strokeStyle = css["--grid"];
    ctx.fillStyle = css["--muted"];
    ctx.beginPath();
    ctx.textAlign = "right"; ctx.textBaseline = "middle";
    for (const [value, text] of this.rows) {
      const y = Math.round(this.Y(value)) + 0.5;
      ctx.moveTo(this.#left, y); ctx.lineTo(right, y);
      ctx.fillText(text, this.#left - GAP, y);
    }
    ctx.textAlign = "center"; ctx.textBaseline = "top";
    for (const [step, text] of this.columns) {
      const x = Math.round(this.X(step)) + 0.5;
      ctx.moveTo(x, TOP); ctx.lineTo(x, bottom);
      ctx.fillText(text, x, bottom + GAP);
    }
    ctx.stroke();
  }

  #drawBand(ctx) {
    const { step, low, high, mean } = this.band;
    this.#area(ctx, step, step, low, high);
    ctx.fillStyle = css["--band"];
    ctx.fill();
    ctx.setLineDash([4, 3]);
    this.#stroke(ctx, step, mean, css["--muted"], 1);
  }

  #drawLine(ctx, line) {
    const { curve, smoothed, faded } = line, colour = css[colourOf(line)], alpha = faded ? 0.25 : 1;
    this.#area(ctx, curve.step, curve.end, curve.low, curve.high);
    ctx.globalAlpha = 0.22 * alpha;
    ctx.fillStyle = colour;
    ctx.fill();
    ctx.setLineDash(dashOf(line));
    ctx.globalAlpha = (smoothed ? 0.3 : 1) * alpha;
    this.#stroke(ctx, curve.end, curve.last, colour, 1);
    ctx.globalAlpha = alpha;
    if (smoothed) this.#stroke(ctx, curve.end, smoothed, colour, 1.5);
    ctx.globalAlpha = 1;
    ctx.setLineDash([]);
  }

  #stroke(ctx, steps, values, colour, width) {
    let pen = false;
    ctx.beginPath();
    for (let i = this.#first(steps); i < steps.length; i++) {
      const y = this.Y(values[i]);
      if (!Number.isFinite(y)) { pen = false; continue; }
      if (pen) ctx.lineTo(this.X(steps[i]), y); else ctx.moveTo(this.X(steps[i]), y);
      pen = true;
      if (steps[i] > this.scene.to) break;
    }
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke();
  }

  // The path around low and high, broken where there is neither.
  #area(ctx, first, last, low, high) {
    ctx.beginPath();
    for (let i = this.#first(last), j; i < first.length && first[i] <= this.scene.to; i = j + 1) {
      for (j = i; j < first.length && Number.isFinite(this.Y(low[j])) && first[j] <= this.scene.to; j++);
      if (j === i) continue;
      const wide = this.X(1) - this.X(0); // of a step; a row below half a pixel is one corner
      ctx.moveTo(this.X(first[i]), this.Y(high[i]));
      for (let k = i; k < j; k++) {
        if ((last[k] - first[k]) * wide > 0.5) ctx.lineTo(this.X(first[k]), this.Y(high[k]));
        ctx.lineTo(this.X(last[k]), this.Y(high[k]));
      }
      for (let k = j - 1; k >= i; k--) {
        ctx.lineTo(this.X(last[k]), this.Y(low[k]));
        if ((last[k] - first[k]) * wide > 0.5) ctx.lineTo(this.X(first[k]), this.Y(low[k]));
      }
      ctx.closePath();
    }
  }

  // The last index before what is in sight.
  #first(steps) {
    let low = 0, high = steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] < this.scene.from) low = middle + 1; else high = middle;
    }
    return Math.max(low - 1, 0);
  }

  // The newest point of each line: a dot and its value, moved apart where they would cover each other.
  #drawEnds(ctx) {
    const { lines, from, to } = this.scene, ends = [];
    for (const line of lines) {
      const { curve } = line, i = curve.length - 1;
      if (i < 0 || curve.end[i] > to || curve.end[i] < from) continue;
      const y = this.Y(curve.last[i]), shown = Number.isFinite(y) ? y : TOP;
      ends.push({ x: this.X(curve.end[i]), y: shown, place: shown, text: number(curve.last[i]), colour: css[colourOf(line)] });
    }
    ends.sort((a, b) => a.y - b.y);
    ends.forEach((end, i) => { if (i) end.place = Math.max(end.place, ends[i - 1].place + LABEL); });
    let room = TOP + this.height; // and from below back up, where they were pushed out
    for (const end of [...ends].reverse()) { end.place = Math.min(end.place, room); room = end.place - LABEL; }
    const right = this.#left + this.width + GAP, fit = ends.length * LABEL <= this.height + LABEL;
    ctx.textAlign = "left"; ctx.textBaseline = "middle";
    for (const { x, y, place, text, colour } of ends) {
      ctx.fillStyle = colour;
      ctx.beginPath();
      ctx.arc(x, y, 3, 0, 2 * Math.PI);
      ctx.fill();
      if (fit) ctx.fillText(text, right, place);
    }
  }

  // Values that are not finite: an × on the top edge with their number as its tooltip.
  #mark() {
    const { lines, from, to } = this.scene, cells = new Map();
    for (const { curve } of lines) {
      for (let i = 0; i < curve.length; i++) {
        if (!curve.bad[i] || curve.step[i] < from || curve.step[i] > to) continue;
        const cell = Math.round((this.X(curve.step[i]) - this.#left) / 8);
        const mark = cells.get(cell) ?? { step: curve.step[i], count: 0 };
        mark.count += curve.bad[i];
        cells.set(cell, mark);
      }
    }
    const text = JSON.stringify([...cells]);
    if (text === this.#marked) return;
    this.#marked = text;
    for (const old of this.over.querySelectorAll(".chart-mark")) old.remove();
    for (const [cell, { step, count }] of cells) {
      const mark = Object.assign(document.createElement("span"), { className: "chart-mark", textContent: "×" });
      mark.title = `${count} ${count === 1 ? "value" : "values"} NaN or infinite at step ${number(step)}`;
      mark.style.left = `${cell * 8}px`;
      this.over.append(mark);
    }
  }
}
