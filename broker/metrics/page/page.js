// Draws what page.json tells, once a second. Text from the broker goes into the
// page by textContent only: names of programs are not to be trusted.
"use strict";

const every = 1000; // ms between two looks
const points = 120; // of the charts
const series = { throughput: [], rtt: [] };
let before = null;

const $ = (id) => document.getElementById(id);

function make(tag, text, name) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (name) e.className = name;
  return e;
}

function scaled(v, unit) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  while (v >= 999.5 && i < units.length - 1) { v /= 1024; i++; }
  return (i === 0 || v >= 99.5 ? v.toFixed(0) : v.toFixed(1)) + " " + units[i] + (unit || "");
}
const octets = (v) => scaled(v, "");
const rate = (v) => scaled(v, "/s");
const ms = (v) => v === 0 ? "–" : (v < 10 ? v.toFixed(2) : v.toFixed(0)) + " ms";
const count = (n) => n.toLocaleString("en");

function age(s) {
  if (s < 60) return Math.floor(s) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + Math.floor(s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}

// table fills the element with rows; columns are [heading, class, function of a row].
function table(id, columns, rows, none) {
  const at = $(id);
  if (rows.length === 0) {
    at.replaceChildren(make("p", none, "none"));
    return;
  }
  const t = make("table"), head = make("tr"), body = make("tbody");
  for (const [name, cls] of columns) head.append(make("th", name, cls.split(" ")[0]));
  for (const r of rows) {
    const tr = make("tr");
    for (const [, cls, show] of columns) {
      const td = make("td", show(r), typeof cls === "string" ? cls : "");
      if (cls.includes("cut")) td.title = td.textContent;
      if (cls === "level") td.className = r.level;
      tr.append(td);
    }
    body.append(tr);
  }
  const h = make("thead");
  h.append(head);
  t.append(h, body);
  at.replaceChildren(t);
}

function tiles(list) {
  $("tiles").replaceChildren(...list.map(([name, value, more, cls]) => {
    const t = make("div", undefined, "tile " + (cls || ""));
    t.append(make("span", name), make("b", value), make("span", more || "\u00a0"));
    return t;
  }));
}

const svgNS = "http://www.w3.org/2000/svg";

function shape(tag, attrs, text) {
  const e = document.createElementNS(svgNS, tag);
  for (const k in attrs) e.setAttribute(k, attrs[k]);
  if (text !== undefined) e.textContent = text;
  return e;
}

// ceiling is the next round number above v, in steps that read well.
function ceiling(v, base) {
  if (v <= 0) return 1;
  const unit = Math.pow(base, Math.floor(Math.log(v) / Math.log(base)));
  for (const m of base === 1024 ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] : [1, 2, 5, 10]) {
    if (m * unit >= v) return m * unit;
  }
  return base * unit;
}

function chart(id, data, label, base) {
  const svg = $(id), w = svg.clientWidth || 600, h = svg.clientHeight || 180, left = 74, bottom = 18, top = 8;
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  const most = ceiling(Math.max(...data.map((p) => Math.max(p.a, p.b)), 0), base);
  const x = (i) => left + (w - left - 6) * (points - data.length + i) / (points - 1);
  const y = (v) => h - bottom - (h - bottom - top) * v / most;
  const parts = [];
  for (const part of [0, 0.5, 1]) {
    parts.push(shape("line", { class: "grid", x1: left, x2: w - 6, y1: y(most * part), y2: y(most * part) }));
    parts.push(shape("text", { x: left - 8, y: y(most * part) + 4, "text-anchor": "end" }, label(most * part)));
  }
  parts.push(shape("text", { x: left, y: h - 3 }, "2 min ago"), shape("text", { x: w - 6, y: h - 3, "text-anchor": "end" }, "now"));
  for (const k of ["b", "a"]) {
    const line = data.map((p, i) => `${x(i).toFixed(1)},${y(p[k]).toFixed(1)}`).join(" ");
    parts.push(shape("polyline", { class: "line " + k, points: line }));
  }
  svg.replaceChildren(...parts);
}

function push(list, point) {
  list.push(point);
  if (list.length > points) list.shift();
}

function note(id, shown, total) {
  $(id).textContent = total > shown ? `the busiest ${shown} of ${count(total)}` : (total ? count(total) : "");
}

// counts shows a map of numbers, the largest first.
function counts(id, m, heading, none) {
  const rows = Object.entries(m).sort((a, b) => b[1] - a[1]);
  table(id, [[heading, "", (r) => r[0]], ["Times", "n", (r) => count(r[1])]], rows, none);
}

// rates are octets a second since the look before, by id.
function rates(now, list) {
  const old = new Map((before ? before[list] : []).map((c) => [c.id, c]));
  const past = before ? (Date.parse(now.time) - Date.parse(before.time)) / 1000 : 0;
  return (c) => {
    const o = old.get(c.id);
    return o && past > 0 ? Math.max(0, (c.sent_bytes + c.received_bytes - o.sent_bytes - o.received_bytes) / past) : 0;
  };
}

