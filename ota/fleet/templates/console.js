"use strict";
// Numbers come once a second by server-sent events; the tables are fetched again, rendered and escaped by the server.
const byId = id => document.getElementById(id);
const count = n => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const milli = n => n >= 100000 ? count(Math.floor(n / 1000)) : (Math.floor(n / 100) / 10).toFixed(1);
const span = us => {
  const steps = [["h", 3.6e9], ["min", 6e7], ["s", 1e6], ["ms", 1e3]];
  const [unit, size] = steps.find(step => us >= step[1]) || ["µs", 1];
  const value = us / size;
  return (size === 1 || value >= 100 ? Math.floor(value) : (Math.floor(value * 10) / 10).toFixed(1)) + " " + unit;
};
const rates = [];
let seconds = 0;
let fetching = false;

function draw() {
  const high = Math.max(1, ...rates) * 1.1;
  const points = rates.map((rate, i) => [60 - rates.length + 1 + i, 20 - rate / high * 20]);
  const line = points.map((p, i) => (i ? "L" : "M") + p[0].toFixed(2) + " " + p[1].toFixed(2)).join("");
  byId("spark-line").setAttribute("d", line);
  byId("spark-area").setAttribute("d", points.length > 1 ? line + "L60 20L" + points[0][0] + " 20Z" : "");
}

function link(good, word) {
  byId("link-dot").className = "dot " + (good ? "good" : "busy");
  byId("link-word").textContent = word;
  document.body.classList.toggle("lost", !good);
}

async function refresh() {
  if (fetching || document.hidden) return;
  fetching = true;
  try {
    const answer = await fetch("/live", { credentials: "same-origin" });
    if (answer.status === 401) return location.assign("/login");
    if (answer.ok && getSelection().isCollapsed) byId("live").innerHTML = await answer.text();
  } catch (fault) {
    link(false, "no connection");
  } finally {
    fetching = false;
  }
}

const events = new EventSource("/api/v1/events");
events.addEventListener("status", event => {
  const status = JSON.parse(event.data);
  const usage = status.usage;
  link(true, "live");
  byId("rate").textContent = milli(status.calls_per_second_milli);
  byId("online").textContent = count(status.online);
  byId("online-note").textContent = "of " + count(status.nodes);
  byId("calls").textContent = count(usage.calls_ok + usage.calls_failed + usage.calls_platform);
  byId("calls-note").textContent = count(usage.calls_failed) + " failed";
  byId("cpu").textContent = span(usage.cpu_us);
  const [size, unit] = usage.memory_mib_ms < 1024000 ? [1000, " MiB·s"] : [1024000, " GiB·s"];
  byId("cpu-note").textContent = (usage.memory_mib_ms / size).toFixed(2) + unit;
  for (const one of status.by_function) {
    const cell = document.querySelector("[data-rate=\"" + one.function + "\"]");
    if (cell) cell.textContent = milli(one.calls_per_second_milli);
  }
  rates.push(status.calls_per_second_milli);
  if (rates.length > 61) rates.shift();
  draw();
  seconds += 1;
  if (seconds % 2 === 0) refresh();
});
events.onerror = () => {
  link(false, "no connection");
  refresh();
};
