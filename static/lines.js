// One trial in one chart: it reads what its history and the live path bring, in any order, each point once.

import { Curve } from "./curves.js";

export const EMPTY = new Curve();
const lab = (window.lab ??= {});

// Points of a series as far as they were read; `next` is the first one that was not.
class Track {
  curve = new Curve();

  constructor(next, from = -Infinity, to = Infinity) { Object.assign(this, { next, from, to }); }

  // False where points are missing in between.
  add(first, steps, values) {
    for (let i = Math.max(this.next - first, 0); i < steps.length; i++) {
      if (steps[i] >= this.from && steps[i] <= this.to) this.curve.point(steps[i], values[i]);
    }
    const whole = first <= this.next;
    this.next = Math.max(this.next, first + steps.length);
    return whole;
  }
}

// One trial in one chart: a line, or a part of the band. It listens to the live path.
export class Line {
  full = null; // Track of all of it, once its history was read
  cut = null; // Track of what the chart is zoomed to
  recent = []; // frames that came while a history is on its way
  asking = 0;
  at = 0; // when the newest point came
  state = "";

  constructor(chart, trial) {
    Object.assign(this, { chart, trial, topic: `trial:${trial}`, metric: chart.spec.metric });
    lab.live.listen(this);
  }

  get next() { return this.full?.next; }
  get curve() { return (this.cut ?? this.full)?.curve ?? EMPTY; }
  get newest() {
    const curve = this.full?.curve ?? EMPTY;
    return { step: curve.end[curve.length - 1], value: curve.last[curve.length - 1] };
  }

  points(first, steps, values) {
    if (first + steps.length > this.next) this.at = performance.now();
    this.state = "";
    if (this.asking) this.recent.push([first, steps, values]);
    if (this.full?.add(first, steps, values) === false) this.chart.load([this]);
    this.cut?.add(first, steps, values);
    this.chart.later();
  }

  restart(generation) {
    this.generation = generation;
    this.recent = [];
    this.full = new Track(0);
    this.cut = this.cut && new Track(0, this.cut.from, this.cut.to);
    this.chart.later();
  }

  over(state) { this.state = state; this.chart.later(); }
  poll() { if (this.live) this.chart.poll(); }

  // A history was read: what streamed in meanwhile is added. False: it is older than what is here.
  read(generation, history, zoom) {
    if (generation < this.generation) return false;
    const track = new Track(history?.next ?? 0, zoom?.from ?? undefined, zoom?.to ?? undefined);
    history?.fill(track.curve);
    if (generation > this.generation) this.recent = [];
    this.generation = generation;
    for (const frame of this.recent) track.add(...frame);
    if (zoom) this.cut = track; else this.full = track;
    return zoom || !this.live || lab.live.follow(this);
  }

  // How fresh it is, in words.
  get age() {
    if (this.state && this.state !== "ended") return this.state;
    if (!this.live || this.state) return "ended";
    if (!this.at) return "live";
    const seconds = Math.round((performance.now() - this.at) / 1000);
    return seconds < 2 ? "live" : `last point ${seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`} ago`;
  }
}
