// What makes the page live: the stream, and drawing.

let drawing_due = false;

// draw shows the model with the next frame; a page in the background waits.
function draw() {
  if (drawing_due) return;
  drawing_due = true;
  requestAnimationFrame(() => {
    drawing_due = false;
    showHead();
    showTiles();
    drawCurves();
    drawTimeline();
    showMembers();
    showWorlds();
    showKept();
    showDetails();
    document.body.dataset.drawn = model.job.step || 0;
  });
}

function say(text) {
  const node = document.getElementById("connection");
  if (node.textContent !== text) node.textContent = text;
}

// connect follows the server, also across its restarts. Each connection begins with all that is known.
function connect() {
  const source = new EventSource("stream");
  source.onmessage = (message) => {
    apply(JSON.parse(message.data));
    model.live = true;
    say("live");
    draw();
  };
  source.onerror = () => {
    model.live = false;
    say(runs() ? "no connection, trying again; what is shown is of " + clock(model.received) : "the run is over");
    draw();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 1500);
  };
}

function start() {
  startCurves();
  startTimeline();
  for (const input of document.querySelectorAll(".choice input")) input.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("resize", draw);
  const kept = document.getElementById("data");
  if (kept) {
    apply(JSON.parse(kept.textContent));
    say("a report: what the run directory held when it was written");
    draw();
    return;
  }
  connect();
  setInterval(() => { // time passes without news, too
    if (model.live && runs() && !document.hidden) drawTimeline();
  }, 250);
}

start();
