// The voltages of the report: one array of 16-bit numbers, and the three charts that are drawn from it.
const ABSENT = 65535, TOLERANCE = 1e-5 + 1e-6, SHADES = 128;

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out.buffer;
}
const whole = (text) => new Int32Array(bytes(text)), real = (text) => new Float32Array(bytes(text));

// node by node; a bus is one that has a node
class Voltages {
  constructor(given) {
    Object.assign(this, given);
    for (const name of ["starts", "conductor", "bus", "order", "upstream", "closed", "open"]) this[name] = whole(given[name]);
    for (const name of ["lowest", "highest", "x", "y", "distance"]) this[name] = real(given[name]);
    this.buses = this.starts.length - 1;
    this.sets = given.sets.map((s) => ({ label: s.label, values: new Uint16Array(bytes(s.values)) }));
    this.chosen = 0;
    const scale = given.scale.map(([at, colour]) => [at, [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16))]);
    this.shades = [];
    for (let k = 0; k < SHADES; k++) {
      const share = k / (SHADES - 1), i = Math.max(1, scale.findIndex(([at]) => at >= share));
      const [a, from] = scale[i - 1], [b, to] = scale[i], w = (share - a) / (b - a);
      this.shades.push(from.map((c, n) => Math.round(c + w * (to[n] - c))));
    }
  }

  get set() {
    const set = this.sets[this.chosen];
    if (!set.worst) this.prepare(set);
    return set;
  }
  pu(level) { return level === ABSENT ? NaN : this.low + level * this.resolution; }
  voltage(node, t) { return this.pu(this.set.values[node * this.steps + t]); }
  // position of a level on the colour scale
  shade(level) {
    const [low, high] = this.range, share = (this.low + level * this.resolution - low) / (high - low);
    return Math.max(0, Math.min(SHADES - 1, Math.round(share * (SHADES - 1))));
  }
  colour(share) { return `rgb(${this.shades[Math.max(0, Math.min(SHADES - 1, Math.round(share * (SHADES - 1))))]})`; }

  // per bus and step the conductor nearest to a limit (without limits: to 0.95 or 1.05 pu), and whether one is outside
  prepare(set) {
    const T = this.steps, best = new Float64Array(T);
    const level = (v) => (v - this.low) / this.resolution;
    set.worst = new Uint16Array(this.buses * T).fill(ABSENT);
    set.outside = new Uint8Array(this.buses * T);
    set.least = new Uint16Array(T).fill(ABSENT);
    set.most = new Uint16Array(T);
    set.count = new Int32Array(T);
    set.ever = false;
    for (let b = 0; b < this.buses; b++) {
      best.fill(Infinity);
      for (let node = this.starts[b]; node < this.starts[b + 1]; node++) {
        const lowest = this.lowest[node], highest = this.highest[node];
        const low = level(lowest < 0 ? 0.95 : lowest), high = level(highest > 90 ? 1.05 : highest);
        const under = level(lowest - TOLERANCE), over = level(highest + TOLERANCE);
        for (let t = 0, at = node * T, own = b * T; t < T; t++, at++, own++) {
          const v = set.values[at];
          if (v === ABSENT) continue;
          const margin = Math.min(v - low, high - v);
          if (margin < best[t]) { best[t] = margin; set.worst[own] = v; }
          if (v < under || v > over) { set.outside[own] = 1; set.count[t]++; set.ever = true; }
          if (v < set.least[t]) set.least[t] = v;
          if (v > set.most[t]) set.most[t] = v;
        }
      }
    }
  }

  reading(t) {
    const s = this.set, n = s.count[t];
    if (s.least[t] === ABSENT) return "no voltages at this step";
    const range = `${this.pu(s.least[t]).toFixed(4)} to ${this.pu(s.most[t]).toFixed(4)} pu`;
    return range + (n ? `, ${n} node${n > 1 ? "s" : ""} outside limits` : ", all inside limits");
  }

  // lines of text about a bus
  lines(bus, t) {
    const out = [`bus ${this.names[bus]}`, ...(this.about[bus] || [])], from = this.starts[bus], to = this.starts[bus + 1];
    if (to - from > 1) {
      for (let node = from; node < to; node++) {
        out.push(`conductor ${this.conductor[node]}: ${this.number(this.voltage(node, t))}`);
      }
    }
    return out;
  }
  number(v) { return Number.isNaN(v) ? "not known" : `${v.toFixed(4)} pu`; }
}

