// Tiles and tables.

// table fills a table if its contents changed. columns: [title, class]; rows: lists of cells, or {cells, class, data}.
function table(id, caption, columns, rows) {
  const node = document.getElementById(id);
  const key = JSON.stringify([columns, rows], (k, v) => (v instanceof Node ? v.outerHTML : v));
  if (node.contents === key) return;
  node.contents = key;
  const head = columns.map(([title, kind]) => element("th", { scope: "col", class: kind || "" }, title));
  const body = rows.map((r) => {
    const cells = (r.cells || r).map((c, i) => element("td", { class: columns[i][1] || "" }, c));
    return element("tr", { class: r.class || "", ...(r.data || {}) }, ...cells);
  });
  if (!rows.length) body.push(element("tr", {}, element("td", { colspan: columns.length }, "none yet")));
  node.replaceChildren(element("caption", {}, caption), element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...body));
}

const number = (title) => [title, "number"];
const text = (title) => [title, "text"];
const newestFirst = (list, most = 100) => list.slice(-most).reverse();

function tile(name, value, more = "", data = {}) {
  return element("div", {}, element("dt", {}, name), element("dd", data, value, element("small", {}, more)));
}

function showTiles() {
  const job = model.job, end = model.curve.tail[model.curve.tail.length - 1], now = lately(20), all = model.totals;
  const value = (i) => (end ? end[row.values + i] ?? NaN : NaN);
  const test = model.evaluations.tail[model.evaluations.tail.length - 1];
  const metrics = model.curve.metrics.slice(1, 5); // more have no room here; the first is the loss
  const rate = runs() ? now.samples / now.seconds : all.samples / all.seconds;
  const epochs = `epoch ${short(job.epoch, 9)} of ${short(job.epochs, 9)}`;
  const left = job.step < job.steps ? ((job.steps - job.step) * now.seconds) / now.steps : NaN;
  document.getElementById("tiles").replaceChildren(
    tile("Training loss", show("loss", value(0)), "step " + short(job.step, 9),
      { id: "loss", "data-value": value(0), "data-step": job.step || 0 }),
    ...metrics.map((name) => tile("Training " + label(name), show(name, value(model.curve.metrics.indexOf(name))),
      "of that step", { "data-metric": name })),
    testTile(test),
    tile("Samples per second", short(rate), runs() ? "over 20 s" : "of the whole run"),
    tile("Goodput", percent(now.productive / now.seconds), `whole run ${percent(all.productive / all.seconds)}`),
    tile("Workers", short(job.workers, 9), "generation " + short(job.generation, 9),
      { id: "workers", "data-generation": job.generation || 0 }),
    tile(runs() ? "Time left" : "Time", duration(runs() ? left : all.seconds), epochs));
}

// testTile shows the first figure of the last evaluation, and the others below it.
function testTile(test) {
  const names = model.evaluations.metrics;
  const values = names.map((name, i) => [name, test ? test[row.values + i] : null])
    .filter(([name, v]) => v != null && !name.startsWith("holdout_"));
  if (!values.length) return tile("Test set", "\u2013", "not evaluated yet");
  const [[first, value], ...others] = values;
  const more = others.slice(0, 3).map(([name, v]) => `${label(name)} ${show(name, v)}`);
  return tile("Test " + label(first), show(first, value), [...more, "step " + test[row.step]].join(", "));
}

// phaseBar shows how a step of a member divides; the numbers beside it say the same.
function phaseBar(m) {
  const times = phaseNames.map((n) => m[n + "_ms"]), sum = times.reduce((a, b) => a + b, 0);
  const bar = element("div", { class: "bar", "aria-hidden": "true" });
  phaseNames.forEach((name, i) => {
    const part = element("span");
    part.style.width = (sum ? (100 * times[i]) / sum : 0).toFixed(0) + "%";
    part.style.background = `var(--${name})`;
    bar.append(part);
  });
  return bar;
}

// stateOf says what a member is, and what it does if that is out of the ordinary.
function stateOf(m) {
  const busy = m.phase && m.phase !== "spare" && !phaseNames.includes(m.phase) && !m.ended ? ", " + m.phase : "";
  return (m.rank >= 0 ? "in the world" : m.state) + busy;
}

