"use strict";
// What a report says only ever becomes text (textContent) or an option's value, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const at = new Map(data.columns.map((column, index) => [column.name, index]));
const shown = ["machine", "verdict", "route", "cause", "product", "gpu_models", "driver", "nvidia_fs", "kernel",
  "direct_gib_s", "bounce_gib_s", "storage_gib_s", "deviations", "started"];
const selects = ["verdict", "failed", "gpu_models", "driver"];
const STEP = 200;
const form = document.getElementById("filters");
const head = document.querySelector("#rows thead");
const body = document.querySelector("#rows tbody");
const more = document.getElementById("more");

const cell = (row, name) => row[at.get(name)];
const words = (value) => value === null ? "" : Array.isArray(value) ? value.join("; ") : String(value);
// Of each kind once, counted: "8 x NVIDIA H100".
function counted(list) {
  const counts = new Map();
  for (const one of list) counts.set(one, (counts.get(one) || 0) + 1);
  return [...counts].map(([one, count]) => count > 1 ? count + " x " + one : one).join("; ");
}
const haystacks = data.rows.map((row) => row.map(words).join("\n").toLowerCase());

for (const name of selects) {
  const counts = new Map();
  for (const row of data.rows) {
    const value = cell(row, name);
    for (const one of new Set(Array.isArray(value) ? value : [words(value)])) counts.set(one, (counts.get(one) || 0) + 1);
  }
  const select = document.getElementById(name);
  for (const [value, count] of [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))) {
    const option = document.createElement("option");
    // "all" is the empty value; what is not known needs another.
    option.value = value === "" ? "\u0000" : value;
    option.textContent = (value || "none") + " (" + count + ")";
    select.append(option);
  }
}

let sortBy = null;
let descending = false;
let limit = STEP;

function kept() {
  const needles = document.getElementById("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = selects.map((name) => [name, document.getElementById(name).value]).filter(([, value]) => value !== "");
  const deviating = document.getElementById("deviating").checked;
  const fits = (row, index) =>
    needles.every((needle) => haystacks[index].includes(needle)) &&
    (!deviating || cell(row, "deviations").length > 0) &&
    wanted.every(([name, value]) => {
      const has = cell(row, name);
      const plain = value === "\u0000" ? "" : value;
      return Array.isArray(has) ? has.includes(plain) : words(has) === plain;
    });
  const rows = data.rows.filter(fits);
  if (sortBy !== null) {
    const index = at.get(sortBy);
    const isNumber = data.columns[index].kind === "number";
    const sign = descending ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [a[index], b[index]];
      // What is not known comes last, either way round.
      if (words(x) === "" || words(y) === "") return (words(x) === "") - (words(y) === "");
      const [p, q] = isNumber ? [x, y] : [words(x), words(y)];
      return p < q ? -sign : p > q ? sign : 0;
    });
  }
  return rows;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function line(row) {
  const tr = element("tr", undefined, "row");
  for (const name of shown) {
    const value = cell(row, name);
    const td = element("td", undefined, data.columns[at.get(name)].kind === "number" ? "number" : "");
    if (name === "verdict" && value) {
      td.append(element("span", value, value));
      if (cell(row, "simulated")) td.append(" ", element("span", "SIMULATED", "simulated"));
      if (!cell(row, "complete")) td.append(" cut off");
    } else if (name === "deviations") {
      td.textContent = value.length ? String(value.length) : "";
      td.title = value.join("\n");
      if (value.length) td.className = "deviates";
    } else if (Array.isArray(value)) {
      td.textContent = counted(value);
    } else {
      td.textContent = words(value);
    }
    tr.append(td);
  }
  tr.addEventListener("click", () => open(tr, row));
  return tr;
}

// Everything that is known of a row, below it.
function open(tr, row) {
  const next = tr.nextElementSibling;
  if (next && next.classList.contains("all")) {
    next.remove();
    return;
  }
  const table = element("table");
  data.columns.forEach((column, index) => {
    const text = words(row[index]);
    if (text === "") return;
    const inner = element("tr");
    const label = element("td", column.name);
    label.title = column.meaning;
    inner.append(label, element("td", column.name === "deviations" ? row[index].join("\n") : text));
    inner.lastChild.style.whiteSpace = "pre-line";
    table.append(inner);
  });
  const td = element("td");
  td.colSpan = shown.length;
  td.append(table);
  const below = element("tr", undefined, "all");
  below.append(td);
  tr.after(below);
}

function draw() {
  const rows = kept();
  document.getElementById("count").textContent = rows.length + " of " + data.rows.length;
  body.replaceChildren(...rows.slice(0, limit).map(line));
  more.hidden = rows.length <= limit;
  for (const th of head.querySelectorAll("th")) {
    th.setAttribute("aria-sort", th.dataset.name !== sortBy ? "none" : descending ? "descending" : "ascending");
    th.textContent = th.dataset.name + (th.dataset.name !== sortBy ? "" : descending ? " \u2193" : " \u2191");
  }
}

const titles = element("tr");
for (const name of shown) {
  const th = element("th", name);
  th.dataset.name = name;
  th.title = data.columns[at.get(name)].meaning;
  th.addEventListener("click", () => {
    descending = sortBy === name && !descending;
    sortBy = name;
    draw();
  });
  titles.append(th);
}
head.append(titles);
form.addEventListener("input", () => { limit = STEP; draw(); });
// The fields are empty only after the event.
form.addEventListener("reset", () => setTimeout(() => { limit = STEP; draw(); }));
form.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", () => { limit += STEP * 5; draw(); });
draw();
