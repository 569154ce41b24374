// The numbers of a chart: reading frames of the live path (docs/decisions/0007), curves that stay small however long
// they grow, smoothing, bands. Nothing here touches the page.

const ROWS = 4096; // a curve that grows beyond this is packed into about a quarter of it

// A curve is rows in order of steps. A row is one point, or several packed: min, max and last survive, so no spike is
// ever lost. `bad` counts its NaN and infinite values.
export class Curve {
  constructor() { this.clear(); }

  clear() {
    this.step = []; this.end = []; this.low = []; this.high = []; this.last = []; this.count = []; this.bad = [];
    this.points = 0;
    this.sorted = true;
  }

  get length() { return this.step.length; }

  row(step, end, low, high, last, count, bad) {
    const n = this.step.length;
    if (n && step < this.end[n - 1]) this.sorted = false;
    this.step.push(step); this.end.push(end); this.low.push(low); this.high.push(high);
    this.last.push(last); this.count.push(count); this.bad.push(bad);
    this.points += count;
    if (n >= ROWS) this.pack(Math.ceil(this.points / (ROWS / 4)));
  }

  point(step, value) {
    const fine = Number.isFinite(value), shown = fine ? value : NaN;
    this.row(step, step, shown, shown, value, 1, fine ? 0 : 1);
  }

  // A training process may log steps in any order; a curve is drawn in order.
  sort() {
    if (this.sorted) return;
    const order = this.step.map((_, i) => i).sort((a, b) => this.step[a] - this.step[b] || a - b);
    for (const name of ["step", "end", "low", "high", "last", "count", "bad"]) this[name] = order.map((i) => this[name][i]);
    this.sorted = true;
  }

  // Join neighbours into rows of at most `size` points.
  pack(size) {
    this.sort();
    const old = { ...this };
    this.clear();
    let i = 0;
    while (i < old.step.length) {
      let low = old.low[i], high = old.high[i], count = old.count[i], bad = old.bad[i], j = i + 1;
      for (; j < old.step.length && count + old.count[j] <= size; j++) {
        low = least(low, old.low[j]); high = most(high, old.high[j]);
        count += old.count[j]; bad += old.bad[j];
      }
      this.step.push(old.step[i]); this.end.push(old.end[j - 1]); this.low.push(low); this.high.push(high);
      this.last.push(old.last[j - 1]); this.count.push(count); this.bad.push(bad);
      i = j;
    }
    this.points = old.points;
  }

  // The row that holds the step, or the nearest one; -1 for an empty curve.
  at(step) {
    let low = 0, high = this.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.end[middle] < step) low = middle + 1; else high = middle;
    }
    return low > 0 && this.step[low] - step > step - this.end[low - 1] ? low - 1 : high;
  }

  // [min, max, number of values that are not finite] between two steps
  extent(from = -Infinity, to = Infinity) {
    let low = NaN, high = NaN, bad = 0;
    for (let i = 0; i < this.length; i++) {
      if (this.end[i] < from || this.step[i] > to) continue;
      low = least(low, this.low[i]); high = most(high, this.high[i]); bad += this.bad[i];
    }
    return [low, high, bad];
  }

  // Exponential mean without the bias of its start. The weight falls by `weight` for each mean distance of two points,
  // so neither the length of the curve nor how finely it was packed changes what is drawn.
  smooth(weight) {
    const n = this.length, out = new Array(n);
    const distance = (this.end[n - 1] - this.step[0]) / Math.max(this.points - 1, 1) || 1;
    let mean = 0, mass = 0, before = this.end[0] ?? 0;
    for (let i = 0; i < n; i++) {
      const keep = weight ** ((this.end[i] - before) / distance), value = this.last[i];
      if (Number.isFinite(value)) {
        mean = mean * keep + value * (1 - weight);
        mass = mass * keep + (1 - weight);
        before = this.end[i];
      }
      out[i] = mass ? mean / mass : NaN;
    }
    return out;
  }
}

const least = (a, b) => (b < a || a !== a ? b : a); // as Math.min, but NaN never wins
const most = (a, b) => (b > a || a !== a ? b : a);

