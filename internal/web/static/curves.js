// The charts: training and test metrics by step, and the speed.

const charts = new Map(); // by the name of a metric, which the task chose
let speedChart; // after all of them
const styles = [["train", "training"], ["test", "test"], ["holdout", "held-out"]];

function startCurves() {
  const parent = document.getElementById("charts");
  speedChart = new Chart(parent, { title: "Samples per second", floor: 0, format: (v) => short(v, 4),
    moved: moveCursor });
  const legend = document.getElementById("curve-legend");
  for (const [style, name] of styles) {
    const sample = drawing("svg", { viewBox: "0 0 30 12", "aria-hidden": "true" },
      drawing("path", { class: "curve " + style, d: "M0 6H30" }));
    legend.append(element("li", { class: "for-" + style }, sample, name));
  }
  const changes = { joined: "a member joined", left: "left", lost: "was lost", same: "same members, new generation" };
  for (const [kind, text] of Object.entries(changes)) {
    const sign = drawing("svg", { viewBox: "0 0 30 14", "aria-hidden": "true" },
      drawing("g", { class: "mark " + kind }, drawing("text", { x: 15, y: 12 }, symbols[kind])));
    legend.append(element("li", {}, sign, text));
  }
}

// metricNames are those of training and of evaluations: the loss first, then in the order in which they came.
function metricNames() {
  const evaluated = model.evaluations.metrics.map((name) => name.replace(/^holdout_/, ""));
  return [...new Set(["loss", ...model.curve.metrics, ...evaluated])];
}

function chartOf(name) {
  if (!charts.has(name)) {
    const share = (v, full) => (100 * v).toFixed(full ? 2 : 0) + "%";
    const shape = isShare(name) ? { floor: 0, ceiling: 1, format: share }
      : { format: (v, full) => short(v, full ? 5 : 3) };
    const chart = new Chart(speedChart.svg.closest("#charts"), { title: capital(label(name)), moved: moveCursor,
      ...shape });
    chart.svg.closest("figure").dataset.metric = name;
    charts.set(name, chart);
    speedChart.svg.closest("#charts").append(speedChart.svg.closest("figure"));
  }
  return charts.get(name);
}

function allCharts() { return [...charts.values(), speedChart]; }

function chosen(name) { return document.querySelector(`input[name=${name}]:checked`).value; }

// training is a metric as points, with the band between the least and the most of each bucket.
function training(metric, latest) {
  const i = model.curve.metrics.indexOf(metric);
  if (i < 0) return [];
  if (latest) {
    return model.curve.tail.slice(-latest).map((r) => [r[row.step], r[row.values + i]]).filter((p) => p[1] != null);
  }
  const at = bucket.values + 4 * i;
  const points = model.curve.buckets.filter((b) => b[at] != null)
    .map((b) => [b[bucket.last], b[at + 2], b[at], b[at + 1]]);
  const end = model.curve.tail[model.curve.tail.length - 1];
  if (end && end[row.values + i] != null) {
    const last = end[row.values + i];
    if (points.length && points[points.length - 1][0] === end[row.step]) points.pop();
    points.push([end[row.step], last, last, last]);
  }
  return points;
}

function evaluated(metric, from) {
  const i = model.evaluations.metrics.indexOf(metric);
  if (i < 0) return [];
  const at = bucket.values + 4 * i + 3;
  return model.evaluations.buckets.filter((b) => b[at] != null && b[bucket.last] >= from)
    .map((b) => [b[bucket.last], b[at]]);
}

function speed(latest) {
  const rate = (samples, seconds) => (seconds > 0 ? samples / seconds : null);
  const points = latest
    ? model.curve.tail.slice(-latest).map((r) => [r[row.step], rate(r[row.samples], r[row.seconds])])
    : model.curve.buckets.map((b) => [b[bucket.last], rate(b[bucket.samples], b[bucket.seconds])]);
  return smooth(points.filter((p) => p[1] !== null));
}

// smooth is the mean of each point and its neighbours: single steps are noisy.
function smooth(points) {
  const reach = Math.min(20, Math.floor(points.length / 40));
  return points.map((p, i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [p[0], near.reduce((sum, q) => sum + q[1], 0) / near.length];
  });
}

function drawCurves() {
  const latest = chosen("range") === "all" ? 0 : Number(chosen("range"));
  const last = Math.max(2, model.job.step || 0), first = latest ? Math.max(1, last - latest + 1) : 1;
  const marks = model.worlds.filter((w) => w.step >= first - 1 && w.step <= last);
  for (const metric of metricNames()) {
    const points = training(metric, latest);
    const series = [{ name: "training", style: "train faint", points, from: first },
      { name: "smoothed", style: "train", points: smooth(points), from: first },
      { name: "test", style: "test", points: evaluated(metric, first) },
      { name: "held-out", style: "holdout", points: evaluated("holdout_" + metric, first) }];
    chartOf(metric).show(series, [first, last], marks);
  }
  const rate = { name: "mean", style: "train", points: speed(latest), from: first };
  speedChart.show([rate], [first, last], marks);
  const heldOut = document.querySelector(".for-holdout");
  heldOut.hidden = !model.evaluations.metrics.some((name) => name.startsWith("holdout_"));
}

// moveCursor puts the cursor of all charts at a step; null: takes it away.
function moveCursor(chart, step) {
  for (const c of allCharts()) {
    c.at = step;
    if (c.series) c.draw();
  }
  if (step === null) return;
  const reach = Math.max(1, (chart.span[1] - chart.span[0]) / 100);
  const near = model.worlds.filter((w) => w.step <= step && w.step >= step - reach);
  const words = allCharts().map((c) => `${c.title.toLowerCase()}: ${c.words(step)}`).join("; ");
  const changes = near.map((w) => `generation ${w.generation} began: ${changeText(w)}`).join("; ");
  document.getElementById("curve-cursor").textContent =
    `Step ${step}, epoch ${epochOf(step)}; ${words}. ${changes}`;
}
