// What crosses a border, over the rounds: the lines of one figure, for the border and the step that are chosen.
class Borders {
  // data: borders [{conductors, values}], rounds, steps, step, stamps; values are (lines, rounds, steps)
  constructor(data) {
    Object.assign(this, data);
    this.border = 0;
    this.values = new Map();
    this.figure = null;
    const slider = document.getElementById("border-step");
    document.getElementById("border").addEventListener("change", (event) => this.show(Number(event.target.value), this.step));
    if (slider) slider.addEventListener("input", () => this.show(this.border, Number(slider.value)));
    this.stamp();
  }

  stamp() { document.getElementById("border-stamp").textContent = this.stamps[this.step]; }

  show(border, step) {
    this.border = border;
    this.step = step;
    this.stamp();
    if (this.figure) this.redraw();
  }

  lines() {
    if (!this.values.has(this.border)) this.values.set(this.border, real(this.borders[this.border].values));
    const all = this.values.get(this.border), out = [];
    for (let start = 0; start < all.length; start += this.rounds * this.steps) {
      const line = [];
      for (let r = 0; r < this.rounds; r++) {
        const value = all[start + r * this.steps + this.step];
        line.push(Number.isFinite(value) ? value : null);
      }
      out.push(line);
    }
    return out;
  }

  redraw() { window.Plotly.restyle(this.figure, { y: this.lines() }); }
}
