// A line plot of the last minute of one value, as SVG; the style sheet sets the colors.

const SECONDS = 60;
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [240, 44];

export class Plot {
  #samples = [];

  // `least`: the smallest upper end of the scale. `mark`: the value of a horizontal line, if any.
  constructor(svg, { label, unit, least, mark }) {
    this.svg = svg;
    this.about = { label, unit };
    this.least = least;
    this.mark = mark;
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    if (mark) this.guide = this.#add("line", "guide");
    this.area = this.#add("path", "area");
    this.line = this.#add("path", "line");
  }

  #add(tag, name) {
    const node = document.createElementNS(SVG, tag);
    node.setAttribute("class", name);
    this.svg.append(node);
    return node;
  }

  // Add the current value, or null for a gap.
  add(value) {
    const now = performance.now() / 1000;
    this.#samples.push([now, value]);
    while (this.#samples[0][0] < now - SECONDS) this.#samples.shift();
    this.#draw(now);
  }

  #draw(now) {
    const values = this.#samples.map(([, value]) => value).filter((value) => value !== null);
    const top = Math.max(this.least, ...values) * 1.08;
    const x = (time) => (WIDTH * (1 - (now - time) / SECONDS)).toFixed(1);
    const y = (value) => (HEIGHT - 1 - ((HEIGHT - 2) * value) / top).toFixed(1);
    let path = "";
    let area = "";
    let start = null;
    let last = null;
    const close = () => {
      if (start !== null) area += `L${last} ${HEIGHT}L${start} ${HEIGHT}Z`;
      start = null;
    };
    for (const [time, value] of this.#samples) {
      if (value === null) {
        close();
        continue;
      }
      const point = `${start === null ? "M" : "L"}${x(time)} ${y(value)}`;
      start ??= x(time);
      last = x(time);
      path += point;
      area += point;
    }
    close();
    this.line.setAttribute("d", path);
    this.area.setAttribute("d", area);
    if (this.guide) {
      for (const [name, value] of [["x1", 0], ["x2", WIDTH], ["y1", y(this.mark)], ["y2", y(this.mark)]]) {
        this.guide.setAttribute(name, value);
      }
    }
  }

  // Describe the plot for screen readers.
  describe() {
    const values = this.#samples.map(([, value]) => value).filter((value) => value !== null);
    const { label, unit } = this.about;
    const text = values.length
      ? `${label} over the last minute: ${Math.round(Math.min(...values))} to ${Math.round(Math.max(...values))} ${unit}`
      : `${label}: not measured yet`;
    this.svg.setAttribute("aria-label", text);
  }
}
