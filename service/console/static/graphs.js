// Graphs over time in the page's colours: uPlot, with the target and what changed marked on them.
"use strict";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function clock(seconds, withSeconds) {
  const options = {hour: "2-digit", minute: "2-digit", hourCycle: "h23"};
  if (withSeconds) options.second = "2-digit";
  return new Date(1e3 * seconds).toLocaleTimeString("en-GB", options);
}

function written(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value), digits = size < 1 ? 2 : size < 100 ? 1 : 0;
  return value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
}

// Lines across the graph: the target, and a mark where a role changed.
function drawn(u, notes) {
  const c = u.ctx, {left, top, width, height} = u.bbox, ratio = devicePixelRatio;
  c.save();
  c.font = `${11 * ratio}px system-ui, sans-serif`;
  c.lineWidth = ratio;
  c.setLineDash([5 * ratio, 4 * ratio]);
  if (notes.target) {
    const y = u.valToPos(notes.target, "y", true);
    c.strokeStyle = c.fillStyle = colour("bad");
    c.globalAlpha = .75;
    if (y >= top) {
      c.beginPath(); c.moveTo(left, y); c.lineTo(left + width, y); c.stroke();
    }
    c.textAlign = "left";
    c.fillText(`${y < top ? "↑ " : ""}target ${Number(notes.target.toPrecision(4)).toLocaleString("en")} ms`, left + 6 * ratio,
      y < top ? top + 12 * ratio : y - 5 * ratio);
    c.globalAlpha = 1;
  }
  let row = 0;
  for (const mark of notes.marks) {
    const x = u.valToPos(mark.at, "x", true);
    if (x < left || x > left + width) continue;
    c.strokeStyle = colour("soft");
    c.beginPath(); c.moveTo(x, top); c.lineTo(x, top + height); c.stroke();
    if (!notes.labels) continue;
    const text = mark.what === "active" ? mark.text : `${mark.what} ${mark.text}`;
    const wide = c.measureText(text).width, right = x + wide + 10 * ratio > left + width;
    c.fillStyle = colour("ink");
    c.fillText(text, right ? x - wide - 5 * ratio : x + 5 * ratio, top + (12 + 14 * (row++ % 3)) * ratio);
  }
  c.restore();
}

// The legend shows the last point while the pointer is elsewhere.
function rested(u) {
  if (!(u.cursor.left >= 0)) u.setLegend({idx: u.data[0].length - 1}, false);
  return u;
}

// ``lines``: pairs of name and colour; ``notes``: target, marks.
function graph(box, lines, data, notes, unit) {
  const axis = {stroke: colour("soft"), font: "12px system-ui, sans-serif",
    grid: {stroke: colour("rule"), width: 1}, ticks: {show: false}};
  const options = {
    width: box.clientWidth, height: 230,
    cursor: {y: false, points: {size: 6}},
    legend: {live: true},
    scales: {x: {time: true}, y: {range: (u, low, high) =>
      [0, Math.max(1, 1.12 * (high || 0), notes.target && notes.target < 10 * high ? 1.12 * notes.target : 0)]}},
    axes: [
      {...axis, grid: {show: false}, size: 30, space: 84,
        incrs: [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800],
        values: (u, at) => at.map(t => clock(t, at.length > 1 && at[1] - at[0] < 60))},
      {...axis, size: 52, values: (u, at) => at.map(value => value.toLocaleString("en"))},
    ],
    series: [
      {label: "time", value: (u, t) => t === null ? "–" : clock(t, true)},
      ...lines.map(([label, name]) => ({label, stroke: colour(name), width: 1.6, spanGaps: false,
        points: {show: false}, paths: uPlot.paths.linear(), value: (u, v) => v === null ? "–" : `${written(v)}${unit}`})),
    ],
    hooks: {draw: [u => drawn(u, notes)], setCursor: [rested]},
  };
  box.replaceChildren();
  return rested(new uPlot(options, data, box));
}
