// The page: controls, and what is drawn when.
const all = JSON.parse(document.getElementById("data").textContent);
const volts = all.voltages && new Voltages(all.voltages);
const borders = all.areas && new Borders(all.areas);
const charts = {}, drawn = new Set();
const at = { step: volts ? volts.step : 0, goTo };

function goTo(step) {
  at.step = Math.max(0, Math.min(volts.steps - 1, step));
  const slider = document.getElementById("step");
  if (slider) slider.value = String(at.step);
  show();
}

// the charts in the window are drawn at the next frame, once for all the events until then
const far = new Set();
function show() {
  document.getElementById("stamp").textContent = volts.stamps[at.step];
  document.getElementById("reading").textContent = volts.reading(at.step);
  for (const [name, chart] of Object.entries(charts)) {
    chart.hideTip();
    if (!far.has(name)) chart.redraw();
  }
}

const KINDS = { map: FeederMap, profile: Profile, heatmap: HeatMap };
const options = { displaylogo: false, responsive: true, scrollZoom: false, showSendToCloud: false, plotlyServerURL: "" };

// the plotting library is large: it is started when the first plot that needs it comes near
function library() {
  if (!window.Plotly) {
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }
  return window.Plotly;
}

function draw(div) {
  if (drawn.has(div)) return;
  drawn.add(div);
  if (div.dataset.chart) {
    charts[div.dataset.chart] = new KINDS[div.dataset.chart](div, volts, at);
    return;
  }
  const figure = all.figures[div.dataset.figure];
  delete figure.layout.height;
  library().newPlot(div, figure.data, figure.layout, options);
  if (borders && div.dataset.figure === "areas_borders") {
    borders.figure = div;
    borders.redraw();
  }
}

// what comes near the window is drawn; a chart that is out of the window again follows the slider when it comes back
const blocks = [...document.querySelectorAll(".plot, .chart")];
function watch(rootMargin, chosen, act) {
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) act(entry.target, entry.isIntersecting, observer);
  }, { rootMargin });
  for (const block of chosen) observer.observe(block);
}
watch("300px", blocks, (block, inside, observer) => {
  if (!inside) return;
  draw(block);
  observer.unobserve(block);
});
watch("0px", blocks.filter((block) => block.dataset.chart), (block, inside) => {
  const name = block.dataset.chart;
  if (!inside) far.add(name);
  else if (far.delete(name) && charts[name]) charts[name].redraw();
});

// paper has no window: everything is drawn, as wide as a page, before it is printed
const root = document.documentElement;
function fit(options) {
  for (const chart of Object.values(charts)) { chart.resize(); chart.paint(); }
  for (const div of drawn) if (div.dataset.figure) window.Plotly.relayout(div, options(div));
}
window.addEventListener("beforeprint", () => {
  root.classList.add("paper");
  blocks.forEach(draw);
  fit((div) => ({ width: div.clientWidth, height: div.clientHeight }));
  for (const item of document.querySelectorAll("details")) item.open = false;
});
window.addEventListener("afterprint", () => {
  root.classList.remove("paper");
  fit(() => ({ width: null, height: null, autosize: true }));
});

if (volts) {
  show();
  const slider = document.getElementById("step"), play = document.getElementById("play");
  if (slider) slider.addEventListener("input", () => goTo(Number(slider.value)));
  for (const radio of document.querySelectorAll('input[name="set"]')) {
    radio.addEventListener("change", () => {
      volts.chosen = Number(radio.value);
      for (const chart of Object.values(charts)) chart.moved();
      show();
    });
  }
  let timer = 0;
  if (play) {
    play.addEventListener("click", () => {
      if (timer) { clearInterval(timer); timer = 0; play.textContent = "▶"; return; }
      play.textContent = "❚❚";
      timer = setInterval(() => goTo((at.step + 1) % volts.steps), 250);
    });
  }
}
root.dataset.ready = "yes";