function showMembers() {
  const world = model.members.filter((m) => m.rank >= 0);
  const slowest = world.reduce((a, b) => (a && a.compute_ms >= b.compute_ms ? a : b), null);
  const order = (m) => (m.rank >= 0 ? m.rank : m.ended ? 1e13 - m.ended : 1e6);
  const rows = [...model.members].sort((a, b) => order(a) - order(b)).slice(0, 64).map((m) => {
    const works = m.rank >= 0, time = (x) => (works || m.compute_ms ? x.toFixed(1) : "\u2013");
    return { class: works || !m.ended ? "" : "gone", data: { "data-member": m.id, "data-state": m.state }, cells: [
      works ? m.rank : "\u2013", m.id, `${m.host || "\u2013"}, pid ${m.pid || "\u2013"}`, stateOf(m),
      works ? m.share : "\u2013", phaseBar(m), ...phaseNames.map((n) => time(m[n + "_ms"])),
      works && m !== slowest && m.wait_ms > 1 ? slowest.id : ""] };
  });
  table("members", "Times are milliseconds of a step, smoothed.", [number("Rank"), ["Member"], ["Host"], ["State"],
    number("Micro-batches"), ["Step"], number("Compute"), number("Wait"), number("All-reduce"), number("Update"),
    ["Waits for"]], rows);
}

function showWorlds() {
  const worlds = newestFirst(model.worlds).map((w) => {
    const kind = kindOf(w), change = element("span", { class: "kind-" + kind }, `${symbols[kind]} ${changeText(w)}`);
    return { data: { "data-generation": w.generation, "data-kind": kind },
      cells: [w.generation, clock(w.time), w.step, w.size, change, w.reason + (w.planned ? " (planned)" : "")] };
  });
  table("generations", "The newest first. A planned one costs no step.", [number("Generation"), ["Time"],
    number("After step"), number("Workers"), text("Change"), text("Why")], worlds);
  table("recoveries", "From the last commit of a world that broke to the first commit of the next.",
    [number("Generation"), ["Time"], number("First step"), number("Took"), ["Lost"], text("Why")],
    newestFirst(model.recoveries).map((r) => [r.generation, clock(r.time), r.step, r.seconds.toFixed(2) + " s",
      (r.lost || []).join(", ") || "none", r.reason]));
  table("waits", "What members reported when a collective failed.",
    [["Time"], number("Step"), ["Member"], ["Waited for"], ["How"], ["Phase"], number("Seconds")],
    newestFirst(model.waits).map((w) => [clock(w.time), w.step, w.member, w.for || "\u2013", w.kind, w.phase,
      w.seconds.toFixed(2)]));
}

function showKept() {
  const names = model.evaluations.metrics;
  const evaluations = newestFirst(model.evaluations.tail).map((e) => [e[row.step], epochOf(e[row.step]),
    ...names.map((name, i) => show(name, e[row.values + i] ?? NaN)), e[row.seconds].toFixed(1) + " s"]);
  const columns = names.map((n) => (n.startsWith("holdout_") ? ["Held-out ", n.slice(8)] : ["Test ", n]))
    .map(([set, name]) => number(set + label(name)));
  table("evaluations", "Evaluations: the state after a step, measured on the whole test set.",
    [number("Step"), number("Epoch"), ...columns, number("Took")], evaluations);
  table("checkpoints", "Checkpoints that are durable.",
    [number("Step"), ["Time"], number("Size"), number("Took"), text("File")],
    newestFirst(model.checkpoints).map((c) => [c.step, clock(c.time), bytes(c.bytes),
      (1000 * c.seconds).toFixed(0) + " ms", c.path]));
  table("notes", "The newest first.", [["Time"], number("Step"), ["Kind"], text("Message")],
    newestFirst(model.notes).map((n) => [clock(n.time), n.step,
      element("span", { class: "kind-" + n.kind }, n.kind), n.text]));
  const l = model.ledger, many = (n) => n.toLocaleString("en");
  document.getElementById("ledger").textContent =
    l ? `Ledger: epoch ${l.epoch} has used ${many(l.used)} of ${many(l.samples)} samples, each once.` : "";
}

function showHead() {
  const job = model.job, about = [job.model, job.recipe && "recipe " + job.recipe, job.backend, `seed ${job.seed}`,
    `${short(job.samples, 9)} samples an epoch, ${short(job.global_batch, 9)} a step`,
    `micro-batches of ${short(job.micro_batch, 9)}`];
  document.getElementById("job").textContent = job.name || "";
  document.getElementById("about").textContent = about.filter(Boolean).join(" \u00b7 ");
  document.title = `${job.state || "waiting"}: step ${job.step || 0} \u2013 Evenweave`;
  const state = document.getElementById("state"), now = job.state || "waiting";
  if (state.textContent !== now) state.textContent = now; // read aloud when it changes, not at each step
  state.className = "badge " + now.split(" ")[0];
  const progress = document.getElementById("progress");
  progress.max = job.steps || 1;
  progress.value = job.step || 0;
}
