// What is known of the job, and what follows from it.
const model = { job: {}, totals: {}, members: [], ledger: null, origin: 0, received: 0 };

function forget() {
  Object.assign(model, { worlds: [], recoveries: [], notes: [], checkpoints: [], waits: [], laps: [], cells: [],
    details: null, // of the newest evaluation that has any
    width: 1000, // of a column of cells, in milliseconds
    curve: { metrics: [], buckets: [], tail: [] }, evaluations: { metrics: [], buckets: [], tail: [] } });
}
forget();

function keep(list, part) {
  if (!part) return;
  list.push(...part.items);
  if (list.length > part.keep) list.splice(0, list.length - part.keep);
}

function keepCurve(curve, part) {
  if (!part) return;
  curve.metrics = part.metrics;
  curve.buckets.length = Math.min(curve.buckets.length, part.from);
  curve.buckets.push(...(part.buckets || []));
  keep(curve.tail, part.tail);
}

// apply takes an update of the server.
function apply(update) {
  if (update.reset) forget();
  model.job = update.job;
  model.totals = update.totals;
  model.members = update.members;
  model.ledger = update.ledger || null;
  model.origin = update.origin;
  model.received = Date.now();
  for (const name of ["worlds", "recoveries", "notes", "checkpoints", "waits", "laps"]) keep(model[name], update[name]);
  keepCurve(model.curve, update.curve);
  keepCurve(model.evaluations, update.evaluations);
  if (update.details) model.details = update.details;
  if (update.cells) {
    model.width = update.cells.width_ms;
    model.cells = model.cells.filter((c) => c[0] < update.cells.from).concat(update.cells.cells || []);
  }
}

// Columns of a row of a curve's tail, and of its buckets.
const row = { step: 0, seconds: 1, productive: 2, samples: 3, values: 4 };
const bucket = { first: 0, last: 1, count: 2, seconds: 3, productive: 4, samples: 5, values: 6 };

// lately adds up the end of the curve, as far back as some seconds.
function lately(seconds) {
  const sum = { steps: 0, seconds: 0, productive: 0, samples: 0 };
  for (let i = model.curve.tail.length - 1; i >= 0 && sum.seconds < seconds; i--, sum.steps++) {
    const r = model.curve.tail[i];
    sum.seconds += r[row.seconds];
    sum.productive += r[row.productive];
    sum.samples += r[row.samples];
  }
  return sum;
}

function epochOf(step) {
  const each = model.job.steps_per_epoch;
  return each ? Math.floor((step - 1) / each) + 1 : model.job.epoch;
}

function runs() { return ["training", "recovering", "waiting for workers"].includes(model.job.state); }

function memberName(number) {
  const m = model.members.find((m) => m.number === number);
  return m ? m.id : "member " + number;
}

// kindOf says what a world changed: the mark that it gets.
function kindOf(w) {
  if ((w.lost || []).length) return "lost";
  if ((w.left || []).length) return "left";
  if ((w.joined || []).length) return "joined";
  return "same";
}

const symbols = { lost: "\u2715", left: "\u25bd", joined: "\u25b2", same: "\u25c7" };

function changeText(w) {
  const parts = [];
  for (const what of ["joined", "left", "lost"]) {
    if ((w[what] || []).length) parts.push(w[what].join(", ") + " " + what);
  }
  return parts.join("; ") || "the same members";
}

// Numbers and times as people read them.
function short(x, digits = 4) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "\u2013";
  return Math.abs(x) >= 1000 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(digits)));
}
const percent = (x) => (Number.isFinite(x) ? (100 * x).toFixed(1) + "%" : "\u2013");
// show writes a value of a metric or figure: a share as a percentage.
const isShare = (name) => name.endsWith("accuracy");
const show = (name, v) => (isShare(name) ? percent(v) : short(v, 5));
const microBatches = (n) => (n === 1 ? "1 micro-batch" : n + " micro-batches");
// label is the name of a metric or figure in a sentence; one of up to three letters is an abbreviation.
const label = (name) => (name.length < 4 ? name.toUpperCase() : name.replaceAll("_", " "));
const capital = (name) => name.charAt(0).toUpperCase() + name.slice(1);
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
function duration(seconds) {
  if (!Number.isFinite(seconds)) return "\u2013";
  const s = Math.round(seconds);
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60) + " s";
  return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
}
function bytes(n) { return n < 1e6 ? Math.round(n / 1e3) + " kB" : (n / 1e6).toFixed(1) + " MB"; }

// Elements. Text is only ever set as text.
function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}
function drawing(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map((c) => (c instanceof Node ? c : String(c))));
  return node;
}
