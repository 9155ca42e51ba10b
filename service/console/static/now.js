// The page Now: figures of each second by server-sent events, graphs over the chosen minutes.
"use strict";
(() => {
  const $ = id => document.getElementById(id);
  const LATENCY = [["p50", "p50"], ["p99", "p99"]];
  const TRAFFIC = [["answered", "ok"], ["refused", "refused"], ["failed", "failed"], ["invalid", "soft"]];
  const LATE_S = 5, COARSE_S = 10;
  let minutes = 5, frame = JSON.parse($("frame").textContent), series = frame.series;
  let source = null, latency = null, traffic = null, heard = 0, fetched = 0;

  function cell(text, className) {
    const element = document.createElement("td");
    element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  function row(...cells) {
    const element = document.createElement("tr");
    element.append(...cells);
    return element;
  }

  function tile(id, text, more, level) {
    const box = $(id), value = box.querySelector("b");
    if (value.textContent !== text) value.textContent = text;
    if (more !== undefined) box.querySelector(".more").textContent = more;
    box.className = `tile ${level || ""}`;
  }

  const ms = value => value === null ? "–" : `${written(value)} ms`;
  const share = value => `${Math.round(100 * value)}%`;

  function show() {
    const over = frame.windows[minutes], all = frame.all, target = series ? series.target : Infinity;
    tile("rate", written(over.rate));
    tile("p50", ms(over.p50));
    tile("p99", ms(over.p99), undefined, over.p99 > target ? "bad" : "");
    tile("refused", written(over.refused), undefined, over.refused > 0 ? "warn" : "");
    tile("failed", written(over.failed), undefined, over.failed > 0 ? "bad" : "");
    tile("engine", share(all.engine), `queue ${all.queue}`, all.engine > .9 ? "warn" : "");
    tile("store", all.reachable ? "reachable" : "unreachable", undefined, all.reachable ? "good" : "bad");
    const {active, canary, shadow} = frame.roles;
    $("roles").textContent = [active || "no version", canary && `canary ${canary}`, shadow && `shadow ${shadow}`]
      .filter(Boolean).join(" · ");
    const errors = Object.entries(over.errors).map(([kind, count]) => row(cell(kind), cell(count.toLocaleString("en"), "n")));
    const none = cell("none", "soft");
    none.colSpan = 2;
    $("errors").replaceChildren(...errors.length ? errors : [row(none)]);
    $("processes").replaceChildren(...frame.processes.map(one => row(cell(one.number),
      ...[written(one.rate), ms(one.p50), ms(one.p99), written(one.refused), written(one.failed), share(one.engine),
        one.queue, `${Math.round(one.memory / 1e6)} MB`, one.reachable ? "✓" : "unreachable"].map(text => cell(text, "n")))));
  }

  function columns(lines) { return [series.t, ...lines.map(([name]) => series[name])]; }

  function draw() {
    const notes = {target: series.target, marks: series.marks, labels: true};
    latency = graph($("latency"), LATENCY, columns(LATENCY), notes, " ms");
    traffic = graph($("traffic"), TRAFFIC, columns(TRAFFIC), {marks: series.marks}, "/s");
    describe();
  }

  function describe() {
    const over = frame.windows[minutes], time = minutes === 60 ? "hour" : minutes === 1 ? "minute" : `${minutes} minutes`;
    $("latency").setAttribute("aria-label", `Latency over the last ${time}: p50 ${ms(over.p50)}, p99 ${ms(over.p99)}`);
    $("traffic").setAttribute("aria-label", `Scoring requests over the last ${time}: ${written(over.rate)} a second, ` +
      `${written(over.refused)} refused, ${written(over.failed)} failed`);
  }

  async function load() {
    const asked = minutes;
    fetched = Date.now();
    let answer;
    try { answer = await fetch(`/console/series?minutes=${asked}`); } catch { return lost(); }
    if (answer.status === 401) return over();
    if (!answer.ok) return lost();
    const found = await answer.json();
    if (asked !== minutes) return;
    series = found;
    draw();
    show();
  }

  function append() {
    const behind = frame.t - series.t[series.t.length - 1];
    if (frame.marks !== series.marks.length || behind > LATE_S) return load();
    if (minutes === 60) return Date.now() - fetched > 1e3 * COARSE_S ? load() : undefined;
    if (behind < 1) return;
    for (const name of Object.keys(series)) {
      if (!Array.isArray(series[name]) || name === "marks") continue;
      series[name].push(name === "t" ? frame.t : frame.point[name]);
      series[name].shift();
    }
    latency.setData(columns(LATENCY));
    traffic.setData(columns(TRAFFIC));
    rested(latency);
    rested(traffic);
    describe();
  }

  function state(text, level) {
    if ($("state").textContent !== text) $("state").textContent = text;
    $("state").className = `state ${level}`;
  }

  function lost() { state("no connection; trying again", "lost"); }

  function over() {
    state("the session has ended", "lost");
    location.assign(`/console/login?next=${encodeURIComponent(location.pathname)}`);
  }

  function open() {
    if (source) source.close();
    source = new EventSource("/console/stream");
    source.onmessage = event => {
      frame = JSON.parse(event.data);
      heard = Date.now();
      state(frame.draining ? "the service is stopping" : "live", frame.draining ? "lost" : "live");
      show();
      if (series) append(); else load();
    };
    source.addEventListener("over", () => { source.close(); over(); });
    source.onerror = () => {
      lost();
      if (source.readyState !== EventSource.CLOSED) return;
      source = null;
      load().then(() => setTimeout(() => { if (!source && !document.hidden) open(); }, 3e3));
    };
  }

  $("minutes").addEventListener("change", event => {
    minutes = Number(event.target.value);
    show();
    load();
  });
  // A browser has six connections for a host: a page that is not seen takes none.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return open();
    if (source) source.close();
    source = null;
    state("paused", "");
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => series && draw());
  new ResizeObserver(() => {
    for (const [u, box] of [[latency, $("latency")], [traffic, $("traffic")]])
      if (u && box.clientWidth && box.clientWidth !== u.width) u.setSize({width: box.clientWidth, height: 230});
  }).observe($("latency"));
  setInterval(() => { if (source && heard && Date.now() - heard > 1e3 * LATE_S) lost(); }, 1e3);
  draw();
  show();
  performance.mark("shown");
  open();
})();
