/* ptmkb: formulas, the lineage graph, and folds that open for the line that a link names. No request leaves the site. */
"use strict";

function drawFormulas() {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const source = element.textContent.trim();
    const display = source.startsWith("\\[");
    const tex = source.replace(/^\\[[(]/, "").replace(/\\[\])]$/, "");
    katex.render(tex, element, { displayMode: display, throwOnError: false });
  }
}

/** Folded code is text until it is wanted; its numbers are links from then on. */
function unfold(fold) {
  const text = fold.querySelector("script[type='text/x-folded']");
  if (!text) return;
  const template = document.createElement("template");
  template.innerHTML = text.textContent;
  for (const line of template.content.querySelectorAll(".kb-line")) {
    line.firstChild.href = `${text.dataset.upstream}#${line.id}`;
    line.firstChild.tabIndex = -1;
  }
  text.replaceWith(template.content);
}

/** The element that the address names; a folded line is made first. */
function addressed() {
  const id = decodeURIComponent(location.hash.slice(1));
  const line = /^L(\d+)$/.exec(id);
  if (line && !document.getElementById(id)) {
    const holds = (fold) => Number(fold.dataset.first) <= Number(line[1]) && Number(line[1]) <= Number(fold.dataset.last);
    [...document.querySelectorAll("details.kb-fold")].filter(holds).forEach(unfold);
  }
  return id ? document.getElementById(id) : null;
}

/** Open the folds that hold the element named by the address, then go there. */
function openTarget() {
  const target = addressed();
  if (!target) return;
  const source = target.closest(".kb-source");
  if (source && target.closest(".kb-between")) source.classList.remove("kb-only");
  for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  // Made too late for the browser to have marked it as the target.
  for (const line of document.querySelectorAll(".kb-target")) line.classList.remove("kb-target");
  if (target.classList.contains("kb-line")) target.classList.add("kb-target");
  target.scrollIntoView();
}

/** The theme would write the heading that it takes for the current one into the address; here that is the tour's to do. */
if (document.querySelector(".kb-source")) {
  for (const list of document.querySelectorAll("[data-md-component=toc]")) list.removeAttribute("data-md-component");
}

