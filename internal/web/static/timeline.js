// The timeline: a row for each member, coloured by what it does.

// In the order of a step. The columns of a lap: member, end, steps, share, then the phases in tenths of milliseconds.
const phaseNames = ["compute", "wait", "reduce", "update"];
const lap = { member: 0, end: 1, steps: 2, share: 3, phases: 4 };
const rowHeight = 40, barTop = 19, barHeight = 16, axisHeight = 34;
const otherPaints = ["spare", "line", "text", "quiet", "lost", "left", "ground", "panel"];
const gapFrom = 250; // milliseconds without a step that are shown as such

const timeline = { cursor: null, rows: [], from: 0, to: 1 };

const lapLength = (l) => (l[4] + l[5] + l[6] + l[7]) / 10;

function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }

// hatch is a fill that differs from plain ones without its colour.
function hatch(pen, of) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const p = tile.getContext("2d");
  p.strokeStyle = of;
  p.lineWidth = 2.5;
  for (const shift of [-8, 0, 8]) {
    p.beginPath();
    p.moveTo(shift, 8);
    p.lineTo(shift + 8, 0);
    p.stroke();
  }
  return pen.createPattern(tile, "repeat");
}

// spans are the times when a member was in a world: [from, to, generation, rank], in milliseconds since 1970.
function spans(number, now) {
  const out = [];
  model.worlds.forEach((w, i) => {
    const rank = w.members.indexOf(number);
    if (rank < 0) return;
    const to = i + 1 < model.worlds.length ? model.worlds[i + 1].time : now;
    out.push([w.time, to, w.generation, rank]);
  });
  return out;
}

function newest() {
  const ends = [model.origin, model.job.ended || 0, ...model.worlds.slice(-1).map((w) => w.time)];
  const l = model.laps[model.laps.length - 1];
  if (l) ends.push(model.origin + l[lap.end]);
  return Math.max(...ends);
}

// gaps are the times in a world without a step: [from, to]. What a member that is lost did at its end is not known.
function gaps(r) {
  const out = [];
  let i = 0;
  for (const [from, to] of merge(r.spans)) {
    let at = from;
    while (i < r.laps.length && model.origin + r.laps[i][lap.end] <= from) i++;
    for (; i < r.laps.length && model.origin + r.laps[i][lap.end] - lapLength(r.laps[i]) < to; i++) {
      const end = model.origin + r.laps[i][lap.end], begin = end - lapLength(r.laps[i]);
      if (begin - at > gapFrom) out.push([at, begin]);
      at = Math.max(at, end);
    }
    const over = to === timeline.to && (!runs() || model.job.step >= model.job.steps); // nothing is left to compute
    const lost = r.member.state === "lost" && to >= r.member.ended;
    if (!over && !lost && to - at > (to === timeline.to ? 4 * gapFrom : gapFrom)) out.push([at, to]);
  }
  return out;
}

// merge joins spans that follow each other.
function merge(list) {
  const out = [];
  for (const s of list) {
    const last = out[out.length - 1];
    if (last && s[0] <= last[1]) last[1] = Math.max(last[1], s[1]);
    else out.push([s[0], s[1]]);
  }
  return out;
}

function startTimeline() {
  const legend = document.getElementById("phase-legend");
  const names = { compute: "computes", wait: "waits for others", reduce: "all-reduce", update: "update",
    recovering: "recovering (no step)", spare: "spare, or starting" };
  for (const [name, text] of Object.entries(names)) {
    const box = element("canvas", { width: 30, height: 13, "aria-hidden": "true", "data-phase": name });
    legend.append(element("li", {}, box, text));
  }
  for (const [kind, text] of [["lost", "was lost"], ["left", "left"], ["wait", "an arrow: waited for"]]) {
    const sign = element("span", { "aria-hidden": "true" }, (symbols[kind] || "\u2193") + " ");
    legend.append(element("li", {}, sign, text));
  }
  const canvas = document.getElementById("timeline");
  canvas.addEventListener("pointermove", (e) => {
    const box = canvas.getBoundingClientRect();
    moveTime(timeline.from + ((e.clientX - box.left) / box.width) * (timeline.to - timeline.from));
  });
  canvas.addEventListener("pointerleave", () => { timeline.cursor = null; drawTimeline(); });
  canvas.addEventListener("keydown", keyTime);
}

function keyTime(e) {
  const span = timeline.to - timeline.from, at = timeline.cursor ?? timeline.to;
  const to = { ArrowLeft: at - span / 100, ArrowRight: at + span / 100, PageUp: at - span / 10,
    PageDown: at + span / 10, Home: timeline.from, End: timeline.to }[e.key];
  if (to === undefined) return;
  e.preventDefault();
  moveTime(Math.min(timeline.to, Math.max(timeline.from, to)));
}

