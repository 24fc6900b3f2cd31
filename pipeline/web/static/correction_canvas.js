// The held image with its mask, the clicks so far, and a cross that the arrow keys move. Positions are in pixels of the image.

const DRAG = 6; // CSS pixels; a shorter drag is a click
const STEP = 10; // CSS pixels that an arrow key moves the cross by

export class CorrectionCanvas extends EventTarget {
  #canvas;
  #context;
  #image = null;
  #mask = null;
  #prompts = [];
  #cross = null; // shown once a key has moved it
  #corner = null; // of a box that is being drawn
  #start = null; // of a press of the pointer
  maskShown = true;

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.#drop());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  get cross() {
    return this.#cross;
  }

  async setImage(url, width, height) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(await answer.text());
    this.#image = await createImageBitmap(await answer.blob());
    this.#canvas.width = width;
    this.#canvas.height = height;
    this.#corner = this.#start = null;
    this.#cross = null;
    this.draw();
  }

  async setMask(base64, prompts) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    this.#mask = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    this.#prompts = prompts;
    this.draw();
  }

  // Move the cross by steps; with `fine` by single pixels.
  moveCross(dx, dy, fine) {
    const { width, height } = this.#canvas;
    const step = fine ? 1 : Math.max(Math.round(STEP * this.#scale()), 1);
    const from = this.#cross ?? { x: width / 2, y: height / 2 };
    const clip = (value, limit) => Math.min(Math.max(value, 0), limit);
    this.#cross = { x: clip(from.x + dx * step, width), y: clip(from.y + dy * step, height) };
    this.draw();
  }

  // Begin a box at the cross, or end it there.
  cornerAtCross() {
    const at = this.#cross ?? { x: this.#canvas.width / 2, y: this.#canvas.height / 2 };
    this.#cross = at;
    if (this.#corner) this.#emitBox(this.#corner, at);
    else this.#corner = at;
    this.draw();
    return this.#corner !== null;
  }

  // Pixels of the image per CSS pixel.
  #scale() {
    const { width, height } = this.#canvas.getBoundingClientRect();
    return Math.max(this.#canvas.width / (width || 1), this.#canvas.height / (height || 1));
  }

  #place({ clientX, clientY }) {
    const box = this.#canvas.getBoundingClientRect();
    const scale = this.#scale();
    const left = box.left + (box.width - this.#canvas.width / scale) / 2;
    const top = box.top + (box.height - this.#canvas.height / scale) / 2;
    const [x, y] = [(clientX - left) * scale, (clientY - top) * scale];
    return { x, y, inside: x >= 0 && y >= 0 && x <= this.#canvas.width && y <= this.#canvas.height };
  }

  #down(event) {
    if (!event.isPrimary) return this.#drop(); // a second finger: a pinch is no box
    const { clientX, clientY, pointerId, button } = event;
    const place = this.#place(event);
    if (!place.inside || ![0, 2].includes(button)) return;
    this.#canvas.setPointerCapture(pointerId);
    this.#start = { ...place, clientX, clientY, pointerId, button };
    this.#cross = null;
  }

  // Forget a press, as if it had not been.
  #drop() {
    if (!this.#start) return;
    this.#start = this.#corner = this.#cross = null;
    this.draw();
  }

  #move(event) {
    if (event.pointerId !== this.#start?.pointerId) return;
    this.#corner = this.#drags(event) ? this.#start : null;
    this.#cross = this.#corner && this.#clipped(this.#place(event));
    this.draw();
  }

  #up(event) {
    if (event.pointerId !== this.#start?.pointerId) return;
    const start = this.#start;
    this.#start = null;
    if (this.#drags(event, start)) {
      this.#emitBox(start, this.#clipped(this.#place(event)));
    } else {
      const reversed = start.button === 2 || event.shiftKey;
      this.dispatchEvent(new CustomEvent("point", { detail: { x: start.x, y: start.y, reversed } }));
    }
    this.#cross = null;
    this.draw();
  }

  #drags({ clientX, clientY }, start = this.#start) {
    return Math.hypot(clientX - start.clientX, clientY - start.clientY) > DRAG;
  }

  #clipped({ x, y }) {
    const { width, height } = this.#canvas;
    return { x: Math.min(Math.max(x, 0), width), y: Math.min(Math.max(y, 0), height) };
  }

  #emitBox(a, b) {
    this.#corner = null;
    const box = [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
    if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) this.dispatchEvent(new CustomEvent("box", { detail: box }));
  }

  draw() {
    const context = this.#context;
    if (this.#image) context.drawImage(this.#image, 0, 0, this.#canvas.width, this.#canvas.height);
    if (this.#mask && this.maskShown) {
      context.globalAlpha = 0.5;
      context.drawImage(this.#mask, 0, 0);
      context.globalAlpha = 1;
    }
    const scale = this.#scale();
    for (const prompt of this.#prompts) {
      if (prompt.box) this.#strokeBox(prompt.box, scale);
      else this.#drawPoint(prompt.point, prompt.positive, scale);
    }
    if (this.#corner && this.#cross) {
      const [a, b] = [this.#corner, this.#cross];
      this.#strokeBox([Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)], scale);
    }
    if (this.#cross) this.#drawCross(this.#cross, scale);
  }

  // Draw lines in white with a black edge: they are seen on any image.
  #stroke(scale, path) {
    const context = this.#context;
    for (const [color, width] of [["#000", 4], ["#fff", 1.75]]) {
      context.strokeStyle = color;
      context.lineWidth = width * scale;
      context.beginPath();
      path(context);
      context.stroke();
    }
  }

  #strokeBox([x0, y0, x1, y1], scale) {
    this.#stroke(scale, (context) => context.rect(x0, y0, x1 - x0, y1 - y0));
  }

  #drawPoint([x, y], positive, scale) {
    const context = this.#context;
    context.fillStyle = positive ? "#0b6e3f" : "#a3251c";
    context.beginPath();
    context.arc(x, y, 7 * scale, 0, 2 * Math.PI);
    context.fill();
    this.#stroke(scale, (path) => {
      path.moveTo(x - 4 * scale, y);
      path.lineTo(x + 4 * scale, y);
      if (positive) {
        path.moveTo(x, y - 4 * scale);
        path.lineTo(x, y + 4 * scale);
      }
    });
  }

  #drawCross({ x, y }, scale) {
    this.#stroke(scale, (path) => {
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        path.moveTo(x + 3 * dx * scale, y + 3 * dy * scale);
        path.lineTo(x + 14 * dx * scale, y + 14 * dy * scale);
      }
    });
  }
}
