// The confusion matrix: a row for each true class, a column for each answer. The canvas is as large as its box and is
// drawn anew as that scrolls, so that the names stay in sight and a thousand classes weigh little.

const ORDERS = [["label", "as numbered"], ["name", "by name"], ["worst", "lowest accuracy first"], ["alike", "confused classes side by side"]];

function whenColoursChange(draw) {
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", draw);
}

class Matrix {
  constructor(run, parent) {
    this.names = run.classes;
    this.size = this.names.length;
    this.rows = this.names.map(() => new Map());
    for (const [row, column, count] of run.cells) this.rows[row].set(column, count);
    this.totals = this.rows.map(row => [...row.values()].reduce((a, b) => a + b, 0));
    this.right = this.rows.map((row, label) => this.totals[label] ? (row.get(label) || 0) / this.totals[label] : 1);
    this.order = this.names.map((_, label) => label);
    this.build(parent);
    this.draw();
    new ResizeObserver(() => this.draw()).observe(parent);
    whenColoursChange(() => this.draw());
  }

  build(parent) {
    this.parent = parent;
    const tools = make("div", { class: "tools" }, parent);
    const order = make("select", {}, make("label", {}, tools, "order "));
    ORDERS.forEach(([value, text]) => make("option", { value }, order, text));
    order.addEventListener("change", () => { this.sort(order.value); this.draw(); });
    const zoom = make("input", { type: "range", min: 3, max: 40, step: 1 }, make("label", {}, tools, "size "));
    zoom.addEventListener("input", () => { this.cell = +zoom.value; this.draw(); });
    const find = make("input", { type: "search", placeholder: "class name" }, make("label", {}, tools, "find "));
    find.addEventListener("input", () => this.find(find.value));
    this.legend(make("span", { class: "scale" }, tools));
    this.read = make("p", { class: "read", role: "status" }, parent, "Rows are the true classes, columns the answers. Point at a cell, or use the arrow keys.");
    this.box = make("div", { class: "matrix", tabindex: 0, role: "group", "aria-label":
      `Confusion matrix of ${this.size} classes. The arrow keys go from cell to cell; the most frequent confusions are in the table below it.` }, parent);
    this.room = make("div", { class: "room" }, this.box);
    this.canvas = make("canvas", { "aria-hidden": "true" }, this.room);
    this.cell = 10;
    this.cell = Math.floor(Math.max(this.size > 250 ? 4 : 9, Math.min(36, (parent.clientWidth - 4 - this.gutter()) / this.size)));
    zoom.value = this.cell;
    this.box.addEventListener("scroll", () => this.draw());
    this.canvas.addEventListener("pointermove", event => this.point(event));
    this.canvas.addEventListener("pointerdown", event => this.point(event));
    this.box.addEventListener("keydown", event => this.key(event));
  }

  legend(parent) {
    make("span", {}, parent, "0");
    const canvas = make("canvas", { width: 153, height: 14, "aria-hidden": "true" }, parent), context = canvas.getContext("2d");
    const paint = () => {
      context.clearRect(0, 0, 153, 14);
      this.shades().forEach((shades, wrong) => shades.forEach((shade, i) => {
        context.fillStyle = shade;
        context.fillRect(3 * i, 7 * wrong, 3, 7);
      }));
    };
    paint();
    whenColoursChange(paint);
    make("span", {}, parent, "100 % of a class: right above, wrong below");
  }

  // Of right answers and of wrong ones, the colours of shares from 0 to 1.
  shades() {
    const style = getComputedStyle(document.documentElement);
    return ["--right", "--wrong"].map(name => style.getPropertyValue(name)).map(rgb =>
      Array.from({ length: 51 }, (_, i) => `rgba(${rgb}, ${0.12 + 0.88 * (i / 50) ** 0.6})`));
  }

  // The letters of the names, and the room that these need beside the cells, in pixels.
  letters() { return Math.min(13, Math.max(8.5, this.cell - 0.5)); }

  gutter() {
    const c = this.canvas.getContext("2d");
    c.font = "100px system-ui, sans-serif";
    this.longest = this.longest || Math.max(...this.names.map(name => c.measureText(name).width)) / 100;
    return Math.round(Math.max(108, Math.min(190, this.parent.clientWidth * 0.34, 18 + this.longest * this.letters())));
  }

