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

const menus = (plot) => [...plot.parentElement.querySelectorAll("select")];

function draw(plot) {
  const figure = coloured(JSON.parse(plot.parentElement.querySelector("script").textContent));
  const shown = menus(plot).map((menu) => menu.value);
  const data = figure.data.filter((one) => !("meta" in one) || one.meta.every((value, at) => value === shown[at]));
  const own = { ...figure.layout, ...figure.layouts[shown[0]] };
  // A long legend has its place beside a wide chart, and makes a narrow one taller.
  const many = own.showlegend === false ? 0 : Math.max(0, data.length - 4);
  const beside = many && plot.clientWidth > 700;
  plot.style.height = `${+plot.dataset.height + (beside ? 0 : 17 * many)}px`;
  const layout = {
    font: { family: "system-ui, sans-serif", size: 12, color: read("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 50, r: 16, t: 12, b: 44 },
    legend: beside ? { x: 1.01, y: 1 } : { orientation: "h", yanchor: "bottom", y: 1.02, x: 0 },
    hoverlabel: { bgcolor: read("--raised"), bordercolor: read("--line"), font: { color: read("--ink") } },
    hovermode: "closest",
    ...own,
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
  for (const menu of menus(plot)) menu.addEventListener("change", () => show(plot));
}
dark.addEventListener("change", () => drawn.forEach(draw));
addEventListener("beforeprint", () => {
  plots.forEach(show);
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
});

for (const block of document.querySelectorAll(".overlays")) {
  const menu = block.querySelector("select");
  const choose = () => block.querySelectorAll("[data-choice]").forEach((one) => { one.hidden = one.dataset.choice !== menu.value; });
  if (menu) { menu.addEventListener("change", choose); choose(); }
}

for (const table of document.querySelectorAll("table.sortable")) {
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
