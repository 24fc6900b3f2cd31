// One instrument is followed: chosen by a click or a box on the live image, by buttons and by keys.

import { post } from "./post.js";

const DRAG = 6; // CSS pixels; a shorter drag is a click
const SHOWN_MS = 4000; // for which a refusal stays visible
const HOLD_MS = 500; // for which a loss must last until it is announced: a late mask causes shorter ones
const LEVELS = { following: "good", waiting: "wait", lost: "bad" };
const byId = (id) => document.getElementById(id);
const numbered = ({ id }) => (id ? `#${id}` : "The followed instrument");

function put(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function describe(followed) {
  if (followed.state === "waiting") return "Waiting for the instrument to follow";
  return followed.state === "lost" ? `${numbered(followed)} is lost` : `Following ${numbered(followed)}`;
}

// The news between two states; empty if there are none.
function news(before, now) {
  if (before?.state === now?.state && before?.id === now?.id) return "";
  if (!now) return "Following ended";
  return before?.state === "lost" && now.state === "following" && before.id === now.id ? `${numbered(now)} found again` : describe(now);
}

export class Follow {
  #pane;
  #followed = null;
  #announced = null;
  #lostSince = 0;
  #start = null; // of a press of the pointer
  #refusal = "";
  #timer = 0;

  constructor(pane) {
    this.#pane = pane;
    pane.figure.addEventListener("pointerdown", (event) => this.#down(event));
    pane.figure.addEventListener("pointerup", (event) => this.#up(event));
    pane.figure.addEventListener("pointercancel", () => (this.#start = null));
  }

  // Take clicks on the image, if the program tracks instruments.
  offer(available) {
    this.#pane.figure.classList.toggle("pickable", available);
    for (const name of ["follow-next", "follow-end"]) byId(name).hidden = !available;
  }

  // Accept the state from the program's status.
  accept(followed) {
    this.#followed = followed;
    this.#lostSince = followed?.state === "lost" ? this.#lostSince || performance.now() : 0;
    const isBrief = this.#lostSince && performance.now() - this.#lostSince < HOLD_MS;
    const text = isBrief ? "" : news(this.#announced, followed);
    if (text) {
      this.#announced = followed;
      this.#refusal = "";
      put("follow-status", text);
    }
    this.#show();
  }

  next() {
    return this.#post({ next: true });
  }

  end() {
    return this.#post({ id: null });
  }

  #down(event) {
    const place = event.button === 0 && event.isPrimary && this.#pane.figure.matches(".pickable") ? this.#pane.shareAt(event) : null;
    this.#start = place && { place, x: event.clientX, y: event.clientY };
    if (place) this.#pane.figure.setPointerCapture(event.pointerId);
  }

  #up(event) {
    const start = this.#start;
    this.#start = null;
    if (!start) return;
    const end = this.#pane.shareAt(event);
    if (Math.hypot(event.clientX - start.x, event.clientY - start.y) <= DRAG) this.#post({ point: start.place });
    else if (end) this.#post({ box: [...start.place, ...end] });
  }

  async #post(choice) {
    try {
      await post("api/follow", choice);
    } catch (error) {
      this.#refuse(`Not followed: ${error.message}`);
    }
  }

  #refuse(text) {
    this.#refusal = text;
    put("follow-status", text);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#refusal = "";
      this.#show();
    }, SHOWN_MS);
    this.#show();
  }

  #show() {
    const followed = this.#followed;
    const text = this.#refusal || (followed ? describe(followed) : "");
    put("follow-text", text);
    byId("follow").dataset.level = this.#refusal ? "wait" : LEVELS[followed?.state] ?? "off";
    byId("follow").hidden = !text;
  }
}
