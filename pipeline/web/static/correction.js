// Correction of the mask: the displayed frame is held, clicks and boxes change its mask, and what is kept is a label.

import { readable } from "./controls.js";
import { CorrectionCanvas } from "./correction_canvas.js";
import { tell } from "./outcome.js";
import { post } from "./post.js";
import { recall, remember } from "./storage.js";

const AUTHOR = "cliprl-author";
const HELD = "cliprl-held";
const GONE = 410; // the status of an answer for a frame that is not held any more
const RESUME_MS = 1000;
const FOLLOWING = 10; // frames that are shown one after another as they follow a correction
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const byId = (id) => document.getElementById(`correct-${id}`);

export class Correction {
  #stage;
  #section = document.getElementById("correction");
  #button = document.getElementById("correct");
  #canvas;
  #view;
  #live;
  #classes;
  #controls;
  #state = null; // of the held frame, as the program has it
  #following = false; // while frames are shown one after another
  #warned = false; // that closing discards clicks
  #work = Promise.resolve(); // requests go one after another, in the order of the clicks

  constructor(stage, stream, controls) {
    this.#stage = stage;
    this.#live = stream.stream.live;
    this.#classes = stream.classes;
    this.#controls = controls;
    this.#canvas = byId("canvas");
    this.#view = new CorrectionCanvas(this.#canvas);
    for (const { name } of stream.classes) byId("class").append(new Option(readable(name), name));
    this.#connect();
    byId("author").value = recall("localStorage", AUTHOR) ?? "";
    const held = recall("sessionStorage", HELD);
    if (held) this.#run(() => this.#resume(held));
  }

  get isOpen() {
    return !this.#section.hidden;
  }

  toggle() {
    if (this.isOpen) this.close();
    else this.#run(() => this.#hold());
  }

