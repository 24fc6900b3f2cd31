// Settings that the page changes and the program sends to all pages, and the list of classes.

import { post } from "./post.js";

const SEND_MS = 60;
const LEAST_SHARE = 0.001; // of the field of view; smaller areas count as absent

export class Controls extends EventTarget {
  #settings = { opacity: 0.4, contours: true, hidden: [], recording: false, paused: false };
  #unsent = {};
  #timer = 0;
  #held = 0; // until this time, settings from the program are older than a change made here
  #visible = 0.4;

  get settings() {
    return this.#settings;
  }

  // Accept settings from the program.
  accept(settings) {
    if (performance.now() > this.#held) this.#set(settings);
  }

  change(values) {
    Object.assign(this.#unsent, values);
    this.#held = performance.now() + 600;
    this.#set({ ...this.#settings, ...values });
    this.#timer ||= setTimeout(() => this.#send(), SEND_MS);
  }

  toggleOverlay() {
    const { opacity } = this.#settings;
    this.change({ opacity: opacity > 0 ? 0 : this.#visible });
  }

  nudge(step) {
    this.change({ opacity: Math.min(Math.max(Math.round((this.#settings.opacity + step) * 100) / 100, 0), 1) });
  }

  show(name, visible) {
    const hidden = new Set(this.#settings.hidden);
    if (visible) hidden.delete(name);
    else hidden.add(name);
    this.change({ hidden: [...hidden] });
  }

  #set(settings) {
    this.#settings = settings;
    if (settings.opacity > 0) this.#visible = settings.opacity;
    this.dispatchEvent(new Event("change"));
  }

  async #send() {
    this.#timer = 0;
    const values = this.#unsent;
    this.#unsent = {};
    try {
      await post("api/controls", values);
    } catch (error) {
      this.#held = 0;
      this.dispatchEvent(new CustomEvent("refused", { detail: error.message }));
    }
  }
}

export class ClassList {
  #rows = new Map();

  constructor(list, classes, controls) {
    this.classes = classes;
    classes.forEach((spec, number) => this.#add(list, spec, number, controls));
  }

  #add(list, { name, color }, number, controls) {
    const row = document.createElement("li");
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true, name });
    if (number < 9) box.setAttribute("aria-keyshortcuts", String(number + 1));
    const swatch = document.createElement("i");
    swatch.setAttribute("aria-hidden", "true");
    swatch.style.setProperty("--color", `rgb(${color.join(" ")})`);
    const text = Object.assign(document.createElement("span"), { className: "name", textContent: readable(name) });
    const share = Object.assign(document.createElement("span"), { className: "share", textContent: "–" });
    box.addEventListener("change", () => controls.show(name, box.checked));
    label.append(box, swatch, text, share);
    row.append(label);
    list.append(row);
    this.#rows.set(name, { row, box, share });
  }

  update(hidden, areas, presence = {}) {
    for (const [name, { row, box, share }] of this.#rows) {
      const area = areas[name] ?? 0;
      box.checked = !hidden.includes(name);
      share.textContent = area >= LEAST_SHARE ? `${(area * 100).toFixed(1)} %` : "–";
      row.style.setProperty("--share", Math.min(area, 1).toFixed(4));
      row.classList.toggle("absent", area < LEAST_SHARE);
      row.title = name in presence ? `presence ${(presence[name] * 100).toFixed(0)} %` : "";
    }
  }
}

export function readable(name) {
  return name.replaceAll("-", " ");
}