function extent(values, pad) {
  let low = Infinity, high = -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  if (!(low <= high)) return [0, 1];
  const room = (high - low) * pad || 0.5;
  return [low - room, high + room];
}

class FeederMap extends Chart {
  constructor(div, volts, at) {
    const [x0, x1] = extent(volts.x, 0.03), [y0, y1] = extent(volts.y, 0.03);
    super(div, { x0, x1, y0, y1 }, { same: !volts.drawn });
    this.volts = volts;
    this.at = at;
    const entries = volts.devices.map((d) => ({
      key: d.label, label: d.label, draw: (ctx) => symbol(ctx, d.symbol, 13, 9, Math.min(d.size, 13), d.colour),
    }));
    for (const d of volts.devices) d.where = whole(d.at);
    if (volts.open.length) {
      entries.unshift({ key: "open", label: "open switch", draw: (ctx) => this.dashed(ctx, () => this.stroke(ctx, MUTED, 2, 9, 24, 9)) });
    }
    if (volts.sets.some((s, k) => { volts.sets[k].worst || volts.prepare(s); return s.ever; })) {
      entries.push({ key: "outside", label: "outside limits", draw: (ctx) => this.circle(ctx, 13, 9, 6) });
    }
    this.legend(entries);
    this.moved();
  }

  margins() { return { l: 8, r: 84, t: 8, b: 8 }; }

  dashed(ctx, draw) {
    ctx.setLineDash([2, 3]);
    ctx.lineWidth = 1.3;
    draw();
    ctx.setLineDash([]);
  }

  circle(ctx, x, y, r) {
    ctx.lineWidth = 2;
    ctx.strokeStyle = OUTSIDE;
    ctx.beginPath();
    ctx.arc(x, y, r, 0, 2 * Math.PI);
    ctx.stroke();
  }

  segments(ctx, pairs, colour) {
    const v = this.volts;
    ctx.strokeStyle = colour;
    for (let k = 0; k < pairs.length;) {
      ctx.beginPath();  // long paths are slow to draw
      for (const end = Math.min(pairs.length, k + 400); k < end; k += 2) {
        ctx.moveTo(this.px(v.x[pairs[k]]), this.py(v.y[pairs[k]]));
        ctx.lineTo(this.px(v.x[pairs[k + 1]]), this.py(v.y[pairs[k + 1]]));
      }
      ctx.stroke();
    }
  }

  drawBase(ctx) {
    const v = this.volts;
    if (!v) return;
    this.colourBar(ctx, (share) => v.colour(share), ...v.range, "voltage, pu");
    this.clipped(ctx, () => {
      ctx.lineWidth = v.buses > 1500 && this.zoom < 2 ? 1 : 1.3;
      this.segments(ctx, v.closed, "#aab4bf");
      if (!this.hidden.has("open")) this.dashed(ctx, () => this.segments(ctx, v.open, MUTED));
      this.marks(ctx, true);
    });
    const n = v.buses;
    this.xs = new Float32Array(n);
    this.ys = new Float32Array(n);
    for (let b = 0; b < n; b++) { this.xs[b] = this.px(v.x[v.bus[b]]); this.ys[b] = this.py(v.y[v.bus[b]]); }
    this.sprites();
  }

