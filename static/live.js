// The live path in the browser (docs/decisions/0007): one websocket a tab. It carries points to the charts and says
// which topics have news; the fragments of a page that name such a topic then fetch themselves again by htmx.
// Whatever was missed while the socket was away is asked for by number when it is back.

import { parseFrame, points } from "./curves.js";

const PING = 4000, LATE = 5000, LOST = 30000, ANSWER = 12000, LASTS = 3000; // ms
const POLL = 10000; // without websockets
const LOOK = 250; // between two looks for regions that ask by themselves
const now = () => performance.now();
const jitter = (ms) => ms * (0.5 + Math.random() / 2);

class Live extends EventTarget {
  socket = null;
  paused = false;
  #seq = Number(document.body.dataset.seq) || 0; // the newest event this page knows
  #failed = 0; // sockets in a row that did not last
  #opened = Infinity;
  #heard = 0; // when anything last came
  #asked = 0; // when the oldest unanswered ping was sent
  #gone = now(); // since when there is no socket
  #retry = 0;
  #pings = 0;
  #why = "connecting";
  #sent = {}; // what the server was told last, by kind of message
  #streams = new Set(); // topics of trials that the server was asked for
  #trials = new Map(); // topic -> {generation, series: {metric: {next, got}}, listeners}

  constructor() {
    super();
    if (!document.getElementById("freshness")) return; // nobody is signed in
    this.connect();
    addEventListener("online", () => this.connect());
    addEventListener("pageshow", (event) => event.persisted && this.connect());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.connect();
      this.#ping();
    });
    setInterval(() => this.#tick(), 1000);
    setInterval(() => this.polling && this.#poll(), POLL);
    setInterval(() => { for (const region of regions.values()) region.look(); }, LOOK);
  }

  // The socket

  connect() {
    clearTimeout(this.#retry);
    if (this.socket && this.socket.readyState <= WebSocket.OPEN) return;
    const address = new URL("/ws/", location);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = (this.socket = new WebSocket(address));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#asked = 0;
      this.#heard = this.#opened = now();
      this.#sent = {};
      this.#streams.clear();
      this.#tell();
      this.#tick();
    };
    socket.onmessage = ({ data }) => {
      this.#heard = now();
      this.#asked = 0;
      if (typeof data === "string") this.#hear(JSON.parse(data));
      else this.#receive(data);
    };
    socket.onclose = ({ code }) => this.#lost(socket, code);
  }

  #lost(socket, code) {
    if (socket !== this.socket) return;
    if (code === 4401) return signIn();
    if (this.#heard > this.#gone) this.#gone = now(); // it had been open
    this.socket = null;
    this.#failed = now() - this.#opened > LASTS ? 1 : this.#failed + 1;
    this.#opened = Infinity;
    this.#why = code === 4403 ? "the server takes this page for another site" : `the connection was lost (${code})`;
    this.#retry = setTimeout(() => this.connect(), jitter(Math.min(250 * 2 ** (this.#failed - 1), 5000)));
    this.#tick();
  }

  get open() { return this.socket?.readyState === WebSocket.OPEN; }
  get polling() { return !this.open && this.#failed >= 2; }

  #say(message) { if (this.open) this.socket.send(JSON.stringify(message)); }

  // Topics and trials, where they have changed since the server was told.
  #tell = () => {
    const watch = watched(), trials = {};
    for (const [topic, { generation, series, listeners }] of this.#trials) {
      const waiting = [...listeners].filter(({ next }) => next === undefined);
      if (waiting.length === listeners.size) continue;
      // A metric without a cursor would stream from its beginning, so a new trial waits for all its histories.
      if (waiting.some(({ asking }) => asking) && !this.#streams.has(topic)) continue;
      const cursor = Object.fromEntries(Object.entries(series).map(([metric, { next }]) => [metric, next]));
      trials[topic] = { generation, cursor };
    }
    this.#tellOnce("watch", watch.join(), () => ({ watch, since: this.#seq }));
    this.#streams = new Set(Object.keys(trials));
    this.#tellOnce("points", [...this.#streams].sort().join(), () => ({ points: trials }));
  };

  #tellOnce(kind, state, message) {
    if (!this.open || (this.#sent[kind] ?? "") === state) return;
    this.#sent[kind] = state;
    this.#say(message());
  }

  tell = soon(this.#tell);

  #hear(message) {
    if (message.changed) {
      this.#seq = message.seq;
      ring(new Set(message.changed));
    }
    const trial = this.#trials.get(message.restart ?? message.end ?? message.refused);
    if (!trial) return;
    if (message.restart) this.#restart(trial, message.generation);
    else for (const listener of trial.listeners) listener.over?.(message.state ?? message.why);
  }

  #ping() {
    this.#asked ||= now();
    this.#say({ ping: ++this.#pings });
  }

  // Points

  // A listener has topic and metric, hears `points(first, steps, values)`, `restart(generation)`, `over(state)` and
  // `poll()`. It listens before it reads the history, so that nothing falls in between, and follows when it has it.
  listen(listener) {
    if (!this.#trials.has(listener.topic)) this.#trials.set(listener.topic, { series: {}, listeners: new Set() });
    this.#trials.get(listener.topic).listeners.add(listener);
  }

  // History was read up to `listener.next` of `listener.generation`. False: it is older than what streams already.
  follow(listener) {
    const trial = this.#trials.get(listener.topic);
    if (listener.generation < trial.generation) return false;
    if (listener.generation > (trial.generation ?? -1)) this.#restart(trial, listener.generation, listener);
    trial.series[listener.metric] ??= { next: listener.next, got: 0 };
    this.tell();
    return true;
  }

  leave(listener) {
    const trial = this.#trials.get(listener.topic);
    trial?.listeners.delete(listener);
    if (trial && !trial.listeners.size) this.#trials.delete(listener.topic);
    this.tell();
  }

  #restart(trial, generation, except) {
    const first = trial.generation === undefined;
    trial.generation = generation;
    trial.series = {};
    if (!first) for (const listener of trial.listeners) if (listener !== except) listener.restart(generation);
  }

  #receive(buffer) {
    const frame = parseFrame(buffer);
    if (frame.number % 4 === 0) this.#say({ ack: frame.number });
    for (const block of frame.blocks) {
      const { topic, generation } = block.header, trial = this.#trials.get(topic);
      if (!trial || generation < trial.generation) continue;
      if (generation > trial.generation) this.#restart(trial, generation);
      for (const { metric, first, steps, values } of points(frame, block)) {
        const series = (trial.series[metric] ??= { next: 0, got: 0 }), end = first + steps.length;
        if (first > series.next) { this.socket.close(); return; } // a hole: ask again from the cursor
        series.got += Math.max(end - series.next, 0);
        series.next = Math.max(series.next, end);
        for (const listener of trial.listeners) if (listener.metric === metric) listener.points(first, steps, values);
      }
    }
  }

  // Where a trial's stream stands, {metric: {generation, next}}; and how many points of each metric have streamed in.
  received(topic) {
    const { generation, series = {} } = this.#trials.get(topic) ?? {};
    return Object.fromEntries(Object.entries(series).map(([metric, { next }]) => [metric, { generation, next }]));
  }

  points(topic) {
    const { series = {} } = this.#trials.get(topic) ?? {};
    return Object.fromEntries(Object.entries(series).map(([metric, { got }]) => [metric, got]));
  }

  // Freshness

  #poll() {
    ring(null);
    for (const { listeners } of this.#trials.values()) for (const listener of listeners) listener.poll?.();
  }

  #tick() {
    if (this.open && !document.hidden) {
      if (this.#asked && now() - this.#asked > ANSWER) this.socket.close(); // the other end is gone without a word
      else if (!this.#asked && now() - this.#heard > PING - 500) this.#ping();
    }
    const age = now() - (this.#heard || this.#gone), seconds = `${Math.round(age / 1000)} s`;
    let state = "live", text = "live", title = "What you see is up to date";
    if (this.paused) [state, text, title] = ["late", "paused", "Nothing moves until you resume"];
    else if (this.open && age > LATE) [state, text, title] = [age > LOST ? "lost" : "late", seconds, `No answer for ${seconds}`];
    else if (!this.open) {
      state = age > LOST ? "lost" : "late"; text = "reconnecting"; title = `Last heard ${seconds} ago: ${this.#why}`;
      if (this.polling && now() - refreshed < LOST) [state, text] = ["polling", "polling"];
    } else if ([...regions.values()].some((region) => region.tries)) {
      [state, text, title] = ["late", "retrying", "A part of this page could not be fetched; trying again"];
    }
    this.state = state;
    const dot = document.getElementById("freshness");
    if (!dot || document.hidden) return;
    if (dot.textContent !== text) dot.textContent = text;
    dot.dataset.state = state;
    dot.title = title;
  }

  // Hold everything still, or go on; returns whether it is held now.
  pause(on = !this.paused) {
    this.paused = on;
    this.#tick();
    this.dispatchEvent(new Event("pause"));
    if (!on) for (const region of regions.values()) region.offer();
    return on;
  }
}

function signIn() {
  location.assign(`/sign-in/?next=${encodeURIComponent(location.pathname + location.search)}`);
}

// Call at most once in this turn of the event loop.
function soon(call) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    queueMicrotask(() => { waiting = false; call(); });
  };
}

