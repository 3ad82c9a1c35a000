"use strict";
(function () {
  const all = JSON.parse(document.getElementById("data").textContent);
  const V = all.voltages;
  const plots = {};
  for (const div of document.querySelectorAll(".plot")) plots[div.dataset.figure] = div;
  const drawn = new Set();

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out.buffer;
  }

  // one array of voltages, node by node, 16 bits each; the map, the profile and the heat map read it
  let step = 0, chosen = 0, starts, order, lowest, highest, atX, atY, lines, sets;
  if (V) {
    step = V.step;
    starts = new Int32Array(bytes(V.starts));
    order = new Int32Array(bytes(V.order));
    lowest = new Float32Array(bytes(V.lowest));
    highest = new Float32Array(bytes(V.highest));
    atX = new Float32Array(bytes(V.x));
    atY = new Float32Array(bytes(V.y));
    lines = {};
    for (const name of Object.keys(V.lines)) lines[name] = new Int32Array(bytes(V.lines[name]));
    sets = V.sets.map((s) => ({ label: s.label, values: new Uint16Array(bytes(s.values)) }));
  }
  const TOLERANCE = 1e-5 + 1e-6;

  function voltage(node, t) {
    const level = sets[chosen].values[node * V.steps + t];
    return level === 65535 ? NaN : V.low + level * V.resolution;
  }

  // the conductor of a bus that is nearest to a limit; without limits nearest to 0.95 or 1.05 pu
  function worst(bus, t) {
    let value = NaN, least = Infinity;
    for (let node = starts[bus]; node < starts[bus + 1]; node++) {
      const v = voltage(node, t);
      const low = lowest[node] < 0 ? 0.95 : lowest[node], high = highest[node] > 90 ? 1.05 : highest[node];
      const margin = Math.min(v - low, high - v);
      if (margin < least) { least = margin; value = v; }
    }
    return value;
  }

  function outside(node, t) {
    const v = voltage(node, t);
    return v < lowest[node] - TOLERANCE || v > highest[node] + TOLERANCE;
  }

  function trace(div, meta) { return div.data.findIndex((d) => d.meta === meta); }

  let ringsShown = true;
  function colourMap() {
    const div = plots.map, n = starts.length - 1, colours = new Array(n), ringX = [], ringY = [];
    for (let b = 0; b < n; b++) {
      colours[b] = worst(b, step);
      for (let node = starts[b]; node < starts[b + 1]; node++) {
        if (outside(node, step)) { ringX.push(atX[b]); ringY.push(atY[b]); break; }
      }
    }
    const some = ringX.length > 0;
    if (!some) { ringX.push(null); ringY.push(null); }
    const buses = trace(div, "buses"), rings = trace(div, "outside");
    Plotly.restyle(div, { "marker.color": [colours] }, [buses]);
    if (some || ringsShown) Plotly.restyle(div, { x: [ringX], y: [ringY], "marker.size": V.ring }, [rings]);
    ringsShown = some;
  }

  function drawProfile(withBand) {
    const div = plots.profile, ys = [], at = [];
    for (const name of Object.keys(lines)) {
      const pairs = lines[name], y = new Float32Array((pairs.length / 2) * 3);
      for (let k = 0; k < pairs.length; k += 2) {
        y[(k / 2) * 3] = voltage(pairs[k], step);
        y[(k / 2) * 3 + 1] = voltage(pairs[k + 1], step);
        y[(k / 2) * 3 + 2] = NaN;
      }
      ys.push(y);
      at.push(trace(div, name));
    }
    const band = div.data.findIndex((d) => d.name === "range over the horizon");
    if (withBand && band >= 0) {
      const y = new Float32Array(V.nodes * 3);
      for (let node = 0; node < V.nodes; node++) {
        let low = Infinity, high = -Infinity;
        for (let t = 0; t < V.steps; t++) {
          const v = voltage(node, t);
          if (v < low) low = v;
          if (v > high) high = v;
        }
        y[node * 3] = low; y[node * 3 + 1] = high; y[node * 3 + 2] = NaN;
      }
      ys.push(y);
      at.push(band);
    }
    Plotly.restyle(div, { y: ys }, at);
  }

  function heat() {
    const rows = [];
    for (const b of order) {
      const row = new Float32Array(V.steps);
      for (let t = 0; t < V.steps; t++) row[t] = worst(b, t);
      rows.push(row);
    }
    return rows;
  }

  function read() {
    document.getElementById("stamp").textContent = V.stamps[step];
    let low = Infinity, high = -Infinity, count = 0;
    for (let node = 0; node < V.nodes; node++) {
      const v = voltage(node, step);
      if (v < low) low = v;
      if (v > high) high = v;
      if (outside(node, step)) count++;
    }
    const range = low <= high ? low.toFixed(4) + " to " + high.toFixed(4) + " pu" : "no voltages at this step";
    document.getElementById("reading").textContent =
      range + (count ? ", " + count + " node" + (count > 1 ? "s" : "") + " outside limits" : ", all inside limits");
  }

  // the map follows the slider; the profile of a large feeder waits until it rests
  let waiting = false, newSet = false, bandDue = false, later = 0;
  function show(changedSet) {
    newSet = newSet || changedSet;
    read();
    if (waiting) return;
    waiting = true;
    // drawn once for all the events that are waiting
    setTimeout(() => {
      waiting = false;
      const wasNew = newSet;
      newSet = false;
      if (drawn.has("map")) colourMap();
      if (wasNew && drawn.has("heatmap")) Plotly.restyle(plots.heatmap, { z: [heat()] }, [0]);
      bandDue = bandDue || wasNew;
      clearTimeout(later);
      later = setTimeout(() => {
        if (drawn.has("profile")) drawProfile(bandDue);
        bandDue = false;
      }, V.nodes > 2500 ? 200 : 0);
    }, 0);
  }

  function goTo(t) {
    step = Math.max(0, Math.min(V.steps - 1, t));
    const slider = document.getElementById("step");
    if (slider) slider.value = String(step);
    show(false);
  }

  const options = { displaylogo: false, responsive: true, scrollZoom: false, showSendToCloud: false, plotlyServerURL: "" };
  function draw(name) {
    if (drawn.has(name)) return;
    const div = plots[name], fig = all.figures[name];
    if (name === "heatmap") fig.data[0].z = heat();
    if (fig.layout.height) delete fig.layout.height;
    Plotly.newPlot(div, fig.data, fig.layout, name === "map" ? { ...options, scrollZoom: true } : options);
    drawn.add(name);
    if (name === "map") colourMap();
    if (name === "profile") drawProfile(chosen !== 0);
    if (name === "heatmap" && V.steps > 1) {
      div.on("plotly_click", (event) => {
        const at = event.points[0].pointIndex || event.points[0].pointNumber;
        if (at) goTo(at[1]);
      });
    }
  }

  // plots are drawn when they come near the window, so that a long report opens at once; all of them before printing
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target.dataset.figure); }
    }
  }, { rootMargin: "600px" });
  for (const div of Object.values(plots)) near.observe(div);
  window.addEventListener("beforeprint", () => {
    for (const name of Object.keys(plots)) draw(name);
    for (const item of document.querySelectorAll("details")) item.open = false;
  });

  if (V) {
    read();
    const slider = document.getElementById("step"), play = document.getElementById("play");
    if (slider) slider.addEventListener("input", () => { step = Number(slider.value); show(false); });
    for (const radio of document.querySelectorAll('input[name="set"]')) {
      radio.addEventListener("change", () => { chosen = Number(radio.value); show(true); });
    }
    let timer = 0;
    if (play) {
      play.addEventListener("click", () => {
        if (timer) { clearInterval(timer); timer = 0; play.textContent = "▶"; return; }
        play.textContent = "❚❚";
        timer = setInterval(() => goTo((step + 1) % V.steps), 250);
      });
    }
  }
  document.documentElement.dataset.ready = "yes";
})();