// Lowest, highest and mean of several curves in `cells` equal stretches of steps. A curve counts between its own ends
// only; where none of its rows lies in a stretch, it is taken to run straight.
export function band(curves, from, to, cells = 300) {
  const known = curves.filter((curve) => curve.length), out = { step: [], low: [], high: [], mean: [] };
  if (!known.length) return out;
  for (const curve of known) curve.sort();
  const begin = Math.max(from, Math.min(...known.map((curve) => curve.step[0])));
  const finish = Math.min(to, Math.max(...known.map((curve) => curve.end[curve.length - 1])));
  const rows = known.map((curve) => Math.max(curve.at(begin) - 1, 0)), width = (finish - begin) / cells;
  for (let k = 0; k < cells && (k === 0 || width > 0); k++) {
    const left = begin + k * width, right = left + width;
    let low = NaN, high = NaN, sum = 0, n = 0;
    known.forEach((curve, c) => {
      if (right < curve.step[0] || left > curve.end[curve.length - 1]) return;
      let i = rows[c], found = 0;
      const take = (lowest, highest, last) => {
        low = least(low, lowest); high = most(high, highest);
        if (Number.isFinite(last)) { sum += last; n++; }
        found++;
      };
      for (; i < curve.length && curve.step[i] <= right; i++) if (curve.end[i] >= left) take(curve.low[i], curve.high[i], curve.last[i]);
      rows[c] = Math.max(i - 1, 0);
      if (!found) { const value = between(curve, (left + right) / 2); take(value, value, value); }
    });
    out.step.push(k === 0 ? left : k === cells - 1 ? right : (left + right) / 2);
    out.low.push(low); out.high.push(high); out.mean.push(n ? sum / n : NaN);
  }
  return out;
}

// The last values of a curve joined by straight lines.
function between(curve, step) {
  let i = curve.at(step);
  if (curve.end[i] > step && i > 0) i--;
  const j = Math.min(i + 1, curve.length - 1), width = curve.end[j] - curve.end[i];
  const share = width > 0 ? Math.min(Math.max((step - curve.end[i]) / width, 0), 1) : 0;
  return curve.last[i] + (curve.last[j] - curve.last[i]) * share;
}

// Frames

// A frame: its kind, its number, and its blocks as {header, payload: DataView}.
export function parseFrame(buffer) {
  const view = new DataView(buffer), blocks = [];
  if (view.getUint8(0) !== 1) throw new Error(`frame version ${view.getUint8(0)}`);
  let at = 8;
  for (let left = view.getUint16(2, true); left > 0; left--) {
    const header = view.getUint32(at, true), payload = view.getUint32(at + 4, true);
    const text = new TextDecoder().decode(new Uint8Array(buffer, at + 8, header));
    blocks.push({ header: JSON.parse(text), at: at + 8 + header });
    at += 8 + header + payload;
  }
  return { kind: view.getUint8(1), number: view.getUint32(4, true), blocks, buffer };
}

// The series of a block of points: {metric, first, steps, values}.
export function* points(frame, block) {
  let at = block.at;
  for (const { metric, first, count } of block.header.series) {
    const steps = new Float64Array(frame.buffer, at, count), values = new Float64Array(frame.buffer, at + 8 * count, count);
    at += 16 * count;
    yield { metric, first, steps, values };
  }
}

// The series of a history: {topic, generation, metric, next, fill(curve)}.
export function* histories(frame) {
  for (const block of frame.blocks) {
    const { topic, generation } = block.header;
    let at = block.at;
    const take = (type, n) => {
      const array = planes(frame.buffer, at, type, n);
      at += Math.ceil(array.byteLength / 8) * 8;
      return array;
    };
    for (const series of block.header.series) {
      const { n, whole, marks: m } = series;
      const gaps = take(series.gaps, whole ? n : 2 * n), values = take(series.values, whole ? n : 3 * n);
      const marks = take("u4", 4 * m);
      const fill = (curve) => fillCurve(curve, series, gaps, values, marks);
      yield { topic, generation, metric: series.metric, next: series.next_seq, fill };
    }
  }
}

function fillCurve(curve, { n, count, whole, step, marks: m }, gaps, values, marks) {
  const bad = new Map();
  for (let i = 0; i < m; i++) bad.set(marks[i], marks[m + i] + marks[2 * m + i] + marks[3 * m + i]);
  let at = step;
  for (let i = 0; i < n; i++) {
    if (whole) {
      curve.point((at += gaps[i]), values[i]);
    } else {
      const first = (at += gaps[2 * i]), end = (at += gaps[2 * i + 1]);
      const size = Math.floor(((i + 1) * count) / n) - Math.floor((i * count) / n);
      curve.row(first, end, values[i], values[n + i], values[2 * n + i], size, bad.get(i) ?? 0);
    }
  }
}

const TYPES = { u4: Uint32Array, f4: Float32Array, f8: Float64Array };

// An array that was written by planes: the first bytes of all entries, then the second ones, and so on.
function planes(buffer, at, type, n) {
  const array = new TYPES[type](n), size = array.BYTES_PER_ELEMENT;
  const from = new Uint8Array(buffer, at, n * size), to = new Uint8Array(array.buffer);
  for (let byte = 0; byte < size; byte++) for (let i = 0; i < n; i++) to[i * size + byte] = from[byte * n + i];
  return array;
}