/** An annotated file: notes fold on a phone, a bar leads from note to note, and only the annotated parts can be shown. */
function readSource() {
  const source = document.querySelector(".kb-source");
  if (!source) return;
  document.body.classList.add("kb-wide");
  const notes = [...source.querySelectorAll("details.kb-note")];
  const phone = matchMedia("(max-width: 60em)");
  const lay = () => { for (const note of notes) note.open = !phone.matches; };
  lay();
  phone.addEventListener("change", lay);

  const folds = [...source.querySelectorAll("details.kb-fold")];
  source.addEventListener("toggle", (event) => { if (event.target.matches("details.kb-fold")) unfold(event.target); }, true);
  const idle = window.requestIdleCallback || ((work) => setTimeout(work, 200));
  const unfoldNext = () => { // so that the browser's own search finds what is folded
    const fold = folds.shift();
    if (fold) { unfold(fold); idle(unfoldNext); }
  };
  window.addEventListener("load", () => idle(unfoldNext));

  const bar = source.querySelector(".kb-tour");
  const [previous, next] = bar.querySelectorAll("button");
  const [count] = bar.getElementsByTagName("span");
  const [only] = bar.getElementsByTagName("input");
  const ids = notes.map((note) => note.querySelector("h3").id);
  let current = -1, settled = null, reading = false;
  const show = (index) => {
    current = index;
    count.textContent = bar.dataset.label.replace("{k}", index < 0 ? "–" : index + 1);
    previous.disabled = index <= 0;
    next.disabled = index + 1 >= notes.length;
    notes.forEach((note, i) => note.classList.toggle("kb-current", i === index));
  };
  const READING_LINE = 0.4; // of the window's height: a note that begins above it is being read
  const follow = () => {
    if (settled !== null && Math.abs(scrollY - settled) < 4) return; // still where a step led, also at the page's end
    settled = null;
    const tops = notes.map((note) => note.getBoundingClientRect().top);
    const index = tops.filter((top) => top < innerHeight * READING_LINE).length - 1;
    if (index === current) return;
    show(index);
    if (reading) history.replaceState(history.state, "", index < 0 ? location.pathname + location.search : `#${ids[index]}`);
  };
  const go = (index) => {
    if (index < 0 || index >= notes.length) return;
    location.replace(`#${ids[index]}`); // no entry in the history for each step
    openTarget();
    settled = scrollY;
    show(index);
  };
  previous.addEventListener("click", () => go(current - 1));
  next.addEventListener("click", () => go(current + 1));
  window.addEventListener("keydown", (event) => { // before the theme, which turns pages with these keys
    const typing = event.target.closest && event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key !== "n" && event.key !== "p") return;
    event.preventDefault();
    event.stopPropagation();
    go(current + (event.key === "n" ? 1 : -1));
  }, true);
  const led = () => {
    if (!location.hash) return;
    const index = ids.indexOf(decodeURIComponent(location.hash.slice(1)));
    settled = scrollY;
    if (index >= 0) show(index);
  };
  window.addEventListener("hashchange", led);
  let waiting = false;
  window.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; follow(); });
  }, { passive: true });

  const KEY = "ptmkb.only-annotated";
  const narrow = (wanted) => {
    const here = notes[Math.max(current, 0)];
    const before = here ? here.getBoundingClientRect().top : 0;
    source.classList.toggle("kb-only", wanted);
    if (here && current >= 0) scrollBy(0, here.getBoundingClientRect().top - before); // what was being read stays put
  };
  try { only.checked = localStorage.getItem(KEY) === "1"; } catch { /* storage may be forbidden */ }
  narrow(only.checked);
  only.addEventListener("change", () => {
    narrow(only.checked);
    try { localStorage.setItem(KEY, only.checked ? "1" : "0"); } catch { /* not remembered then */ }
  });
  show(-1);
  bar.hidden = false;
  // After openTarget, which goes to the note that the address names.
  window.addEventListener("load", () => { follow(); led(); reading = true; });
}

/** The table of architectures: rows that hold what is typed and every kind that is chosen. */
function filterArchitectures() {
  const form = document.querySelector(".kb-filter");
  if (!form) return;
  const rows = [...document.querySelectorAll(".kb-architectures tbody tr")];
  const [find, count] = [form.querySelector("input"), form.querySelector("output")];
  const choices = [...form.querySelectorAll("select")];
  const apply = () => {
    const wanted = find.value.trim().toLowerCase();
    const chosen = choices.filter((choice) => choice.value);
    for (const row of rows) {
      const kinds = (choice) => row.cells[choice.dataset.column].dataset.kinds.split(" ");
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted)
        || !chosen.every((choice) => kinds(choice).includes(choice.value));
    }
    count.textContent = count.dataset.label.replace("{shown}", rows.filter((row) => !row.hidden).length);
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", apply);
  form.hidden = false;
  apply();
}

/** The language selector keeps the section, too. */
function keepHash() {
  for (const link of document.querySelectorAll("a[data-ptmkb-language]")) {
    link.addEventListener("click", () => { link.hash = location.hash; });
  }
}

const HUES = {
  light: { fill: "#ffffff", text: "#1f2a35", faint: "#d9e0e7", edge: "#7f93a6", year: "#8794a1", rule: "#e3e8ed" },
  dark: { fill: "#1f2933", text: "#e5ebf0", faint: "#36424e", edge: "#8fa3b5", year: "#8b98a5", rule: "#2c3843" },
};
const FAMILIES = [
  "#2f6f9f", "#c2551d", "#2d8659", "#8a5bb0", "#b5862a", "#b2475f", "#3a8f8f", "#6b7280", "#5661b3", "#96613a", "#0e7fa8", "#7a8b2f",
  "#a33fa3", "#c27c7c", "#4f6d4a", "#d08a1d",
];

