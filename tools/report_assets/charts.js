"use strict";
// Learning curves. Text goes into the page as text alone; a class c0 to c7 gives an element its colour.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs, SEVERAL = RUNS.length > 1, COLOURS = 8;

function make(name, attributes, parent, text) {
  const drawn = ["svg", "g", "path", "line", "circle", "text", "rect"].includes(name);
  const element = drawn ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const key in attributes) if (attributes[key] != null) element.setAttribute(key, attributes[key]);
  if (text != null) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

const line = (key, label, dash, dots) => ({ key, label, dash, dots });
const PANELS = [
  { title: "Loss", unit: "mean of a clip", smooth: true, lines: [
    line("train.loss", "training", null), line("epoch.val_loss", "test", "6 3", true),
    line("epoch.last_step_val_loss", "test, weights of the last step", "2 3", true)] },
  { title: "Accuracy", unit: "%", factor: 100, top: 100, smooth: true, lines: [
    line("train.top1", "training, top-1", null), line("epoch.val_top1", "test, top-1", "6 3", true),
    line("epoch.val_top5", "test, top-5", "2 3", true),
    line("epoch.last_step_val_top1", "test, top-1, weights of the last step", "8 3 2 3", true)] },
  { title: "Learning rate", unit: "at a step", lines: [line("train.lr", "learning rate", null)] },
  { title: "Speed", unit: "clips a second", smooth: true, lines: [line("train.fps", "speed", null)] },
  { title: "Waiting for data", unit: "% of the time", factor: 100, smooth: true, lines: [line("train.data_wait_share", "waiting", null)] },
  { title: "Gradient norm", unit: "mean, before it is limited", smooth: true, lines: [line("train.gradient_norm", "norm", null)] },
];

function say(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6) return +(value / 1e6).toPrecision(4) + "M";
  if (size >= 1e4) return +(value / 1e3).toPrecision(4) + "k";
  return size < 1e-3 ? value.toExponential(2).replace(/\.?0+e/, "e") : String(+value.toPrecision(4));
}