function moveTime(at) {
  timeline.cursor = at;
  drawTimeline();
  const g = model.worlds.filter((w) => w.time <= at).pop();
  const words = timeline.rows.map((r) => `${r.member.id}: ${doing(r, at)}`).join("; ");
  const when = new Date(at).toLocaleTimeString("en-GB") + "." + String(Math.floor(at) % 1000).padStart(3, "0");
  const generation = g ? "generation " + g.generation : "before the first world";
  document.getElementById("timeline-cursor").textContent = `${when}, ${generation}: ${words}`;
}

// doing says what a member did at a time.
function doing(r, at) {
  if (!r.spans.some((s) => s[0] <= at && at <= s[1])) {
    return at < r.member.since || r.member.ended && at > r.member.ended ? "is not there" : "spare";
  }
  const l = r.laps.find((l) => model.origin + l[lap.end] >= at);
  let t = l ? model.origin + l[lap.end] - lapLength(l) : Infinity;
  if (at < t) return timeline.whole ? "in the world" : "no step is under way, or recovering";
  for (const [i, name] of phaseNames.entries()) {
    t += l[lap.phases + i] / 10;
    if (at <= t) return `${name}, ${microBatches(l[lap.share])}`;
  }
  return "between steps";
}

function timelineRows(from, to) {
  const byMember = new Map();
  for (const l of model.laps) {
    if (!byMember.has(l[lap.member])) byMember.set(l[lap.member], []);
    byMember.get(l[lap.member]).push(l);
  }
  const rows = [];
  for (const m of model.members) {
    const inWorlds = spans(m.number, to), ended = m.ended || Infinity;
    const there = inWorlds.some((s) => s[0] < to && s[1] > from) || m.since < to && ended > from;
    if (there) rows.push({ member: m, laps: byMember.get(m.number) || [], spans: inWorlds });
  }
  return rows.slice(-40);
}

function drawTimeline() {
  const canvas = document.getElementById("timeline"), choice = chosen("window"), whole = choice === "all";
  timeline.whole = whole;
  timeline.to = runs() && model.live ? Math.max(newest(), Date.now() - 700) : newest();
  timeline.from = whole ? model.origin : Math.max(model.origin, timeline.to - 1000 * Number(choice));
  timeline.to = Math.max(timeline.to, timeline.from + 1000);
  timeline.rows = timelineRows(timeline.from, timeline.to);
  const width = canvas.clientWidth || 600, height = Math.max(1, timeline.rows.length) * rowHeight + axisHeight;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const view = { pen, width, height, x: (t) => ((t - timeline.from) / (timeline.to - timeline.from)) * width,
    paint: Object.fromEntries([...phaseNames, ...otherPaints].map((n) => [n, colour(n)])) };
  view.paint.recovering = hatch(pen, colour("recovering"));
  pen.font = '12px system-ui, "DejaVu Sans", sans-serif';
  drawTimeAxis(view);
  timeline.rows.forEach((r, i) => drawRow(view, r, i * rowHeight, whole));
  drawWaits(view);
  if (timeline.cursor !== null) {
    pen.fillStyle = view.paint.text;
    pen.fillRect(view.x(timeline.cursor), 0, 1, height);
  }
  drawLegend(view.paint);
  const states = timeline.rows.map((r) => `${r.member.id} ${r.member.state}`).join(", ");
  canvas.setAttribute("aria-label", `Timeline of ${timeline.rows.length} members over ` +
    `${duration((timeline.to - timeline.from) / 1000)}: ${states}. Arrow keys say what each does.`);
}

function drawTimeAxis({ pen, width, height, x, paint }) {
  const span = (timeline.to - timeline.from) / 1000, back = ticks(0, span, Math.max(2, Math.floor(width / 110)));
  pen.textBaseline = "alphabetic";
  for (const s of back) {
    const at = x(timeline.to - 1000 * s);
    pen.fillStyle = paint.line;
    pen.fillRect(at, 0, 1, height - axisHeight);
    pen.fillStyle = paint.quiet;
    pen.textAlign = s === 0 ? "right" : at < 30 ? "left" : "center";
    pen.fillText(s === 0 ? clock(timeline.to) : "\u2212" + duration(s), at, height - 5);
  }
  pen.textAlign = "left";
  for (const w of model.worlds) {
    if (w.time < timeline.from || w.time > timeline.to) continue;
    pen.fillStyle = paint.text;
    for (let y = 0; y < height - axisHeight + 12; y += 6) pen.fillRect(x(w.time), y, 1.5, 3);
    pen.fillText("g" + w.generation, Math.min(x(w.time) + 3, width - 22), height - axisHeight + 12);
  }
}