function drawGraph() {
  const holder = document.getElementById("kb-graph-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const canvas = document.querySelector(".kb-graph-canvas");
  const tools = document.querySelector(".kb-graph-tools");
  const categories = [...new Set(data.nodes.map((node) => node.category))];
  const family = (node) => FAMILIES[categories.indexOf(node.category) % FAMILIES.length];
  const byId = new Map(data.nodes.map((node) => [node.id, node]));
  let hues, focus = null;

  const nodes = new vis.DataSet(data.nodes.map((node) => ({ ...node })));
  const edges = new vis.DataSet(data.edges.map((edge) => ({ ...edge })));
  const network = new vis.Network(canvas, { nodes, edges }, data.options);
  canvas.ptmkb = { network, nodes, edges };

  function paint() {
    hues = document.body.dataset.mdColorScheme === "slate" ? HUES.dark : HUES.light;
    const shown = new Set([...tools.elements].filter((box) => box.name === "relation" && box.checked).map((box) => box.value));
    const near = focus && new Set([focus, ...byId.get(focus).ancestors, ...byId.get(focus).descendants]);
    nodes.update(data.nodes.map((node) => {
      const lit = !near || near.has(node.id);
      return {
        id: node.id,
        color: { background: hues.fill, border: lit ? family(node) : hues.faint, highlight: { background: hues.fill, border: family(node) }, hover: { background: hues.fill, border: family(node) } },
        font: { color: lit ? hues.text : hues.faint },
        borderWidth: node.id === focus ? 3 : 1.5,
      };
    }));
    edges.update(data.edges.map((edge) => {
      const lit = near ? near.has(edge.from) && near.has(edge.to) && edge.relation !== "code" : true;
      return {
        id: edge.id,
        hidden: !shown.has(edge.relation),
        color: { color: lit ? (near ? family(byId.get(edge.from)) : hues.edge) : hues.faint, highlight: hues.text, hover: hues.text },
        width: lit && near ? 2 : 1,
      };
    }));
  }

  network.on("beforeDrawing", (context) => {
    const years = Object.entries(data.years).map(([year, x]) => [Number(year), x]).sort((a, b) => a[0] - b[0]);
    context.font = "14px sans-serif";
    context.textAlign = "center";
    years.forEach(([year, x], i) => {
      context.strokeStyle = hues.rule;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(x, data.top);
      context.lineTo(x, data.bottom);
      context.stroke();
      if (i + 1 < years.length) {
        context.fillStyle = hues.year;
        context.fillText(String(year), (x + years[i + 1][1]) / 2, data.top - 8);
      }
    });
  });
  network.on("hoverNode", (event) => { focus = event.node; canvas.style.cursor = "pointer"; paint(); });
  network.on("blurNode", () => { focus = null; canvas.style.cursor = ""; paint(); });
  network.on("click", (event) => {
    if (event.nodes.length) location.href = byId.get(event.nodes[0]).url;
  });

  const show = (id) => {
    focus = id;
    paint();
    network.focus(id, { scale: Math.max(network.getScale(), 0.9) });
  };
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("change", (event) => { if (event.target.name === "relation") paint(); });
  tools.querySelector("input[type=search]").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    const found = wanted && (data.nodes.find((node) => node.label.toLowerCase() === wanted)
      || data.nodes.find((node) => node.label.toLowerCase().startsWith(wanted)));
    if (found) show(found.id);
    else { focus = null; paint(); }
  });
  tools.querySelector("button").addEventListener("click", () => { focus = null; paint(); network.fit(); });
  new MutationObserver(paint).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });

  paint();
  network.fit();
  if (canvas.clientWidth < 600) {  // a phone: names that can be read, beginning with the oldest; the rest is a swipe away
    const scale = 0.62;
    network.moveTo({ scale, position: { x: Math.min(...Object.values(data.years)) + canvas.clientWidth / 2 / scale, y: 0 } });
  }
  const named = decodeURIComponent(location.hash.slice(1));
  if (byId.has(named)) show(named);
  canvas.dataset.drawn = String(data.nodes.length);
}

document.addEventListener("DOMContentLoaded", () => {
  readSource();
  drawFormulas();
  openTarget();
  keepHash();
  filterArchitectures();
  drawGraph();
});
window.addEventListener("hashchange", openTarget);