const exact = value => Number.isInteger(value) ? value.toLocaleString("en") : say(value);

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1, ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(m => m * ten).find(s => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

// Mean over the points before, their weight falling; as TensorBoard's, it begins unbiased.
function smoothed(values, weight) {
  let sum = 0, mass = 0;
  return values.map(value => {
    sum = sum * weight + value * (1 - weight);
    mass = mass * weight + 1 - weight;
    return sum / mass;
  });
}

const AXES = {
  steps: () => 1, epochs: run => 1 / run.epochSteps, clips: run => run.stepClips,
};
const view = { axis: "steps", smoothing: 0, log: false, hidden: new Set() };

function visibleCurves(panel) {
  const found = [];
  RUNS.forEach((run, place) => {
    if (SEVERAL && view.hidden.has("run " + place)) return;
    panel.lines.forEach((own, number) => {
      const series = run.series[own.key];
      if (!series || view.hidden.has(panel.title + " " + own.key)) return;
      const factor = panel.factor || 1, of = values => values && values.map(value => value * factor);
      const raw = of(series.y), smooth = panel.smooth && !own.dots && view.smoothing > 0;
      found.push({ ...own, run, place, raw, smooth, x: series.x.map(x => x * AXES[view.axis](run)),
        y: smooth ? smoothed(raw, view.smoothing) : raw, low: of(series.lo), high: of(series.hi),
        colour: "c" + (SEVERAL ? place : number) % COLOURS, dash: SEVERAL || own.dots ? own.dash : null });
    });
  });
  return found;
}

class Chart {
  constructor(panel, parent) {
    this.panel = panel;
    const figure = make("figure", {}, parent), title = make("figcaption", {}, figure, panel.title + " ");
    make("span", {}, title, panel.unit);
    this.keys = make("div", { class: "keys" }, figure);
    this.plot = make("div", { class: "plot", tabindex: 0, role: "group",
      "aria-label": panel.title + ", " + panel.unit + ": a chart. The arrow keys read its values." }, figure);
    this.tip = make("div", { class: "tip", role: "status", hidden: "" }, this.plot);
    for (const kind of ["pointermove", "pointerdown"])
      this.plot.addEventListener(kind, event => this.point(event.clientX - this.plot.getBoundingClientRect().left));
    this.plot.addEventListener("pointerleave", () => this.leave());
    this.plot.addEventListener("blur", () => this.leave());
    this.plot.addEventListener("keydown", event => this.key(event));
    this.legend();
  }

  legend() {
    const lines = this.panel.lines.map((own, number) => [own, number]).filter(([own]) => RUNS.some(run => run.series[own.key]));
    if (lines.length < 2) return;
    lines.forEach(([own, number]) => addKey(this.keys, own.label, SEVERAL ? "c7" : "c" + number, own.dash, own.dots,
      this.panel.title + " " + own.key));
  }

  draw() {
    const width = this.plot.clientWidth, height = this.plot.clientHeight || 250;
    if (this.svg) this.svg.remove();
    this.svg = make("svg", { "aria-hidden": "true", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
    this.plot.prepend(this.svg);
    this.curves = visibleCurves(this.panel);
    const xs = this.curves.flatMap(curve => [curve.x[0], curve.x[curve.x.length - 1]]);
    this.log = view.log && this.panel.title !== "Accuracy" && this.panel.title !== "Waiting for data";
    let values = this.curves.flatMap(curve => curve.raw.concat(curve.low || [], curve.high || []));
    if (this.log) values = values.filter(value => value > 0);
    const most = values.reduce((a, b) => Math.max(a, b), 0), least = values.reduce((a, b) => Math.min(a, b), Infinity);
    this.right = Math.max(...xs, 0) || 1;
    this.top = this.panel.top || (most > 0 ? most * (this.log ? 1.3 : 1.05) : 1);
    this.bottom = this.log ? (isFinite(least) ? least / 1.3 : this.top / 10) : Math.min(0, least);
    this.box = { left: 52, right: width - 10, top: 8, bottom: height - 38 };
    this.axes();
    this.curves.forEach(curve => this.curve(curve));
  }

  px(x) { return this.box.left + (this.box.right - this.box.left) * x / this.right; }

  py(y) {
    const scale = value => this.log ? Math.log(Math.max(value, this.bottom)) : value;
    const share = (scale(y) - scale(this.bottom)) / (scale(this.top) - scale(this.bottom) || 1);
    return this.box.bottom - (this.box.bottom - this.box.top) * share;
  }

  axes() {
    const { left, right, top, bottom } = this.box;
    let rows = ticks(this.bottom, this.top, 5);
    if (this.log) {
      rows = [];
      for (let e = Math.floor(Math.log10(this.bottom)); e <= Math.log10(this.top); e++) rows.push(10 ** e, 2 * 10 ** e, 5 * 10 ** e);
      rows = rows.filter(y => y >= this.bottom && y <= this.top);
      if (rows.length > 8) rows = rows.filter(y => Math.abs(Math.log10(y) % 1) < 1e-9);
    }
    for (const y of rows) {
      make("line", { class: "gridline", x1: left, x2: right, y1: this.py(y), y2: this.py(y) }, this.svg);
      make("text", { x: left - 7, y: this.py(y) + 4, "text-anchor": "end" }, this.svg, say(y));
    }
    const columns = ticks(0, this.right, Math.max(2, Math.min(8, Math.floor((right - left) / 75))));
    for (const x of columns.filter(x => view.axis === "epochs" || Number.isInteger(x))) {
      make("line", { class: "gridline", x1: this.px(x), x2: this.px(x), y1: top, y2: bottom }, this.svg);
      make("text", { x: this.px(x), y: bottom + 17, "text-anchor": "middle" }, this.svg, this.right >= 1e4 && x ? say(x / 1e3) + "k" : say(x));
    }
    make("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }, this.svg);
    make("text", { x: right, y: bottom + 33, "text-anchor": "end" }, this.svg, view.axis);
    if (!this.curves.length) make("text", { x: (left + right) / 2, y: (top + bottom) / 2, "text-anchor": "middle" }, this.svg, "nothing to show");
  }

  path(xs, ys) {
    return xs.map((x, i) => (i ? "L" : "M") + this.px(x).toFixed(1) + " " + this.py(ys[i]).toFixed(1)).join("");
  }

  curve(curve) {
    const group = make("g", { class: curve.colour }, this.svg);
    if (curve.low) {
      const back = this.path(curve.x.slice().reverse(), curve.low.slice().reverse()).replace("M", "L");
      make("path", { class: "band", d: this.path(curve.x, curve.high) + back + "Z" }, group);
    }
    if (curve.smooth) make("path", { class: "curve raw", d: this.path(curve.x, curve.raw) }, group);
    make("path", { class: "curve", "stroke-dasharray": curve.dash, d: this.path(curve.x, curve.y) }, group);
    if (curve.dots && curve.x.length <= 60 || curve.x.length === 1)
      curve.x.forEach((x, i) => make("circle", { class: "dot", cx: this.px(x), cy: this.py(curve.y[i]), r: 3.2 }, group));
  }

  point(left) { this.show((left - this.box.left) / (this.box.right - this.box.left) * this.right); }

  // The values at the point of any curve that is nearest to x.
  show(x) {
    if (!this.curves.length) return;
    const near = curve => {
      let a = 0, b = curve.x.length - 1;
      while (b - a > 1) { const m = (a + b) >> 1; if (curve.x[m] < x) a = m; else b = m; }
      return Math.abs(curve.x[a] - x) <= Math.abs(curve.x[b] - x) ? a : b;
    };
    const found = this.curves.map(curve => [curve, near(curve)]);
    const [first, place] = found.reduce((a, b) => Math.abs(b[0].x[b[1]] - x) < Math.abs(a[0].x[a[1]] - x) ? b : a);
    this.at = first.x[place];
    this.clear();
    this.marks = make("g", {}, this.svg);
    make("line", { class: "cross", x1: this.px(this.at), x2: this.px(this.at), y1: this.box.top, y2: this.box.bottom }, this.marks);
    make("div", { class: "quiet" }, this.tip, `${view.axis} ${exact(this.at)}`);
    for (const [curve, i] of found) {
      make("circle", { class: "dot " + curve.colour, cx: this.px(curve.x[i]), cy: this.py(curve.y[i]), r: 4 }, this.marks);
      const row = make("div", {}, this.tip);
      make("span", { class: "swatch " + curve.colour }, row);
      make("span", {}, row, (SEVERAL ? curve.run.name + (this.panel.lines.length > 1 ? ", " + curve.label : "") : curve.label)
        + (curve.x[i] === this.at ? "" : " at " + exact(curve.x[i])));
      make("b", {}, row, say(curve.y[i]));
    }
    this.tip.hidden = false;
    const room = this.plot.clientWidth - this.tip.offsetWidth, wanted = this.px(this.at) + 14;
    this.tip.style.left = Math.max(0, wanted <= room ? wanted : Math.min(room, wanted - 28 - this.tip.offsetWidth)) + "px";
  }

  clear() {
    this.tip.replaceChildren();
    if (this.marks) this.marks.remove();
  }

  leave() { this.clear(); this.tip.hidden = true; this.at = null; }

  key(event) {
    const to = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (to === undefined || !this.curves.length) return;
    event.preventDefault();
    const points = [...new Set(this.curves.flatMap(curve => curve.x))].sort((a, b) => a - b);
    const place = this.at == null ? (to > 0 ? -1 : points.length) : points.indexOf(this.at);
    this.show(points[Math.max(0, Math.min(points.length - 1, place + to))]);
  }
}

// A legend's entry, which shows and hides what it names.
function addKey(parent, label, colour, dash, dots, name) {
  const button = make("button", { class: "key", type: "button", "aria-pressed": "true" }, parent);
  const sample = make("svg", { class: colour, viewBox: "0 0 26 10", "aria-hidden": "true" }, button);
  make("path", { class: "curve", d: "M0 5H26", "stroke-dasharray": dash }, sample);
  if (dots) make("circle", { class: "dot", cx: 13, cy: 5, r: 3.2 }, sample);
  make("span", {}, button, label);
  button.addEventListener("click", () => {
    const hide = !view.hidden.delete(name);
    if (hide) view.hidden.add(name);
    button.setAttribute("aria-pressed", String(!hide));
    drawCharts();
  });
}

let charts = [];
const drawCharts = () => charts.forEach(chart => { chart.leave(); chart.draw(); });

function startCharts(parent) {
  const tools = make("div", { class: "tools" }, parent);
  if (SEVERAL) {
    const keys = make("div", { class: "keys" }, parent);
    RUNS.forEach((run, place) => addKey(keys, run.name, "c" + place % COLOURS, null, false, "run " + place));
  }
  const axes = ["steps"].concat(RUNS.every(run => run.epochSteps) ? ["epochs"] : [], RUNS.every(run => run.stepClips) ? ["clips"] : []);
  const axis = make("select", {}, make("label", {}, tools, "along "));
  axes.forEach(name => make("option", { value: name }, axis, name));
  axis.addEventListener("change", () => { view.axis = axis.value; drawCharts(); });
  const points = Math.max(0, ...RUNS.map(run => run.series["train.loss"] ? run.series["train.loss"].x.length : 0));
  view.smoothing = points > 80 ? 0.8 : points > 25 ? 0.5 : 0;
  const label = make("label", {}, tools, "training curves smoothed ");
  const range = make("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: view.smoothing }, label);
  range.addEventListener("input", () => { view.smoothing = +range.value; drawCharts(); });
  const log = make("input", { type: "checkbox" });
  make("label", {}, tools).append(log, "logarithmic, but for percentages");
  log.addEventListener("change", () => { view.log = log.checked; drawCharts(); });
  const grid = make("div", { class: "charts" }, parent);
  charts = PANELS.filter(panel => panel.lines.some(own => RUNS.some(run => run.series[own.key]))).map(panel => new Chart(panel, grid));
  const longest = Math.max(0, ...RUNS.flatMap(run => Object.values(run.series).map(series => series.n)));
  if (longest > 600) make("p", { class: "quiet" }, parent, `Of ${longest.toLocaleString("en")} points, neighbours are drawn as their mean, in a band from the lowest to the highest of them.`);
  drawCharts();
  new ResizeObserver(drawCharts).observe(parent);
}