  sort(how) {
    const labels = this.names.map((_, label) => label);
    if (how === "name") labels.sort((a, b) => this.names[a].localeCompare(this.names[b]));
    if (how === "worst") labels.sort((a, b) => this.right[a] - this.right[b] || a - b);
    this.order = how === "alike" ? this.chain(labels) : labels;
    this.at = null;
  }

  // From the class that is confused most, always on to the one that is confused most with any of the last three.
  chain(labels) {
    const share = (a, b) => (this.rows[a].get(b) || 0) / (this.totals[a] || 1) + (this.rows[b].get(a) || 0) / (this.totals[b] || 1);
    const left = new Set(labels.sort((a, b) => this.right[a] - this.right[b])), found = [];
    while (left.size) {
      let next = null, most = 0;
      for (const other of left) {
        const weight = found.slice(-3).reduce((sum, own, i) => sum + share(own, other) * (i + 1), 0);
        if (weight > most) { most = weight; next = other; }
      }
      if (next === null) next = left.values().next().value;
      left.delete(next);
      found.push(next);
    }
    return found;
  }

  find(text) {
    this.wanted = text.trim().toLowerCase();
    const place = this.wanted ? this.order.findIndex(label => this.names[label].toLowerCase().includes(this.wanted)) : -1;
    if (place >= 0) this.go(place, place); else this.draw();
  }

  draw() {
    const room = this.gutter(), side = room + this.size * this.cell + 2;
    this.room.style.width = this.room.style.height = side + "px";
    const ratio = window.devicePixelRatio || 1;
    const width = Math.min(this.box.clientWidth, side), height = Math.min(this.box.clientHeight, side);
    this.canvas.width = width * ratio; this.canvas.height = height * ratio;
    this.canvas.style.width = width + "px"; this.canvas.style.height = height + "px";
    const c = this.context = this.canvas.getContext("2d");
    c.scale(ratio, ratio);
    const style = getComputedStyle(this.box);
    this.ink = style.color; this.back = style.backgroundColor;
    this.colours = this.shades();
    const from = offset => Math.max(0, Math.floor(offset / this.cell)), until = (offset, space) => Math.min(this.size, Math.ceil((offset + space) / this.cell));
    this.seen = { x: this.box.scrollLeft, y: this.box.scrollTop, room, width, height };
    const rows = [from(this.seen.y), until(this.seen.y, height - room)], columns = [from(this.seen.x), until(this.seen.x, width - room)];
    c.save();
    c.beginPath(); c.rect(room, room, width, height); c.clip();
    this.cells(c, rows, columns);
    c.restore();
    this.labels(c, rows, columns);
  }

  left(place) { return this.seen.room + place * this.cell - this.seen.x; }
  above(place) { return this.seen.room + place * this.cell - this.seen.y; }

  cells(c, rows, columns) {
    const gap = this.cell >= 8 ? 1 : 0, numbers = this.cell >= 18;
    c.font = `${Math.min(13, this.cell * 0.45)}px system-ui, sans-serif`; c.textAlign = "center"; c.textBaseline = "middle";
    for (let row = rows[0]; row < rows[1]; row++) {
      const label = this.order[row], own = this.rows[label];
      if (gap) { c.fillStyle = "rgba(128, 136, 148, 0.09)"; c.fillRect(this.left(0), this.above(row), this.size * this.cell, this.cell - gap); }
      for (let column = columns[0]; column < columns[1]; column++) {
        const answer = this.order[column], count = own.get(answer);
        if (!count) continue;
        const share = count / this.totals[label];
        c.fillStyle = this.colours[answer === label ? 0 : 1][Math.round(share * 50)];
        c.fillRect(this.left(column), this.above(row), this.cell - gap, this.cell - gap);
        if (!numbers) continue;
        c.fillStyle = share > 0.45 ? this.back : this.ink;
        c.fillText(count, this.left(column) + this.cell / 2, this.above(row) + this.cell / 2, this.cell - 2);
      }
    }
    if (this.at) {
      c.strokeStyle = this.ink; c.lineWidth = 1.5;
      c.strokeRect(this.left(this.at[1]) - 1, this.above(this.at[0]) - 1, this.cell + 1, this.cell + 1);
    }
  }