// Fragments: elements with data-live="topic topic". They hear the DOM event `live`, which is their hx-trigger.

const regions = new Map(); // element -> Region
let refreshed = -Infinity; // when a fragment last came

class Region {
  news = 0; // notices since its content was fetched
  visible = false;
  #last = -Infinity;
  #born = now();
  #timer = 0;
  tries = 0;
  #pill = null;

  constructor(element) {
    this.element = element;
    sight.observe(element);
    // Leaving is seen a moment later, so that moving between two of its elements is not taken for it.
    for (const leave of ["pointerleave", "focusout"]) element.addEventListener(leave, () => setTimeout(() => this.offer(), 150));
  }

  get topics() { return this.element.dataset.live.split(/\s+/).filter(Boolean); }
  get held() {
    const { element } = this;
    return "liveHold" in element.dataset && (element.matches(":hover") || element.contains(pointed) || element.contains(document.activeElement) || element.querySelector("[data-hold]") !== null);
  }

  notice() {
    this.news++;
    this.offer();
  }

  // What moves without an event (a reply that streams in) says how often to ask, in ms: data-live-poll. Only while seen.
  look() {
    const every = Number(this.element.dataset.livePoll);
    if (every && this.visible && !document.hidden && !lab.live.paused && now() - Math.max(this.#last, this.#born) >= every) this.notice();
  }

  // Fetch now, or as soon as it is seen, let go of, and due.
  offer() {
    if (!this.news || this.#timer || !this.visible || document.hidden || lab.live.paused) return;
    if (this.held) return this.#showPill();
    const wait = this.#last + (Number(this.element.dataset.liveEvery) || 1000) - now();
    if (wait > 0) this.#again(wait);
    else this.fetch();
  }

  #again(ms) {
    this.#timer = setTimeout(() => { this.#timer = 0; this.offer(); }, ms);
  }

  fetch(forced = false) {
    this.forced = forced;
    this.#last = now();
    this.news = 0;
    this.element.dispatchEvent(new CustomEvent("live"));
  }

  // Before the answer is swapped in: the pointer may have come meanwhile.
  allows() {
    if (this.forced || !this.held) return true;
    this.news ||= 1;
    this.#showPill();
    return false;
  }

  done() {
    this.tries = 0;
    this.#pill?.remove();
    this.#pill = null;
  }

  failed() {
    this.news ||= 1;
    clearTimeout(this.#timer);
    this.#again(jitter(Math.min(1000 * 2 ** this.tries++, 30000)));
  }

  #showPill() {
    if (!this.#pill?.isConnected) {
      this.#pill = document.createElement("button");
      this.#pill.type = "button";
      this.#pill.className = "news-pill";
      this.#pill.onclick = () => {
        this.element.tabIndex = -1;
        this.element.focus({ preventScroll: true });
        this.fetch(true);
      };
      this.element.append(this.#pill);
    }
    this.#pill.textContent = `${this.news} new`;
  }

  stop() {
    clearTimeout(this.#timer);
    sight.unobserve(this.element);
  }
}

// Where the pointer was moved to last: a page that shifts under a pointer at rest does not take it away from there.
let pointed = null;

function point(to) {
  const left = pointed;
  pointed = to;
  for (const [element, region] of left === to ? [] : regions) if (element.contains(left)) setTimeout(() => region.offer(), 150);
}

document.addEventListener("pointermove", ({ target }) => point(target.closest("[data-live-hold]")));
document.documentElement.addEventListener("pointerleave", () => point(null));

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const region = regions.get(target);
    if (!region) continue;
    region.visible = isIntersecting;
    region.offer();
  }
}, { rootMargin: "400px" });

