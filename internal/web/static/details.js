// What the newest evaluation shows beside its figures: tables of numbers and galleries of pictures, whatever the task.

// places is how many digits after the point the values of a column need: all of a column are shown with as many. 0 if
// one is too small for that.
function places(values) {
  const written = values.map((v) => short(v, 4));
  if (written.some((w) => w.includes("e"))) return 0;
  return Math.min(Math.max(...written.map((w) => (w.split(".")[1] || "").length), 0), 4);
}

// matrix is a table whose rows have names. A cell of a shaded one is the darker the larger its value.
function matrix(t) {
  const most = Math.max(...t.rows.flatMap((r) => r.cells), 0);
  const digits = t.columns.slice(1).map((_, i) => places(t.rows.map((r) => r.cells[i])));
  const head = t.columns.map((name) => element("th", { scope: "col" }, name));
  const rows = t.rows.map((r) => element("tr", {}, element("th", { scope: "row" }, r.name), ...r.cells.map((v, i) => {
    const fixed = { minimumFractionDigits: digits[i], maximumFractionDigits: digits[i] };
    const plain = digits[i] && Number.isFinite(v) && Math.abs(v) < 1e6;
    const value = plain ? v.toLocaleString("en", fixed) : short(v, 4);
    const cell = element("td", { class: v ? "number" : "number zero" }, value);
    if (t.shaded && v > 0) {
      const share = Math.round(50 * Math.sqrt(v / most)); // of the colour: the text on it stays readable
      cell.style.background = `color-mix(in srgb, var(--train) ${share}%, transparent)`;
    }
    return cell;
  })));
  return element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": t.title },
    element("table", { class: t.shaded ? "matrix shaded" : "matrix" }, element("caption", { class: "unseen" }, t.title),
      element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
}

// gallery is a list of pictures. The caption is what is read aloud for each, once.
function gallery(g) {
  const shape = g.charts ? "gallery charts" : "gallery";
  return element("ul", { class: shape }, ...g.pictures.map((p) => element("li", {}, element("figure", {},
    element("img", { src: "data:image/png;base64," + p.png, alt: p.caption }),
    element("figcaption", { "aria-hidden": "true" }, p.caption)))));
}

function showDetails() {
  const section = document.getElementById("details"), d = model.details;
  section.hidden = !d;
  if (!d || section.contents === d) return;
  section.contents = d;
  section.dataset.step = d.step;
  document.getElementById("details-title").textContent = `The evaluation of step ${d.step}, epoch ${epochOf(d.step)}`;
  const parts = [];
  for (const t of d.tables || []) {
    parts.push(element("h3", {}, t.title), element("p", { class: "about" }, t.about || ""), matrix(t));
  }
  for (const g of d.galleries || []) {
    const about = element("p", { class: "about" }, (g.pictures || []).length ? g.about || "" : "none");
    parts.push(element("h3", {}, g.title), about, gallery({ charts: g.charts, pictures: g.pictures || [] }));
  }
  document.getElementById("details-content").replaceChildren(...parts);
}
