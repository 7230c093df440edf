"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");
const read = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Charts name the page's CSS variables as their colours, so that they follow the reader's scheme.
function coloured(value) {
  if (typeof value === "string") return value.replace(/^var\((--[\w-]+)\)$/, (_, name) => read(name));
  if (Array.isArray(value)) return value.map(coloured);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]));
  return value;
}

function axis(own) {
  const grid = { gridcolor: read("--line"), zerolinecolor: read("--line"), linecolor: read("--line"), automargin: true };
  return { ...grid, ...own };
}

function draw(plot) {
  const figure = coloured(JSON.parse(plot.parentElement.querySelector("script").textContent));
  const select = plot.parentElement.querySelector("select");
  const shown = select ? select.value : null;
  const data = shown === null ? figure.data : figure.data.filter((one) => !("meta" in one) || one.meta === shown);
  const layout = {
    font: { family: "system-ui, sans-serif", size: 12, color: read("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 50, r: 16, t: 12, b: 44 },
    legend: { orientation: "h", yanchor: "bottom", y: 1.02, x: 0 },
    hoverlabel: { bgcolor: read("--raised"), bordercolor: read("--line"), font: { color: read("--ink") } },
    hovermode: "closest",
    ...figure.layout,
  };
  layout.xaxis = axis(layout.xaxis);
  layout.yaxis = axis(layout.yaxis);
  Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true });
}

const plots = [...document.querySelectorAll(".plot")];
const drawn = new Set();
const show = (plot) => { drawn.add(plot); draw(plot); };
const watcher = new IntersectionObserver((seen) => {
  for (const one of seen) if (one.isIntersecting) { watcher.unobserve(one.target); show(one.target); }
}, { rootMargin: "400px" });
for (const plot of plots) {
  watcher.observe(plot);
  plot.parentElement.querySelector("select")?.addEventListener("change", () => show(plot));
}
dark.addEventListener("change", () => drawn.forEach(draw));
addEventListener("beforeprint", () => plots.forEach(show));

for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("th").forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const down = heading.classList.contains("number") ? heading.ariaSort !== "descending" : heading.ariaSort === "ascending";
    table.querySelectorAll("th").forEach((one) => one.removeAttribute("aria-sort"));
    heading.ariaSort = down ? "descending" : "ascending";
    const key = (row) => row.cells[column].dataset.order;
    const compare = (a, b) => (a === "" || b === "") ? (a === "") - (b === "") :
      (down ? -1 : 1) * (heading.classList.contains("number") ? a - b : a.localeCompare(b));
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => compare(key(a), key(b))));
  }));
}
