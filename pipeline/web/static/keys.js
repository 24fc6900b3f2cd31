// Single-key shortcuts. They can be switched off, because speech input may type single letters.

import { recall, remember } from "./storage.js";

const STORE = "cliprl-shortcuts";
const KEYS = {
  o: "overlay",
  "[": "dimmer",
  "]": "brighter",
  "-": "dimmer",
  "+": "brighter",
  "=": "brighter",
  c: "contours",
  a: "all",
  " ": "freeze",
  b: "beside",
  e: "correct",
  i: "follow",
  x: "unfollow",
  s: "snapshot",
  r: "record",
  p: "pause",
  f: "full",
  t: "theme",
  "?": "help",
};

export class Keys {
  constructor(actions, toggle) {
    this.actions = actions;
    this.toggle = toggle;
    toggle.checked = recall("localStorage", STORE) !== "off";
    toggle.addEventListener("change", () => remember("localStorage", STORE, toggle.checked ? "on" : "off"));
    document.addEventListener("keydown", (event) => this.#press(event));
    document.addEventListener("click", ({ detail }) => this.#releaseFocus(detail > 0));
  }

  // Remove the focus from a button after a mouse click, so that Space freezes the image and does not press it again.
  #releaseFocus(byPointer) {
    if (byPointer && document.activeElement?.matches("main :is(button, input[type=checkbox]):not(.correction *)")) {
      document.activeElement.blur();
    }
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.toggle.checked) return;
    const { key, target, repeat } = event;
    const takesText = target.matches("select, input:not([type=checkbox]):not([type=range])");
    const takesSpace = key === " " && target.closest("button, input[type=checkbox], select, a, dialog");
    if (takesText || takesSpace || (document.querySelector("dialog[open]") && key !== "?")) return;
    const held = "[]-+=".includes(key);
    if (repeat && !held) return;
    if (/^[1-9]$/.test(key)) this.actions.class(Number(key) - 1);
    else if (KEYS[key.toLowerCase()]) this.actions[KEYS[key.toLowerCase()]]();
    else return;
    event.preventDefault();
  }
}
