// A line chart: series over steps, with marks of generations and epochs, and a cursor that the pointer and keys move.

const margin = { left: 46, right: 10, top: 22, bottom: 34 };

function ticks(low, high, most) {
  const span = high - low || 1;
  let step = 10 ** Math.floor(Math.log10(span / most));
  for (const factor of [2, 2.5, 2]) if (span / step > most) step *= factor;
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) {
    out.push(Number(v.toPrecision(12)));
  }
  return out;
}

class Chart {
  // title: of the chart; format: of its values; floor, ceiling: that the axis never leaves.
  constructor(parent, { title, format, floor, ceiling, moved }) {
    Object.assign(this, { title, format, floor, ceiling, moved, at: null });
    this.svg = drawing("svg", { role: "img", tabindex: 0 });
    parent.append(element("figure", {}, element("figcaption", {}, title), this.svg));
    this.svg.addEventListener("keydown", (e) => this.key(e));
    this.svg.addEventListener("pointermove", (e) => this.point(e));
    this.svg.addEventListener("pointerleave", () => moved(this, null));
  }

  // show draws. series: [{name, style, points: [[step, value, least, most]], from}]; span: [first, last] step. A point
  // may stand for steps before it: the first one for those since from.
  show(series, span, marks) {
    this.series = series.filter((s) => s.points.length > 0);
    this.span = span;
    this.marks = marks;
    this.draw();
  }

  limits() {
    let low = Infinity, high = -Infinity;
    for (const s of this.series) {
      for (const p of s.points) {
        low = Math.min(low, p[1]);
        high = Math.max(high, p[1]);
      }
    }
    if (low > high) return [0, 1];
    const pad = (high - low || Math.abs(high) || 1) * 0.06;
    return [Math.max(this.floor ?? -Infinity, low - pad), Math.min(this.ceiling ?? Infinity, high + pad)];
  }

  draw() {
    const width = this.svg.clientWidth || 600, height = this.svg.clientHeight || 240;
    const [low, high] = this.limits(), [first, last] = this.span;
    const right = width - margin.right, bottom = height - margin.bottom;
    this.x = (step) => margin.left + ((step - first) / (last - first || 1)) * (right - margin.left);
    this.y = (v) => bottom - ((Math.min(high, Math.max(low, v)) - low) / (high - low || 1)) * (bottom - margin.top);
    const parts = [...this.axes(low, high, right, bottom), ...this.generations(bottom)];
    for (const s of this.series) parts.push(...this.line(s));
    if (this.at !== null) {
      const x = this.x(this.at);
      parts.push(drawing("line", { class: "cross", x1: x, x2: x, y1: margin.top, y2: bottom }));
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", this.summary());
    this.svg.replaceChildren(...parts);
  }

  axes(low, high, right, bottom) {
    const parts = [];
    for (const v of ticks(low, high, 5)) {
      parts.push(drawing("line", { class: "axis", x1: margin.left, x2: right, y1: this.y(v), y2: this.y(v) }),
        drawing("text", { x: margin.left - 5, y: this.y(v) + 4, "text-anchor": "end" }, this.format(v)));
    }
    const across = Math.max(2, Math.floor((right - margin.left) / 55));
    for (const v of ticks(this.span[0], this.span[1], across)) {
      if (!Number.isInteger(v)) continue;
      parts.push(drawing("text", { x: this.x(v), y: bottom + 14, "text-anchor": "middle" }, short(v, 6)));
    }
    parts.push(drawing("text", { x: right, y: bottom + 29, "text-anchor": "end" }, "step"));
    return parts.concat(this.epochs(right, bottom));
  }

  // epochs marks where some epochs end: as many as have room, beside the word "step".
  epochs(right, bottom) {
    const each = model.job.steps_per_epoch, parts = [];
    if (!each) return parts;
    const [first, last] = this.span;
    const some = Math.max(1, Math.round(((last - first) / each) * (50 / (right - margin.left))));
    for (let epoch = some * Math.ceil(first / each / some); epoch * each <= last; epoch += some) {
      if (epoch === 0) continue;
      const x = this.x(epoch * each);
      parts.push(drawing("line", { class: "epoch", x1: x, x2: x, y1: margin.top, y2: bottom }));
      if (x > right - 45) continue;
      parts.push(drawing("text", { x, y: bottom + 29, "text-anchor": "middle" }, "e" + epoch));
    }
    return parts;
  }

  generations(bottom) {
    const parts = [];
    let before = -Infinity;
    for (const w of this.marks) {
      const x = this.x(w.step + 0.5), kind = kindOf(w);
      if (w.step < this.span[0] - 1 || x - before < 4 && kind === "same") continue;
      before = x;
      parts.push(drawing("g", { class: "mark " + kind, "data-generation": w.generation },
        drawing("title", {}, `generation ${w.generation}: ${changeText(w)}`),
        drawing("line", { x1: x, x2: x, y1: margin.top, y2: bottom }),
        drawing("text", { x, y: margin.top - 6 }, symbols[kind])));
    }
    return parts;
  }

  line(s) {
    const edge = (list, i) => list.map((p) => this.x(p[0]).toFixed(1) + " " + this.y(p[i]).toFixed(1)).join("L");
    const parts = [drawing("path", { class: "curve " + s.style, d: "M" + edge(s.points, 1) })];
    if (s.points[0].length > 2) {
      const d = "M" + edge(s.points, 3) + "L" + edge([...s.points].reverse(), 2) + "Z";
      parts.unshift(drawing("path", { class: "band " + s.style, d }));
    }
    if (s.points.length <= 40) {
      for (const p of s.points) {
        parts.push(drawing("circle", { class: "dot " + s.style, cx: this.x(p[0]), cy: this.y(p[1]), r: 2.5 }));
      }
    }
    return parts;
  }

  // nearest is the point of a series at a step, or before it.
  nearest(s, step) {
    let low = 0, high = s.points.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (s.points[middle][0] <= step) low = middle;
      else high = middle - 1;
    }
    return s.points[low];
  }

  words(step) {
    return this.series.map((s) => {
      const p = this.nearest(s, step), begun = Math.min(p[0], s.from ?? p[0]) <= step;
      return begun || s.points.length === 1 ? `${s.name} ${this.format(p[1], true)}` : "";
    }).filter(Boolean).join(", ");
  }

  summary() {
    const ends = this.series.map((s) => `${s.name} ends at ${this.format(s.points[s.points.length - 1][1], true)}`);
    return `${this.title} over steps ${this.span[0]} to ${this.span[1]}: ${ends.join(", ") || "nothing yet"}. ` +
      `${this.marks.length} generations are marked. Arrow keys read values.`;
  }

  point(e) {
    const box = this.svg.getBoundingClientRect();
    const part = (e.clientX - box.left - margin.left) / (box.width - margin.left - margin.right);
    if (this.span) this.moved(this, this.bound(Math.round(this.span[0] + part * (this.span[1] - this.span[0]))));
  }

  key(e) {
    if (!this.span) return;
    const [first, last] = this.span, page = Math.max(1, Math.round((last - first) / 20)), at = this.at ?? last;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - page, PageDown: at + page, Home: first,
      End: last }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    this.moved(this, this.bound(to));
  }

  bound(step) { return Math.min(this.span[1], Math.max(this.span[0], step)); }
}