  #connect() {
    this.#view.addEventListener("point", ({ detail }) => this.#point(detail, this.#mode !== "remove" && !detail.reversed));
    this.#view.addEventListener("box", ({ detail }) => this.#prompt({ box: detail }));
    const actions = {
      undo: () => this.#post("undo", {}, "Undone"),
      previous: () => this.#step(-1),
      next: () => this.#step(1),
      follow: () => this.#follow(),
      keep: () => this.#keep(),
    };
    for (const [name, action] of Object.entries(actions)) byId(name).addEventListener("click", () => this.#run(action));
    byId("close").addEventListener("click", ({ detail }) => detail < 2 && this.close()); // a double click is no second close
    byId("author").addEventListener("change", ({ target }) => remember("localStorage", AUTHOR, target.value));
    this.#canvas.addEventListener("keydown", (event) => this.#press(event));
    this.#section.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.repeat) this.close();
      event.stopPropagation(); // the viewer's own keys do not act meanwhile
    });
    this.#section.addEventListener("click", ({ detail, target }) => {
      if (detail > 0 && target.matches("button, [type=radio], label span")) setTimeout(() => this.#canvas.focus()); // keys go on acting
    });
    new ResizeObserver(() => this.#view.draw()).observe(this.#canvas);
  }

  get #mode() {
    return document.querySelector("input[name=correct-mode]:checked").value;
  }

  #press(event) {
    if (event.ctrlKey && event.key.toLowerCase() === "z") this.#run(() => this.#post("undo", {}, "Undone"));
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (ARROWS[event.key]) this.#moveCross(ARROWS[event.key], event.shiftKey);
    else if (/^[1-9]$/.test(event.key)) this.#choose(Number(event.key) - 1);
    else {
      const keys = {
        Enter: () => this.#point(this.#center, true),
        "+": () => this.#point(this.#center, true),
        Delete: () => this.#point(this.#center, false),
        Backspace: () => this.#point(this.#center, false),
        "-": () => this.#point(this.#center, false),
        b: () => this.#note(this.#view.cornerAtCross() ? "Box begins: move the cross and press B again" : ""),
        o: () => this.#toggleMask(),
        u: () => this.#run(() => this.#post("undo", {}, "Undone")),
        n: () => this.#run(() => this.#step(1)),
        p: () => this.#run(() => this.#step(-1)),
        f: () => this.#run(() => this.#follow()),
        k: () => this.#run(() => this.#keep()),
      };
      const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!action || event.repeat) return;
      action();
    }
    event.preventDefault();
  }

  get #center() {
    return this.#view.cross ?? { x: this.#canvas.width / 2, y: this.#canvas.height / 2 };
  }

  #moveCross([dx, dy], fine) {
    this.#view.moveCross(dx, dy, fine);
    const { x, y } = this.#view.cross;
    this.#canvas.setAttribute("aria-label", `Held image, cross at ${Math.round(x)}, ${Math.round(y)}`);
  }

  #choose(number) {
    if (number >= this.#classes.length) return;
    byId("class").selectedIndex = number;
    this.#note(`Class ${readable(this.#classes[number].name)}`);
  }

  #toggleMask() {
    this.#view.maskShown = !this.#view.maskShown;
    this.#view.draw();
    this.#note(this.#view.maskShown ? "Mask shown" : "Mask hidden");
  }

  #point({ x, y }, positive) {
    this.#prompt({ point: [x, y], positive });
  }

  #prompt(what) {
    const name = byId("class").value;
    const word = what.box ? "Box" : what.positive ? "Added" : "Removed";
    this.#run(() => this.#post("prompt", { class: name, ...what }, `${word}: ${readable(name)}`));
  }

  // Run requests one after another; a failure is told and the next one goes on.
  #run(action) {
    this.#following = false;
    this.#work = this.#work.then(action).catch((error) => {
      this.#note(error.message);
      if (error.status === GONE) this.#forget();
    });
    return this.#work;
  }

  async #send(name, body) {
    const start = performance.now();
    const state = await post(`api/correction/${name}`, body);
    this.#canvas.dataset.milliseconds = (performance.now() - start).toFixed(1);
    return state;
  }

  async #post(name, body, note) {
    if (!this.#state) return;
    await this.#show(await this.#send(name, { id: this.#state.id, ...body }), note);
  }

  async #hold() {
    if (!this.#live) this.#controls.change({ paused: true });
    tell("Holding the image for correction …", true);
    let state;
    try {
      state = await this.#send("hold", {});
    } catch (error) {
      tell(`No correction: ${error.message}`, true);
      return;
    }
    await this.#open(state);
  }

  // Go on with the frame that this page held before it was loaded again. A program that is busy is asked again.
  async #resume(held) {
    if (this.#state) return;
    try {
      await this.#open(await this.#send("resume", { id: held }));
    } catch (error) {
      if (error.status < 500) {
        remember("sessionStorage", HELD, null);
        tell(`The correction does not go on: ${error.message}`, true);
      } else setTimeout(() => this.#run(() => this.#resume(held)), RESUME_MS);
    }
  }

  async #open(state) {
    tell("");
    this.#section.hidden = false;
    this.#stage.classList.add("correcting", this.#live ? "of-live" : "of-file");
    this.#button.setAttribute("aria-pressed", "true");
    remember("sessionStorage", HELD, state.id);
    await this.#showFrame(state, state.revision ? `Revision ${state.revision} of this frame was kept: it is shown` : "Frame held");
    await this.#countKept();
    this.#canvas.focus();
  }

  close() {
    this.#run(() => this.#close());
  }

  // With clicks that are not kept the first call warns.
  #close() {
    if (this.#state?.unkept && !this.#warned) {
      this.#note("These clicks are not kept. Keep them (K), or close once more to discard them.");
      this.#warned = true;
      return;
    }
    if (this.#state) this.#send("release", { id: this.#state.id }).catch(() => {});
    this.#forget();
  }

  #forget() {
    this.#state = null;
    this.#section.hidden = true;
    this.#stage.classList.remove("correcting", "of-live", "of-file");
    this.#button.setAttribute("aria-pressed", "false");
    remember("sessionStorage", HELD, null);
    this.#button.focus();
  }

  async #step(by) {
    if (!this.#state) return;
    const left = this.#state.unkept ? " The last frame is not kept: the other arrow returns to it." : "";
    const state = await this.#send("step", { id: this.#state.id, by });
    const how = state.revision ? `revision ${state.revision} was kept` : state.follows ? "it follows the correction" : "the network's mask";
    await this.#showFrame(state, `Frame at ${state.seconds.toFixed(2)} s: ${how}.${left}`);
  }

  // Show the frames that follow the correction one after another, until another action or the last one.
  async #follow() {
    this.#following = true;
    for (let number = 1; number <= FOLLOWING && this.#following && this.#state; number++) {
      await this.#step(1);
      this.#note(`Frame ${number} of ${FOLLOWING} that follow. Previous frame goes back.`);
    }
  }

  async #keep() {
    if (!this.#state) return;
    const state = await this.#send("keep", { id: this.#state.id, author: byId("author").value });
    const others = state.meanwhile.map(({ revision, author }) => `revision ${revision}${author ? ` by ${author}` : ""}`);
    const conflict = others.length ? ` Meanwhile ${others.join(" and ")} was kept: both stay, yours is the newest.` : "";
    await this.#show(state, `Kept as revision ${state.kept.revision}.${conflict}`);
    await this.#countKept();
  }

  async #countKept() {
    const answer = await fetch("api/corrections");
    if (!answer.ok) return;
    const { revisions } = await answer.json();
    const frames = new Set(revisions.map(({ name }) => name)).size;
    byId("kept").textContent = `${revisions.length} ${revisions.length === 1 ? "revision" : "revisions"} of ${frames} ${frames === 1 ? "frame" : "frames"} kept`;
  }

  async #showFrame(state, note) {
    await this.#view.setImage(`api/correction/image?id=${encodeURIComponent(state.id)}`, state.width, state.height);
    this.#canvas.setAttribute("aria-label", "Held image");
    await this.#show(state, note);
  }

  async #show(state, note) {
    this.#state = state;
    await this.#view.setMask(state.mask, state.prompts);
    byId("frame").textContent = `${state.seconds.toFixed(2)} s · ${state.unkept ? "not kept" : state.revision ? `revision ${state.revision}` : "not corrected"}`;
    byId("undo").disabled = !state.prompts.length;
    const newer = state.newer.at(-1);
    const told = newer && !note.startsWith("Kept") ? ` ${newer.author || "Somebody else"} has kept revision ${newer.revision} of this frame.` : "";
    this.#note(note + told);
  }

  #note(text) {
    this.#warned = false;
    byId("note").textContent = text;
  }
}