  labels(c, rows, columns) {
    const { room, width, height } = this.seen, size = this.letters(), every = this.cell >= 8 ? 1 : 0;
    c.font = `${size}px system-ui, sans-serif`; c.textBaseline = "middle";
    const strong = (place, side) => this.at && this.at[side] === place || this.wanted && this.names[this.order[place]].toLowerCase().includes(this.wanted);
    const write = (place, side, x, y, turn) => {
      const marked = strong(place, side);
      if (!every && !marked) return;
      c.save();
      c.translate(x, y);
      if (turn) c.rotate(-Math.PI / 2);
      c.font = `${marked ? "700 " : ""}${every ? size : 12}px system-ui, sans-serif`;
      c.fillStyle = this.ink; c.globalAlpha = marked || !this.at ? 1 : 0.72; c.textAlign = turn ? "left" : "right";
      c.fillText(shortened(c, this.names[this.order[place]], room - 10), 0, 0);
      c.restore();
    };
    c.save(); c.beginPath(); c.rect(0, room, room, height); c.clip();
    for (let row = rows[0]; row < rows[1]; row++) write(row, 0, room - 6, this.above(row) + this.cell / 2, false);
    c.restore();
    c.save(); c.beginPath(); c.rect(room, 0, width, room); c.clip();
    for (let column = columns[0]; column < columns[1]; column++) write(column, 1, this.left(column) + this.cell / 2, room - 6, true);
    c.restore();
    c.font = "12px system-ui, sans-serif"; c.fillStyle = this.ink; c.globalAlpha = 0.75; c.textAlign = "right";
    c.fillText("true ↓  answer →", room - 6, room - 12, room - 8);
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect(), { room, x, y } = this.seen;
    const left = event.clientX - box.left, top = event.clientY - box.top;
    const column = Math.floor((left - room + x) / this.cell), row = Math.floor((top - room + y) / this.cell);
    if (left < room && top >= room && row < this.size) this.select(row, row);
    else if (left >= room && top < room && column < this.size) this.select(column, column);
    else if (left >= room && top >= room && column < this.size && row < this.size) this.select(row, column);
  }

  key(event) {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const inside = value => Math.max(0, Math.min(this.size - 1, value)), at = this.at || [0, -1];
    this.go(inside(at[0] + move[0]), inside(at[1] + move[1]));
  }

  go(row, column) {
    const { room, width, height } = this.seen, near = (value, offset, space) =>
      value < offset ? value : value + this.cell > offset + space ? value + this.cell - space : offset;
    this.box.scrollLeft = near(column * this.cell, this.box.scrollLeft, width - room);
    this.box.scrollTop = near(row * this.cell, this.box.scrollTop, height - room);
    this.select(row, column);
  }

  select(row, column) {
    if (this.at && this.at[0] === row && this.at[1] === column) return;
    this.at = [row, column];
    const label = this.order[row], answer = this.order[column], count = this.rows[label].get(answer) || 0, total = this.totals[label];
    const share = total ? ` of ${total} videos, ${(100 * count / total).toFixed(1)} %` : " videos";
    this.read.replaceChildren();
    make("b", {}, this.read, this.names[label]);
    this.read.append(answer === label ? " answered rightly: " : " taken for ");
    if (answer !== label) { make("b", {}, this.read, this.names[answer]); this.read.append(": "); }
    this.read.append(count + share + ".");
    const others = [...this.rows[label]].filter(([other]) => other !== label).sort((a, b) => b[1] - a[1]).slice(0, 5);
    if (answer === label && others.length) this.read.append(" Else taken for " + others.map(([other, times]) => `${this.names[other]} (${times})`).join(", ") + ".");
    this.draw();
  }
}

function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let keep = text.length;
  while (keep > 1 && context.measureText(text.slice(0, keep) + "…").width > width) keep--;
  return text.slice(0, keep) + "…";
}
