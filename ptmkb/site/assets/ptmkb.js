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

/** Open the fold that holds the element named by the address, then go there. */
function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target && target.closest("details:not([open])");
  if (fold) {
    fold.open = true;
    target.scrollIntoView();
  }
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
  if (document.querySelector(".kb-source")) document.body.classList.add("kb-wide");
  drawFormulas();
  openTarget();
  keepHash();
  drawGraph();
});
window.addEventListener("hashchange", openTarget);