  // every shade once, to be stamped; a disc is drawn many times faster as a picture than as a path
  sprites() {
    const v = this.volts, dpr = this.dpr, grown = Math.min(this.zoom, 30) ** 0.3;
    const r = (Math.min(Math.max(9, v.size), v.size * grown) / 2) * dpr, ring = r + 3 * dpr;
    const edge = v.buses < 1000 || r > 3.5 * dpr ? 0.6 * dpr : 0, cell = 2 * Math.ceil(ring + dpr + 1);
    this.cell = cell;
    this.atlas = sheet(cell * (SHADES + 1), cell);
    const ctx = this.atlas.getContext("2d");
    for (let k = 0; k <= SHADES; k++) {
      ctx.beginPath();
      ctx.arc((k + 0.5) * cell, cell / 2, k < SHADES ? r : ring, 0, 2 * Math.PI);
      ctx.lineWidth = k < SHADES ? edge : 2 * dpr;
      ctx.strokeStyle = k < SHADES ? "#ffffff" : OUTSIDE;
      if (k < SHADES) { ctx.fillStyle = v.colour(k / (SHADES - 1)); ctx.fill(); }
      if (ctx.lineWidth && (edge || k === SHADES)) ctx.stroke();
    }
  }

  drawData(ctx) {
    const v = this.volts;
    if (!v) return;
    const t = this.at.step, set = v.set, n = v.buses, shade = new Uint8Array(n), count = new Int32Array(SHADES + 1);
    // what is far from the middle of the scale is drawn last, so that it is not covered
    const rank = (s) => Math.abs(2 * s - (SHADES - 1)) >> 1;
    for (let b = 0; b < n; b++) {
      const level = set.worst[b * v.steps + t];
      shade[b] = level === ABSENT ? 255 : v.shade(level);
      if (level !== ABSENT) count[rank(shade[b]) + 1]++;
    }
    for (let k = 1; k <= SHADES; k++) count[k] += count[k - 1];
    const sorted = new Int32Array(count[SHADES]);
    for (let b = 0; b < n; b++) if (shade[b] !== 255) sorted[count[rank(shade[b])]++] = b;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    const cell = this.cell, half = cell / 2, dpr = this.dpr, width = this.canvas.width, height = this.canvas.height;
    const stamp = (b, k) => {
      const x = Math.round(this.xs[b] * dpr) - half, y = Math.round(this.ys[b] * dpr) - half;
      if (x > -cell && y > -cell && x < width && y < height) ctx.drawImage(this.atlas, k * cell, 0, cell, cell, x, y, cell, cell);
    };
    // of buses on one spot only the last would be seen, and the others are not drawn
    const across = (width >> 1) + 1, taken = new Uint8Array(across * ((height >> 1) + 1)), seen = [];
    for (let k = sorted.length - 1; k >= 0; k--) {
      const b = sorted[k], x = this.xs[b] * dpr, y = this.ys[b] * dpr;
      if (n > 1500 && x >= 0 && y >= 0 && x < width && y < height) {
        const spot = (y >> 1) * across + (x >> 1);
        if (taken[spot]) continue;
        taken[spot] = 1;
      }
      seen.push(b);
    }
    for (let k = seen.length - 1; k >= 0; k--) stamp(seen[k], shade[seen[k]]);
    if (set.count[t] && !this.hidden.has("outside")) {
      for (let b = 0; b < n; b++) if (set.outside[b * v.steps + t]) stamp(b, SHADES);
    }
  }

  // devices of a kind with very many are drawn under the voltages, thinner, others over them
  marks(ctx, many) {
    const v = this.volts, grown = v.buses < 1500 ? 1 : Math.min(1.6, (many ? 0.75 : 1) * this.zoom ** 0.2);
    const { x, y, w, h } = this.box, width = many && this.zoom < 3 ? 0.9 : 1.6;
    for (const d of v.devices) {
      if (this.hidden.has(d.label) || d.where.length > 200 !== many) continue;
      for (const bus of d.where) {
        const px = this.px(v.x[bus]), py = this.py(v.y[bus]);
        if (px < x - 9 || px > x + w + 9 || py < y - 9 || py > y + h + 9) continue;
        symbol(ctx, d.symbol, px, py, d.size * grown, d.colour, width);
      }
    }
  }

  drawTop(ctx) {
    if (this.volts) this.clipped(ctx, () => this.marks(ctx, false));
  }

