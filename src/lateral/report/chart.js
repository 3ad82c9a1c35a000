// A chart on a plain canvas: axes or none, pan, zoom, a tooltip; subclasses draw what is in it.
const INK = "#1c2733", MUTED = "#5b6875", GRID = "#e4e8ec", EDGE = "#9aa5b1", OUTSIDE = "#c40000";
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

function sheet(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width));
  canvas.height = Math.max(1, Math.round(height));
  return canvas;
}

// round numbers between two values, about so many, and how many decimals they need
function ticks(low, high, about) {
  const raw = (high - low) / Math.max(1, about), power = 10 ** Math.floor(Math.log10(raw));
  const size = power * ([1, 2, 5, 10].find((s) => s * power >= raw * 0.999) || 10), out = [];
  for (let k = Math.ceil(low / size - 1e-9); k * size <= high + 1e-9 * size; k++) out.push(k * size);
  return { at: out, digits: Math.max(0, -Math.floor(Math.log10(size) + 1e-9)) };
}

// symbols by the names that the plotting library has for them
const CORNERS = {
  "star": [...Array(10).keys()].map((k) => {
    const r = k % 2 ? 0.45 : 1.15, a = (k * Math.PI) / 5;
    return [r * Math.sin(a), -r * Math.cos(a)];
  }),
  "triangle-up": [[0, -1], [1.1, 0.75], [-1.1, 0.75]],
  "square": [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  "diamond": [[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]],
  "hexagon": [...Array(6).keys()].map((k) => [Math.sin((k * Math.PI) / 3), -Math.cos((k * Math.PI) / 3)]),
};
function symbol(ctx, name, x, y, size, colour, width = 1.6) {
  const kind = name.replace("-open", ""), r = size / 2, corners = CORNERS[kind];
  ctx.beginPath();
  if (corners) {
    for (const [dx, dy] of corners) ctx.lineTo(x + dx * r, y + dy * r);
    ctx.closePath();
  } else {
    ctx.arc(x, y, r, 0, 2 * Math.PI);
  }
  ctx.lineWidth = width;
  ctx.strokeStyle = ctx.fillStyle = colour;
  if (kind === name) ctx.fill(); else ctx.stroke();
}

class Chart {
  // full: what there is to see, {x0, x1, y0, y1}; options: same (one scale for both axes), down (y downwards)
  constructor(div, full, options) {
    this.div = div;
    this.canvas = div.querySelector("canvas");
    this.frame = div.querySelector(".frame");
    this.ctx = this.canvas.getContext("2d");
    this.tip = this.frame.appendChild(document.createElement("div"));
    this.tip.className = "tip";
    this.ring = this.frame.appendChild(document.createElement("div"));
    this.ring.className = "mark";
    this.hidden = new Set();
    this.given = full;
    this.options = options || {};
    this.view = null;
    this.dirty = true;
    this.due = 0;
    this.buttons();
    this.listen();
    this.resize();
    new ResizeObserver(() => this.resize()).observe(this.frame);
  }

  resize() {
    const width = this.frame.clientWidth, height = this.frame.clientHeight, dpr = window.devicePixelRatio || 1;
    if (!width || !height || (width === this.width && height === this.height && dpr === this.dpr)) return;
    const before = this.width ? this.zoomed : false;
    this.width = width; this.height = height; this.dpr = dpr;
    this.canvas.width = Math.round(width * dpr);
    this.canvas.height = Math.round(height * dpr);
    this.base = sheet(width * dpr, height * dpr);
    this.top = sheet(width * dpr, height * dpr);
    const m = this.margins();
    this.box = { x: m.l, y: m.t, w: Math.max(20, width - m.l - m.r), h: Math.max(20, height - m.t - m.b) };
    this.full = { ...this.given };
    if (this.options.same) {
      const f = this.full, scale = Math.max((f.x1 - f.x0) / this.box.w, (f.y1 - f.y0) / this.box.h);
      const x = (f.x0 + f.x1) / 2, y = (f.y0 + f.y1) / 2;
      f.x0 = x - (scale * this.box.w) / 2; f.x1 = x + (scale * this.box.w) / 2;
      f.y0 = y - (scale * this.box.h) / 2; f.y1 = y + (scale * this.box.h) / 2;
    }
    if (!before || this.options.same) this.view = { ...this.full };
    this.moved();
    this.paint();
  }

  get zoom() { return (this.full.x1 - this.full.x0) / (this.view.x1 - this.view.x0); }
  get zoomed() { return this.zoom > 1.001; }
  px(x) { return this.box.x + ((x - this.view.x0) / (this.view.x1 - this.view.x0)) * this.box.w; }
  py(y) {
    const share = (y - this.view.y0) / (this.view.y1 - this.view.y0);
    return this.box.y + (this.options.down ? share : 1 - share) * this.box.h;
  }

  // the view changed: what is drawn once must be drawn again
  moved() {
    this.dirty = true;
    this.hideTip();
    this.canvas.style.touchAction = this.zoomed ? "none" : "pan-y";
    this.redraw();
  }

  redraw() {
    if (!this.due) this.due = requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.due);
    this.due = 0;
    if (!this.width) return;
    if (this.dirty) {
      for (const [layer, draw] of [[this.base, this.drawBase], [this.top, this.drawTop]]) {
        const ctx = layer.getContext("2d");
        ctx.setTransform(1, 0, 0, 1, 0, 0);
        ctx.clearRect(0, 0, layer.width, layer.height);
        ctx.setTransform(this.dpr, 0, 0, this.dpr, 0, 0);
        draw.call(this, ctx);
      }
      this.dirty = false;
    }
    const ctx = this.ctx;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ctx.drawImage(this.base, 0, 0);
    this.clipped(ctx, () => this.drawData(ctx));
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.drawImage(this.top, 0, 0);
  }

  // draws inside the box, in pixels of the page
  clipped(ctx, draw) {
    ctx.save();
    ctx.setTransform(this.dpr, 0, 0, this.dpr, 0, 0);
    ctx.beginPath();
    ctx.rect(this.box.x, this.box.y, this.box.w, this.box.h);
    ctx.clip();
    draw();
    ctx.restore();
  }

  margins() { return { l: 8, r: 8, t: 8, b: 8 }; }
  drawBase() {}
  drawData() {}
  drawTop() {}
  hit() { return null; }
  clicked() {}

  // -- axes -----------------------------------------------------------------------------------------------------

  axes(ctx, xTicks, xLabel, yTicks, yLabel, grid) {
    const b = this.box;
    ctx.font = `12px ${FONT}`;
    ctx.lineWidth = 1;
    for (const [at, text] of xTicks) {
      const x = Math.round(this.px(at)) + 0.5;
      if (x < b.x - 1 || x > b.x + b.w + 1) continue;
      if (grid) this.stroke(ctx, GRID, x, b.y, x, b.y + b.h);
      this.stroke(ctx, EDGE, x, b.y + b.h, x, b.y + b.h + 4);
      this.text(ctx, text, x, b.y + b.h + 7, "center", "top", INK);
    }
    for (const [at, text] of yTicks) {
      const y = Math.round(this.py(at)) + 0.5;
      if (y < b.y - 1 || y > b.y + b.h + 1) continue;
      if (grid) this.stroke(ctx, GRID, b.x, y, b.x + b.w, y);
      this.stroke(ctx, EDGE, b.x - 4, y, b.x, y);
      this.text(ctx, text, b.x - 7, y, "right", "middle", INK);
    }
    this.stroke(ctx, EDGE, b.x - 0.5, b.y, b.x - 0.5, b.y + b.h + 0.5);
    this.stroke(ctx, EDGE, b.x - 0.5, b.y + b.h + 0.5, b.x + b.w, b.y + b.h + 0.5);
    ctx.font = `13px ${FONT}`;
    this.text(ctx, xLabel, b.x + b.w / 2, this.height - 4, "center", "bottom", MUTED);
    this.turned(ctx, yLabel, 4, b.y + b.h / 2);
  }

  stroke(ctx, colour, x0, y0, x1, y1) {
    ctx.strokeStyle = colour;
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.lineTo(x1, y1);
    ctx.stroke();
  }

  text(ctx, text, x, y, align, baseline, colour) {
    ctx.textAlign = align;
    ctx.textBaseline = baseline;
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y);
  }

  turned(ctx, text, x, y) {
    ctx.save();
    ctx.translate(x, y);
    ctx.rotate(-Math.PI / 2);
    this.text(ctx, text, 0, 0, "center", "top", MUTED);
    ctx.restore();
  }

  // colours is a function from 0..1 to a colour
  colourBar(ctx, colours, low, high, label) {
    const b = this.box, h = b.h * 0.86, y = b.y + (b.h - h) / 2, x = this.width - 74;
    for (let k = 0; k < h; k++) {
      ctx.fillStyle = colours(1 - k / h);
      ctx.fillRect(x, y + k, 14, Math.min(1.5, h - k));
    }
    ctx.font = `12px ${FONT}`;
    const found = ticks(low, high, Math.min(8, h / 50)), digits = Math.max(found.digits, 2);
    for (const v of found.at) {
      const at = y + ((high - v) / (high - low)) * h;
      this.text(ctx, v.toFixed(digits), x + 19, at, "left", "middle", INK);
    }
    ctx.font = `13px ${FONT}`;
    this.turned(ctx, label, this.width - 15, y + h / 2);
  }

  // -- legend ---------------------------------------------------------------------------------------------------

  // entries: {key, label, draw(ctx)}; a click hides or shows what has this key
  legend(entries) {
    const place = this.div.querySelector(".legend");
    for (const entry of entries) {
      const button = document.createElement("button"), dpr = window.devicePixelRatio || 1, swatch = sheet(26 * dpr, 18 * dpr);
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      swatch.style.width = "26px";
      swatch.style.height = "18px";
      const ctx = swatch.getContext("2d");
      ctx.scale(dpr, dpr);
      entry.draw(ctx);
      button.append(swatch, document.createTextNode(entry.label));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(entry.key)) this.hidden.add(entry.key);
        button.setAttribute("aria-pressed", String(!this.hidden.has(entry.key)));
        this.moved();
      });
      place.append(button);
    }
  }

  // -- pan and zoom ---------------------------------------------------------------------------------------------

  zoomAt(factor, x, y) {
    const v = this.view, b = this.box;
    const room = (this.full.x1 - this.full.x0) / (v.x1 - v.x0) * factor;
    if (room < 1) factor /= room;
    if (room > 400) return;
    const sx = (x - b.x) / b.w, sy = this.options.down ? (y - b.y) / b.h : 1 - (y - b.y) / b.h;
    const w = (v.x1 - v.x0) / factor, h = (v.y1 - v.y0) / factor;
    v.x0 += sx * (v.x1 - v.x0 - w); v.x1 = v.x0 + w;
    v.y0 += sy * (v.y1 - v.y0 - h); v.y1 = v.y0 + h;
    this.keepInside();
    this.moved();
  }

  panBy(dx, dy) {
    const v = this.view, x = (dx / this.box.w) * (v.x1 - v.x0);
    const y = (dy / this.box.h) * (v.y1 - v.y0) * (this.options.down ? 1 : -1);
    v.x0 -= x; v.x1 -= x; v.y0 -= y; v.y1 -= y;
    this.keepInside();
    this.moved();
  }

  keepInside() {
    const v = this.view, f = this.full;
    for (const [a, b] of [["x0", "x1"], ["y0", "y1"]]) {
      const size = Math.min(v[b] - v[a], f[b] - f[a]);
      v[a] = Math.min(Math.max(v[a], f[a]), f[b] - size);
      v[b] = v[a] + size;
    }
  }

  reset() { this.view = { ...this.full }; this.moved(); }

  middle() { return [this.box.x + this.box.w / 2, this.box.y + this.box.h / 2]; }

  buttons() {
    const place = this.frame.appendChild(document.createElement("div"));
    place.className = "zoom";
    const all = [
      ["+", "Zoom in", () => this.zoomAt(1.6, ...this.middle())],
      ["−", "Zoom out", () => this.zoomAt(1 / 1.6, ...this.middle())],
      ["⤢", "Show all", () => this.reset()],
    ];
    for (const [text, title, act] of all) {
      const button = place.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = text;
      button.title = title;
      button.setAttribute("aria-label", title);
      button.addEventListener("click", act);
    }
  }

  listen() {
    const c = this.canvas, held = new Map();
    let travelled = 0;
    const at = (e) => { const r = c.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
    c.addEventListener("pointerdown", (e) => {
      held.set(e.pointerId, at(e));
      travelled = 0;
      if (e.pointerType === "mouse") c.setPointerCapture(e.pointerId);
    });
    c.addEventListener("pointermove", (e) => {
      const now = at(e), before = held.get(e.pointerId);
      if (!before) { this.hover(...now); return; }
      travelled += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
      if (held.size === 2) {
        const other = [...held].find(([id]) => id !== e.pointerId)[1];
        const far = (p) => Math.max(10, Math.hypot(p[0] - other[0], p[1] - other[1]));
        this.zoomAt(far(now) / far(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      } else if (this.zoomed && travelled > 3) {
        this.panBy(now[0] - before[0], now[1] - before[1]);
      }
      held.set(e.pointerId, now);
    });
    for (const name of ["pointerup", "pointercancel"]) c.addEventListener(name, (e) => held.delete(e.pointerId));
    c.addEventListener("pointerleave", () => this.hideTip());
    c.addEventListener("click", (e) => {
      if (travelled > 3) return;
      this.hover(...at(e));
      this.clicked(...at(e));
    });
    c.addEventListener("dblclick", () => this.reset());
    // the wheel alone scrolls the page
    c.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && !e.metaKey) return;
      e.preventDefault();
      this.zoomAt(Math.exp(-Math.max(-80, Math.min(80, e.deltaY)) * 0.005), ...at(e));
    }, { passive: false });
    c.addEventListener("keydown", (e) => {
      const moves = { ArrowLeft: [50, 0], ArrowRight: [-50, 0], ArrowUp: [0, 50], ArrowDown: [0, -50] };
      if (moves[e.key] && this.zoomed) this.panBy(...moves[e.key]);
      else if (e.key === "+" || e.key === "=") this.zoomAt(1.6, ...this.middle());
      else if (e.key === "-") this.zoomAt(1 / 1.6, ...this.middle());
      else if (e.key === "0" || e.key === "Home") this.reset();
      else return;
      e.preventDefault();
    });
  }

  // -- tooltip --------------------------------------------------------------------------------------------------

  // what is found under the pointer: {x, y, lines: [...], value}; names are text, never markup
  hover(x, y) {
    const found = this.hit(x, y);
    if (!found) { this.hideTip(); return; }
    this.tip.replaceChildren(...found.lines.map((line) => {
      const row = document.createElement("div");
      row.textContent = line;
      return row;
    }));
    const value = this.tip.appendChild(document.createElement("b"));
    value.textContent = found.value;
    this.tip.style.display = "block";
    const w = this.tip.offsetWidth, h = this.tip.offsetHeight;
    const left = found.x + 14 + w > this.width ? found.x - 14 - w : found.x + 14;
    this.tip.style.left = `${Math.max(0, left)}px`;
    this.tip.style.top = `${Math.max(0, Math.min(this.height - h, found.y - h / 2))}px`;
    this.ring.style.display = found.bare ? "none" : "block";
    this.ring.style.left = `${found.x}px`;
    this.ring.style.top = `${found.y}px`;
  }

  hideTip() { this.tip.style.display = this.ring.style.display = "none"; }

  // the point nearest to the pointer, of arrays of pixel positions; -1 when none is near (0.1 ms for 10,000 points)
  nearest(x, y, xs, ys, reach) {
    const b = this.box;
    let best = -1, least = reach * reach;
    for (let k = 0; k < xs.length; k++) {
      const px = xs[k], py = ys[k], d = (px - x) * (px - x) + (py - y) * (py - y);
      if (d < least && px >= b.x && px <= b.x + b.w && py >= b.y && py <= b.y + b.h) { least = d; best = k; }
    }
    return best;
  }
}