// These topics have news; null: all of them may have.
function ring(topics) {
  for (const region of regions.values()) if (!topics || region.topics.some((topic) => topics.has(topic))) region.notice();
}

function watched() {
  return [...new Set([...regions.values()].flatMap((region) => region.topics))].sort();
}

function collect() {
  for (const [element, region] of regions) {
    if (element.isConnected && "live" in element.dataset) continue;
    region.stop();
    regions.delete(element);
  }
  for (const element of document.querySelectorAll("[data-live]")) {
    if (!regions.has(element)) regions.set(element, new Region(element));
  }
  lab.live?.tell();
}

// htmx tells of its answers on the document.
for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, ({ detail }) => regions.get(detail.elt)?.failed());
}
document.addEventListener("htmx:beforeSwap", (event) => {
  const { elt, xhr, requestConfig } = event.detail; // `elt` is the target; what a person's own form brings is not held back
  if (xhr.responseURL && new URL(xhr.responseURL).pathname.startsWith("/sign-in/")) {
    event.preventDefault(); // the session is over: the answer is the sign-in page
    signIn();
  } else if (requestConfig.elt === elt && regions.get(elt)?.allows() === false) {
    event.preventDefault();
  } else if (xhr.status < 400) {
    refreshed = now();
    regions.get(elt)?.done();
  }
});
document.addEventListener("htmx:afterSettle", collect);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const region of regions.values()) region.offer();
});

// What a person has opened or typed, and what a chart has drawn, is not part of the fragment.
const morph = window.Idiomorph?.defaults;
if (morph) {
  morph.callbacks.beforeAttributeUpdated = (name, node) =>
    !(name === "open" && /^(DETAILS|DIALOG)$/.test(node.nodeName)) && !(name === "tabindex" && node === document.activeElement);
  morph.callbacks.beforeNodeMorphed = (old, fresh) => {
    if (fresh.dataset?.same !== undefined) return false; // the server knows that it says what it said
    if (old === document.activeElement && /^(INPUT|SELECT|TEXTAREA)$/.test(old.nodeName)) return false;
    if (old.localName !== "lab-chart" || fresh.localName !== "lab-chart") return true;
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    return false;
  };
}

const lab = (window.lab ??= {});
collect();
lab.live = new Live();
document.dispatchEvent(new Event("lab:live"));