  hit(x, y) {
    const v = this.volts, b = this.nearest(x, y, this.xs, this.ys, 20);
    if (b < 0) return null;
    const t = this.at.step;
    return { x: this.xs[b], y: this.ys[b], lines: v.lines(b, t), value: v.number(v.pu(v.set.worst[b * v.steps + t])) };
  }
}

class Profile extends Chart {
  constructor(div, volts, at) {
    const shown = [volts.low, volts.low + volts.resolution * (ABSENT - 1), ...volts.limits.filter((v) => v !== null)];
    const [y0, y1] = extent(shown, 0.05), [, x1] = extent(volts.distance.filter((d) => !Number.isNaN(d)), 0.02);
    super(div, { x0: 0, x1, y0, y1 });
    this.volts = volts;
    this.at = at;
    this.busOf = new Int32Array(volts.nodes);
    for (let b = 0; b < volts.buses; b++) this.busOf.fill(b, volts.starts[b], volts.starts[b + 1]);
    const entries = volts.conductors.map((c) => ({
      key: c.number, label: c.label, draw: (ctx) => { ctx.lineWidth = 2; this.stroke(ctx, c.colour, 2, 9, 24, 9); },
    }));
    if (volts.steps > 1) {
      entries.unshift({
        key: "range", label: "range over the horizon",
        draw: (ctx) => { ctx.lineWidth = 4; this.stroke(ctx, "#cfd6dd", 2, 9, 24, 9); },
      });
    }
    this.legend(entries);
    this.moved();
  }

  margins() { return { l: 66, r: 20, t: 10, b: 46 }; }

  bands() {
    const v = this.volts, set = v.set, T = v.steps;
    if (set.bands) return set.bands;
    set.bands = new Uint16Array(2 * v.nodes);
    for (let node = 0; node < v.nodes; node++) {
      let low = ABSENT, high = 0;
      for (let k = node * T; k < (node + 1) * T; k++) {
        const level = set.values[k];
        if (level === ABSENT) continue;
        if (level < low) low = level;
        if (level > high) high = level;
      }
      set.bands[2 * node] = low;
      set.bands[2 * node + 1] = high;
    }
    return set.bands;
  }

  drawBase(ctx) {
    const v = this.volts;
    if (!v) return;
    const w = this.view, b = this.box, across = ticks(w.x0, w.x1, b.w / 90), up = ticks(w.y0, w.y1, b.h / 55);
    const digits = Math.max(3, up.digits);
    this.axes(ctx, across.at.map((x) => [x, x.toFixed(across.digits)]), v.distanceTitle,
      up.at.map((y) => [y, y.toFixed(digits)]), "voltage, pu", true);
    this.xs = new Float32Array(v.nodes);
    for (let k = 0; k < v.nodes; k++) this.xs[k] = this.px(v.distance[k]);
    if (v.steps > 1 && !this.hidden.has("range")) {
      this.clipped(ctx, () => {
        const bands = this.bands(), width = v.nodes < 1000 ? 3 : 1.5;
        ctx.fillStyle = "#cfd6dd";
        for (let k = 0; k < v.nodes; k++) {
          if (bands[2 * k] === ABSENT || this.hidden.has(v.conductor[k])) continue;
          const top = this.py(v.pu(bands[2 * k + 1])), end = this.py(v.pu(bands[2 * k]));
          ctx.fillRect(this.xs[k] - width / 2, top, width, end - top);
        }
      });
    }
  }

