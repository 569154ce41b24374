// The markup of a chart: its frame, an item of its legend, its table of values.

import { EMPTY } from "./lines.js";
import { number } from "./plot.js";

// Fill the element; returns its parts by name.
export function skeleton(chart, stops) {
  const html = `<div class="chart">
      <header class="chart-head"><h3 class="chart-title"></h3><div class="chart-tools">
        <button type="button" class="chart-jump" hidden>Jump to live</button>
        <button type="button" class="chart-fit" data-key="=" data-hint="Fit the chart" hidden>Fit</button>
        <label class="chart-smooth">Smooth <input type="range" min="0" max="${stops}" step="1"> <output></output></label>
        <button type="button" class="chart-log" data-key="l" data-hint="Logarithmic charts" aria-pressed="false">log</button>
        <button type="button" class="chart-astable" aria-expanded="false">Table</button>
        <a class="chart-csv" download>CSV</a>
        <button type="button" class="chart-expand" aria-label="Expand" title="Expand">⤢</button>
      </div></header>
      <div class="chart-body"><div class="chart-plot" tabindex="0" role="img" aria-label="No points yet"></div><p class="chart-empty" hidden></p></div>
      <p class="chart-problem" role="status"></p>
      <ul class="chart-legend"></ul>
      <div class="chart-table" role="region" tabindex="0" aria-label="Values" hidden></div>
      <output class="chart-said"></output></div><dialog class="chart-dialog"></dialog>`;
  chart.replaceChildren(document.createRange().createContextualFragment(html));
  const names = [
    "title", "jump", "fit", "log", "astable", "csv", "expand", "plot", "empty", "problem", "legend", "table", "said", "dialog",
  ];
  const parts = Object.fromEntries(names.map((name) => [name, chart.querySelector(`.chart-${name}`)]));
  parts.box = chart.firstChild;
  parts.table.id = `${chart.id}-table`;
  parts.astable.setAttribute("aria-controls", parts.table.id);
  [parts.smooth, parts.weight] = chart.querySelector(".chart-smooth").children;
  return parts;
}

export function newItem(trial) {
  const item = document.createElement("li");
  item.dataset.line = trial;
  item.innerHTML = `<button type="button"><i></i><span class="chart-label"></span><b></b><small></small></button>`;
  return item;
}

// The numbers behind the drawing, for who cannot see it or wants them exactly.
export function valuesTable(lines, bandLabel) {
  const table = document.createElement("table"), head = table.createTHead().insertRow(), body = table.createTBody();
  for (const name of ["line", "last", "at step", "lowest", "highest", "points", "not finite"]) {
    head.append(Object.assign(document.createElement("th"), { textContent: name, scope: "col", className: name === "line" ? "" : "num" }));
  }
  for (const line of lines) {
    const { curve, next } = line.full ?? { curve: EMPTY, next: 0 }, [low, high, bad] = curve.extent(), row = body.insertRow();
    const label = line.inBand ? `${bandLabel}, ${line.trial}` : line.label;
    row.append(Object.assign(document.createElement("th"), { textContent: label, scope: "row" }));
    const cells = curve.length ? [line.newest.value, line.newest.step, low, high, next, bad] : ["", "", "", "", 0, 0];
    for (const value of cells) Object.assign(row.insertCell(), { textContent: value === "" ? "" : number(value), className: "num" });
  }
  return table;
}