function drawRow(view, r, top, whole) {
  const { pen, x, paint, width } = view, m = r.member, y = top + barTop;
  const bar = (from, to, fill, offset = 0, height = barHeight) => {
    const left = Math.max(0, x(from)), right = Math.min(width, x(to));
    if (right <= left) return;
    pen.fillStyle = fill;
    pen.fillRect(left, y + offset, Math.max(right - left, 0.4), height);
  };
  bar(m.since, m.ended || timeline.to, paint.spare, barHeight / 2 - 2, 4);
  for (const s of r.spans) bar(s[0], s[1], paint.ground);
  if (whole) drawCells(view, r, y);
  else {
    for (const g of gaps(r)) bar(g[0], g[1], paint.recovering);
    drawLaps(view, r, y, bar);
  }
  const label = m.id + (m.rank >= 0 ? `  rank ${m.rank}, ${microBatches(m.share)}` : `  ${m.state}`);
  pen.fillStyle = paint.panel;
  pen.fillRect(0, top + 1, Math.min(pen.measureText(label).width + 4, width), 16);
  pen.fillStyle = paint.text;
  pen.fillText(label, 2, top + 13, width - 4);
  if (m.ended && m.ended <= timeline.to && m.ended >= timeline.from && m.state !== "training") {
    const kind = m.state === "left" ? "left" : "lost";
    pen.fillStyle = paint[kind];
    pen.font = 'bold 17px system-ui, "DejaVu Sans", sans-serif';
    pen.fillText(symbols[kind], Math.min(x(m.ended) + 1, width - 16), y + barHeight - 2);
    pen.font = '12px system-ui, "DejaVu Sans", sans-serif';
  }
}

// drawLaps draws the phases of each step one after the other; where steps are too narrow for that, it stacks the parts
// of some of them.
function drawLaps(view, r, y, bar) {
  const seen = r.laps.filter((l) => model.origin + l[lap.end] > timeline.from);
  const narrow = seen.length > 0 && view.x(timeline.from + lapLength(seen[0])) < 6;
  for (let i = 0; i < seen.length;) {
    const end = model.origin + seen[i][lap.end], from = end - lapLength(seen[i]);
    const parts = seen[i].slice(lap.phases).map((tenths) => tenths / 10);
    let to = end;
    for (i++; narrow && i < seen.length && view.x(to) - view.x(from) < 4; i++) {
      if (model.origin + seen[i][lap.end] - lapLength(seen[i]) - to > gapFrom) break;
      to = model.origin + seen[i][lap.end];
      seen[i].slice(lap.phases).forEach((tenths, phase) => { parts[phase] += tenths / 10; });
    }
    if (narrow) {
      stack(view, y, from, to, parts, 0);
      continue;
    }
    parts.reduce((at, length, phase) => {
      bar(at, at + length, view.paint[phaseNames[phase]]);
      return at + length;
    }, from);
  }
}

// drawCells stacks the parts of each column of time.
function drawCells(view, r, y) {
  for (const c of model.cells) {
    if (c[1] !== r.member.number) continue;
    const from = model.origin + c[0] * model.width;
    stack(view, y, from, from + model.width, c.slice(lap.phases).map((tenths) => tenths / 10), 0.2);
  }
}

// stack draws the parts of a span of time above each other. A rest of more than this share of it was no step.
function stack({ pen, x, paint }, y, from, to, parts, rest) {
  const left = x(from), wide = Math.max(x(to) - left + 0.3, 0.6);
  let bottom = y + barHeight;
  const put = (fill, milliseconds) => {
    const height = Math.min(bottom - y, (barHeight * milliseconds) / (to - from));
    pen.fillStyle = fill;
    pen.fillRect(left, bottom - height, wide, height);
    bottom -= height;
  };
  parts.forEach((part, i) => put(paint[phaseNames[i]], part));
  if (rest && bottom - y > rest * barHeight) put(paint.recovering, to - from);
}

// drawWaits draws an arrow from a member that waited to the one that it waited for.
function drawWaits({ pen, x, paint }) {
  const place = (id) => timeline.rows.findIndex((r) => r.member.id === id) * rowHeight + barTop + barHeight / 2;
  for (const w of model.waits) {
    const from = place(w.member), to = place(w.for), at = x(w.time);
    if (w.time < timeline.from || w.time > timeline.to || from < 0 || to < 0 || w.member === w.for) continue;
    const down = Math.sign(to - from);
    pen.strokeStyle = pen.fillStyle = paint.text;
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(at, from);
    pen.lineTo(at, to - 6 * down);
    pen.stroke();
    pen.beginPath();
    pen.moveTo(at - 4, to - 7 * down);
    pen.lineTo(at + 4, to - 7 * down);
    pen.lineTo(at, to);
    pen.fill();
  }
}

function drawLegend(paint) {
  for (const box of document.querySelectorAll("#phase-legend canvas")) {
    const pen = box.getContext("2d"), name = box.dataset.phase;
    pen.clearRect(0, 0, 30, 13);
    pen.fillStyle = name === "recovering" ? hatch(pen, colour(name)) : paint[name];
    if (name === "spare") pen.fillRect(0, 5, 30, 4);
    else pen.fillRect(0, 0, 30, 13);
  }
}