  drawData(ctx) {
    const v = this.volts;
    if (!v) return;
    const t = this.at.step, n = v.nodes, many = n > 2500, ys = new Float32Array(n), { x, w } = this.box;
    for (let k = 0; k < n; k++) ys[k] = this.py(v.voltage(k, t));
    this.ys = ys;
    ctx.lineWidth = many ? 1 / this.dpr : 1.4;
    for (const c of v.conductors) {
      if (this.hidden.has(c.number)) continue;
      ctx.strokeStyle = ctx.fillStyle = c.colour;
      let held = 0;
      ctx.beginPath();
      for (let k = 0; k < n; k++) {
        const up = v.upstream[k];
        if (v.conductor[k] !== c.number || up < 0 || Number.isNaN(ys[k] + ys[up])) continue;
        if (this.xs[k] < x || this.xs[up] > x + w) continue;
        ctx.moveTo(this.xs[up], ys[up]);
        ctx.lineTo(this.xs[k], ys[k]);
        if (++held === 200) { ctx.stroke(); ctx.beginPath(); held = 0; }
      }
      ctx.stroke();
      if (many && this.zoom < 8) continue;
      const r = n < 1000 || many ? 2 : 1.3;
      ctx.beginPath();
      for (let k = 0; k < n; k++) {
        if (v.conductor[k] !== c.number || this.xs[k] < x - r || this.xs[k] > x + w + r) continue;
        ctx.moveTo(this.xs[k] + r, ys[k]);
        ctx.arc(this.xs[k], ys[k], r, 0, 2 * Math.PI);
      }
      ctx.fill();
    }
  }

  drawTop(ctx) {
    const v = this.volts;
    if (!v) return;
    ctx.font = `11px ${FONT}`;
    v.limits.forEach((limit, k) => {
      if (limit === null) return;
      const y = this.py(limit), b = this.box;
      if (y < b.y || y > b.y + b.h) return;
      ctx.setLineDash([7, 5]);
      ctx.lineWidth = 1.2;
      this.stroke(ctx, OUTSIDE, b.x, y, b.x + b.w, y);
      ctx.setLineDash([]);
      this.text(ctx, `limit ${limit} pu`, b.x + b.w - 4, y + (k ? -3 : 4), "right", k ? "bottom" : "top", OUTSIDE);
    });
  }

  hit(x, y) {
    const v = this.volts, k = this.nearest(x, y, this.xs, this.ys, 25);
    if (k < 0 || this.hidden.has(v.conductor[k])) return null;
    const name = v.names[this.busOf[k]] + (v.conductors.length > 1 ? `.${v.conductor[k]}` : "");
    const far = `${Number(v.distance[k].toPrecision(4))} ${v.unit}`;
    return { x: this.xs[k], y: this.ys[k], lines: [`bus ${name}`, far], value: v.number(v.voltage(k, this.at.step)) };
  }
}

// buses by time; a row of pixels that stands for several buses shows the one furthest from the middle of the scale
class HeatMap extends Chart {
  constructor(div, volts, at) {
    const longest = volts.names.reduce((n, name) => Math.max(n, name.length), 0);
    super(div, { x0: 0, x1: volts.hours[volts.steps], y0: 0, y1: volts.buses }, { down: true, longest });
    this.volts = volts;
    this.at = at;
    this.moved();
  }

  margins() { return { l: Math.min(40 + 7.5 * Math.min(18, this.options.longest), 40 + this.width * 0.12), r: 84, t: 8, b: 46 }; }

