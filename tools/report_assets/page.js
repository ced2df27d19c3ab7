// Tables that sort, films that play, and the start of all.

function startTable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstChild && head.firstChild.addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = row => { const cell = row.cells[column]; return cell.dataset.key ?? (cell.textContent === "–" ? "" : cell.textContent); };
    const rows = [...body.rows], numbers = rows.every(row => key(row) === "" || isFinite(key(row)));
    const compare = (a, b) => numbers ? a - b : a.localeCompare(b);
    const known = rows.filter(row => key(row) !== "").sort((a, b) => (falling ? -1 : 1) * compare(key(a), key(b)));
    body.append(...known, ...rows.filter(row => key(row) === ""));
  }));
}

// Frames lie side by side in one picture, which is pushed along behind a window.
class FilmPlayer {
  constructor(button) {
    const { frames, width, height, delay } = button.dataset;
    this.button = button; this.frames = +frames; this.delay = +delay; this.shape = [+width, +height]; this.at = 0;
    this.picture = button.querySelector("img");
    this.view = make("span", { class: "view" }, button);
    this.view.append(this.picture);
    this.fit();
    new ResizeObserver(() => this.fit()).observe(button);
    const still = matchMedia("(prefers-reduced-motion: reduce)");
    for (const start of ["pointerenter", "focus"]) button.addEventListener(start, event => { if (!still.matches && event.pointerType !== "touch") this.play(); });
    for (const end of ["pointerleave", "blur"]) button.addEventListener(end, () => { if (!this.pinned) this.stop(); });
    button.addEventListener("click", () => {
      this.pinned = !this.pinned;
      button.setAttribute("aria-pressed", String(this.pinned));
      if (this.pinned) this.play(); else this.stop();
    });
  }

  fit() {
    const [width, height] = this.shape, scale = Math.min(this.button.clientWidth / width, this.button.clientHeight / height);
    this.wide = width * scale;
    this.view.style.width = this.wide + "px"; this.view.style.height = height * scale + "px";
    this.picture.style.width = this.wide * this.frames + "px"; this.picture.style.height = height * scale + "px";
    this.show();
  }

  show() { this.picture.style.transform = `translateX(${-this.wide * this.at}px)`; }

  play() {
    if (this.timer) return;
    this.button.classList.add("plays");
    this.timer = setInterval(() => { this.at = (this.at + 1) % this.frames; this.show(); }, this.delay);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null; this.at = 0;
    this.button.classList.remove("plays");
    this.show();
  }
}

function startMatrix(parent) {
  if (!parent.firstChild && parent.offsetWidth) new Matrix(RUNS[+parent.dataset.run], parent);
}

if (document.getElementById("charts")) startCharts(document.getElementById("charts"));
document.querySelectorAll("table.sortable").forEach(startTable);
document.querySelectorAll("button.film").forEach(button => new FilmPlayer(button));
const matrices = [...document.querySelectorAll(".confusion")];
matrices.forEach(startMatrix);
document.addEventListener("toggle", () => matrices.forEach(startMatrix), true); // those of runs that were folded