function draw(now) {
  const sent = now.quic.sent + now.tcp.sent, received = now.quic.received + now.tcp.received;
  let sending = 0, receiving = 0, lossNow = null;
  if (before && before.status.pid === now.status.pid) {
    const past = (Date.parse(now.time) - Date.parse(before.time)) / 1000;
    if (past > 0) {
      sending = Math.max(0, (sent - before.quic.sent - before.tcp.sent) / past);
      receiving = Math.max(0, (received - before.quic.received - before.tcp.received) / past);
    }
    push(series.throughput, { a: sending, b: receiving });
    const packets = now.packets_sent - before.packets_sent;
    if (packets > 0) lossNow = (now.packets_lost - before.packets_lost) / packets;
  }
  push(series.rtt, { a: now.rtt.median_ms, b: now.rtt.p95_ms });
  const s = now.status, fell = Object.values(now.fallbacks).reduce((a, b) => a + b, 0), failed = Object.values(now.failed).reduce((a, b) => a + b, 0);
  $("about").textContent = `${s.version}, pid ${s.pid}, up ${age(s.uptime_seconds)}`;
  tiles([
    ["Sessions", count(s.sessions), `${count(s.sockets)} sockets`],
    ["Connections", count(now.quic.living + now.tcp.living), `${count(now.quic.living)} QUIC, ${count(now.tcp.living)} TCP`],
    ["Sending", rate(sending), `${octets(sent)} in all`],
    ["Receiving", rate(receiving), `${octets(received)} in all`],
    ["Round trip", ms(now.rtt.median_ms), `95 %: ${ms(now.rtt.p95_ms)}`],
    ["Packets lost", lossNow === null ? "–" : (lossNow * 100).toFixed(2) + " %", `${count(now.packets_lost)} in all`, lossNow > 0.02 ? "warn" : ""],
    ["Fallbacks to TCP", count(fell), `${count(now.total.Fallback)} remembered`, now.total.Fallback > 0 ? "warn" : ""],
    ["Connects failed", count(failed), "\u00a0"],
    ["Errors", count(now.errors), `${count(now.warnings)} warnings`, now.errors > 0 ? "bad" : now.warnings > 0 ? "warn" : ""],
  ]);
  chart("throughput", series.throughput, rate, 1024);
  chart("rtt", series.rtt, (v) => v + " ms", 10);
  const ofSession = rates(now, "sessions"), ofConnection = rates(now, "connections");
  note("sessions-note", now.sessions.length, now.total.Sessions);
  table("sessions", [
    ["Program", "cut", (r) => r.program], ["PID", "n", (r) => r.pid || "–"], ["User", "n", (r) => r.uid], ["Sockets", "n", (r) => count(r.sockets)],
    ["Connections", "n", (r) => count(r.connections)], ["In all", "n", (r) => count(r.total)], ["Throughput", "n", (r) => rate(ofSession(r))],
    ["Sent", "n", (r) => octets(r.sent_bytes)], ["Received", "n", (r) => octets(r.received_bytes)], ["Age", "n", (r) => age(r.age_seconds)],
  ], now.sessions, "No program runs under poemq now.");
  note("connections-note", now.connections.length, now.total.Connections);
  table("connections", [
    ["No.", "n", (r) => r.id], ["Side", "", (r) => r.side + (r.draining ? ", draining" : "")], ["Peer", "mono", (r) => r.peer], ["Local", "mono", (r) => r.local],
    ["Streams", "n", (r) => count(r.streams)], ["Throughput", "n", (r) => rate(ofConnection(r))], ["RTT", "n", (r) => ms(r.rtt_ms)], ["Window", "n", (r) => octets(r.cwnd_bytes)],
    ["Lost", "n", (r) => count(r.lost_packets)], ["Age", "n", (r) => age(r.age_seconds)], ["Identity", "cut", (r) => r.identity || "–"],
  ], now.connections, "No QUIC connection is open.");
  note("fallback-note", now.fallback.length, now.total.Fallback);
  table("fallback", [
    ["Destination", "mono", (r) => r.destination], ["Reason", "", (r) => r.reason], ["User", "n", (r) => r.uid],
    ["Since", "n", (r) => age((Date.parse(now.time) - Date.parse(r.since)) / 1000)], ["For another", "n", (r) => age(Math.max(0, (Date.parse(r.expires) - Date.parse(now.time)) / 1000))],
  ], now.fallback, "None: QUIC is tried everywhere.");
  counts("endings", now.endings, "Reason", "None has ended.");
  counts("fallbacks", now.fallbacks, "Reason", "None.");
  counts("failed", now.failed, "Error", "None.");
  $("log-note").textContent = now.log.length ? `the last ${now.log.length}` : "";
  table("log", [
    ["Time", "", (r) => new Date(r.time).toLocaleTimeString("en-GB")], ["", "level", (r) => r.level], ["", "wide mono", (r) => r.text],
  ], now.log, "None.");
  before = now;
}

function state(ok, text) {
  const e = $("state");
  if (e.textContent !== text) e.textContent = text;
  e.className = "state " + (ok ? "good" : "bad");
}

async function look() {
  try {
    const answer = await fetch("page.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status + " " + answer.statusText);
    draw(await answer.json());
    state(true, "live");
  } catch (e) {
    state(false, "poemqd does not answer");
    console.warn(e);
  }
  setTimeout(look, every);
}

look();
