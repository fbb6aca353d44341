"use strict";

// One line or dashed line as in the charts, for the buttons that switch groups.
function swatch(look) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", "22");
  svg.setAttribute("height", "8");
  const line = document.createElementNS(svg.namespaceURI, "line");
  const gaps = look.dash[1] ? look.dash.join(" ") : "none";
  const parts = {x1: 0, x2: 22, y1: 4, y2: 4, stroke: look.colour, "stroke-width": 3,
                 "stroke-dasharray": gaps};
  for (const [name, value] of Object.entries(parts)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

function button(text, press, ...before) {
  const made = document.createElement("button");
  made.type = "button";
  made.append(...before, text);
  made.addEventListener("click", press);
  return made;
}

function mark(buttons, isOn) {
  buttons.forEach((each, place) => each.setAttribute("aria-pressed", String(isOn(place))));
}

// Vega-Lite's specification of a metric against an axis, for the groups that are switched on.
function specify(data, metric, axis, on) {
  const spec = structuredClone(data.spec);
  if (metric.key !== data.target) spec.layer.length = 3;
  for (const {encoding} of spec.layer) {
    if (encoding.x) encoding.x.title = axis.title;
    encoding.y.title = metric.title;
    if (encoding.y.axis) encoding.y.axis.format = metric.format;
    if (encoding.tooltip) {
      encoding.tooltip[1].title = axis.title;
      encoding.tooltip[2].title = metric.title;
    }
  }
  const rows = data.points[metric.key][axis.key]
    .filter(([place]) => on[place])
    .map(([place, x, y, low, high]) => ({label: data.looks[place].label, x, y, low, high}));
  return {...spec, datasets: {...spec.datasets, rows}, width: "container", height: 360, background: null};
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  const font = getComputedStyle(document.body).fontFamily;
  return {
    font,
    view: {stroke: null},
    legend: {disable: true},
    axis: {labelColor: soft, titleColor: ink, gridColor: line, domainColor: soft, tickColor: soft,
           labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal", titlePadding: 10},
  };
}

function set_up(root) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const on = data.looks.map(() => true);
  const charts = [];

  const groups = root.querySelector(".groups");
  const chips = data.looks.map((look, place) =>
    button(look.label, () => { on[place] = !on[place]; draw(); }, swatch(look)));
  const all = (value) => button(value ? "all" : "none", () => { on.fill(value); draw(); });
  groups.append(...chips, ...(chips.length > 1 ? [all(true), all(false)] : []));
  groups.querySelectorAll("button:not(:has(svg))").forEach((each) => each.classList.add("plain"));

  const names = [...new Set(data.looks.map((look) => look.method))];
  const of_method = (name) => data.looks.flatMap((look, place) => look.method === name ? [place] : []);
  const is_on = (name) => of_method(name).some((place) => on[place]);
  const methods = names.map((name) => button(name, () => {
    const value = !is_on(name);
    for (const place of of_method(name)) on[place] = value;
    draw();
  }));
  if (names.length > 1 && names.length < data.looks.length) {
    root.querySelector(".methods").append(...methods);
  }

  for (const figure of root.querySelectorAll(".chart")) {
    const metrics = data.metrics.filter(
      (metric) => metric.clusters === (figure.dataset.kind === "clusters"));
    if (!metrics.length) { figure.remove(); continue; }
    const chart = {axis: 0, metric: 0, plot: figure.querySelector(".plot")};
    const select = figure.querySelector("select");
    select.append(...metrics.map((metric, place) => new Option(metric.title, place)));
    select.addEventListener("change", () => { chart.metric = Number(select.value); chart.draw(); });
    const mean = metrics.findIndex((metric) => metric.key === "cluster/kl_mean");
    chart.metric = select.value = Math.max(mean, 0);
    const axes = data.axes.map((axis, place) =>
      button(axis.title, () => { chart.axis = place; chart.draw(); }));
    figure.querySelector(".axes").append(...axes);
    chart.draw = () => {
      mark(axes, (place) => place === chart.axis);
      const spec = specify(data, metrics[chart.metric], data.axes[chart.axis], on);
      vegaEmbed(chart.plot, spec, {config: theme(), actions: {export: true, source: false,
                compiled: false, editor: false}, renderer: "svg", downloadFileName: "curves"});
    };
    charts.push(chart);
  }

  function draw() {
    mark(chips, (place) => on[place]);
    mark(methods, (place) => is_on(names[place]));
    for (const chart of charts) chart.draw();
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

document.querySelectorAll(".charts").forEach(set_up);

for (const command of document.querySelectorAll(".command")) {
  const copy = command.querySelector("button");
  copy.addEventListener("click", async () => {
    const text = command.querySelector("pre");
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch {
      document.execCommand("copy");
    }
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
}