  picture() {
    const v = this.volts, set = v.set, T = v.steps, w = this.view;
    const first = Math.floor(w.y0), last = Math.min(v.buses, Math.ceil(w.y1));
    const rows = Math.min(last - first, Math.round(this.box.h * this.dpr)), out = sheet(T, rows), ctx = out.getContext("2d");
    const image = ctx.createImageData(T, rows), cells = new Uint32Array(image.data.buffer);
    const paint = v.shades.map(([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0);
    const middle = (SHADES - 1) / 2;
    for (let i = 0; i < rows; i++) {
      const from = first + Math.floor((i * (last - first)) / rows), to = first + Math.floor(((i + 1) * (last - first)) / rows);
      for (let t = 0; t < T; t++) {
        let best = -1, far = -1;
        for (let k = from; k < to; k++) {
          const level = set.worst[v.order[k] * T + t];
          if (level === ABSENT) continue;
          const s = v.shade(level), d = Math.abs(s - middle);
          if (d > far) { far = d; best = s; }
        }
        cells[i * T + t] = best < 0 ? 0 : paint[best];
      }
    }
    ctx.putImageData(image, 0, 0);
    return [out, first, last];
  }

  drawBase(ctx) {
    const v = this.volts;
    if (!v) return;
    const b = this.box, w = this.view;
    this.colourBar(ctx, (share) => v.colour(share), ...v.range, "voltage, pu");
    const [image, first, last] = this.picture();
    this.clipped(ctx, () => {
      ctx.imageSmoothingEnabled = false;
      const top = this.py(first), height = this.py(last) - top;
      for (let t = 0; t < v.steps; t++) {
        const x = this.px(v.hours[t]), end = this.px(v.hours[t + 1]);
        if (end > b.x && x < b.x + b.w) ctx.drawImage(image, t, 0, 1, image.height, x, top, end - x + 0.3, height);
      }
    });
    const count = Math.max(2, Math.min(24, Math.floor(b.h / 22), Math.round(w.y1 - w.y0))), rows = new Set();
    for (let k = 0; k < count; k++) {
      rows.add(Math.round(Math.max(0, w.y0) + ((Math.min(v.buses, w.y1) - w.y0 - 1) * k) / Math.max(1, count - 1)));
    }
    const cut = Math.max(6, Math.floor((b.x - 30) / 7)), half = cut >> 1;
    const short = (name) => (name.length > cut ? `${name.slice(0, half)}…${name.slice(1 - half)}` : name);
    const named = [...rows].filter((k) => k >= 0 && k < v.buses).map((k) => [k + 0.5, short(v.names[v.order[k]])]);
    this.axes(ctx, this.times(), v.timeTitle, named, "bus, nearest to the source on top", false);
  }

  times() {
    const v = this.volts, w = this.view, begin = Date.parse(v.begin + "Z"), out = [];
    const wanted = (w.x1 - w.x0) / Math.max(2, this.box.w / 90);
    const size = [0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 168, 720].find((s) => s >= wanted) || 8760;
    const offset = (begin / 3600000) % 24, pad = (n) => String(n).padStart(2, "0");
    let day = "";
    for (let k = Math.ceil((w.x0 + offset) / size - 1e-9); k * size - offset <= w.x1 + 1e-9; k++) {
      const hour = k * size - offset, date = new Date(begin + Math.round(hour * 60) * 60000);
      const of = `${date.getUTCDate()} ${["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][date.getUTCMonth()]}`;
      const clock = `${pad(date.getUTCHours())}:${pad(date.getUTCMinutes())}`;
      out.push([hour, size >= 24 || (of !== day && day && clock === "00:00") ? of : clock]);
      day = of;
    }
    return out;
  }

  // a frame around the step that the map shows
  drawData(ctx) {
    const v = this.volts;
    if (!v || v.steps < 2) return;
    const x = this.px(v.hours[this.at.step]), end = this.px(v.hours[this.at.step + 1]);
    ctx.strokeStyle = INK;
    ctx.lineWidth = 1;
    ctx.strokeRect(x - 0.5, this.box.y - 2, Math.max(2, end - x + 1), this.box.h + 4);
  }

  cell(x, y) {
    const v = this.volts, b = this.box;
    if (x < b.x || x >= b.x + b.w || y < b.y || y >= b.y + b.h) return null;
    const hour = this.view.x0 + ((x - b.x) / b.w) * (this.view.x1 - this.view.x0);
    const row = Math.floor(this.view.y0 + ((y - b.y) / b.h) * (this.view.y1 - this.view.y0));
    const next = v.hours.findIndex((h) => h > hour);
    return next < 1 || row >= v.buses ? null : [v.order[row], next - 1];
  }

  hit(x, y) {
    const found = this.cell(x, y), v = this.volts;
    if (!found) return null;
    const [bus, t] = found;
    return { x, y, bare: true, lines: [`bus ${v.names[bus]}`, v.stamps[t]], value: v.number(v.pu(v.set.worst[bus * v.steps + t])) };
  }

  clicked(x, y) {
    const found = this.cell(x, y);
    if (found && this.volts.steps > 1) this.at.goTo(found[1]);
  }
}
