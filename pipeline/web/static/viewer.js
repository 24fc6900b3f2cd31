// The page: connects images, status, controls and keys.

import { ClassList, Controls } from "./controls.js";
import { Correction } from "./correction.js";
import { Follow } from "./follow.js";
import { Keys } from "./keys.js";
import { Link } from "./link.js";
import { Meter } from "./meter.js";
import { tell } from "./outcome.js";
import { Plot } from "./plot.js";
import { post } from "./post.js";
import { Screen } from "./screen.js";
import { cycleTheme, startTheme } from "./theme.js";

const byId = (id) => document.getElementById(id);
const SILENCE_MS = 500; // without a new image for longer, the page says so
const MUTE_MS = 1500; // without a status for longer, the state is "No answer"
const LATE_MS = 1000; // an image that is older on this screen is behind
const BLOCKED = "The program answers, but no WebSocket opens: load this page again. If that does not help, a proxy or the browser blocks it, and /stream.mjpg has the image alone.";
const HOLD_MS = 1000; // a state is announced once it has held
const STATES = {
  connecting: ["Connecting", "wait"],
  live: ["Live", "good"],
  behind: ["Behind", "bad"],
  stalled: ["Stalled", "bad"],
  reconnecting: ["Reconnecting", "bad"],
  ended: ["Ended", "off"],
};
// The record button's label, and the signal in the header.
const RECORD = {
  off: ["Record", ""],
  starting: ["Starting …", "Recording starts"],
  recording: ["Recording", "Recording"],
  failed: ["Retrying …", "Recording failed: trying again"],
};

const link = new Link();
const controls = new Controls();
const screen = new Screen(link, byId("live"), byId("other"));
const meter = new Meter();
const latencyPlot = new Plot(byId("latency-plot"), { label: "Latency", unit: "ms", least: 110, mark: 100 });
const fpsPlot = new Plot(byId("fps-plot"), { label: "Frame rate", unit: "FPS", least: 30 });

let stream = null;
let status = null;
let statusTime = 0; // when the last status arrived
let classList = null;
let correction = null; // made once the program says that masks can be corrected
const follow = new Follow(screen.live);
let compare = "none"; // or "frozen", "raw"
let announced = {};
let dismissed = "";

function put(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

function announce(topic, text) {
  if (announced[topic] === text) return;
  const first = !(topic in announced);
  announced[topic] = text;
  if (!first) put("announcer", text);
}

function press(id, on) {
  byId(id).setAttribute("aria-pressed", String(on));
}

// Messages from the program.

// Ask what the program shows: at the start, and after the connection was lost, for another run may answer then.
let asking = 0;

async function begin() {
  clearTimeout(asking);
  const before = stream && JSON.stringify(stream);
  try {
    const answer = await fetch("api/stream");
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(answer.statusText);
    stream = await answer.json();
  } catch {
    clearTimeout(asking);
    asking = setTimeout(begin, 1000);
    return;
  }
  if (before && before !== JSON.stringify(stream)) return location.reload();
  const { name, width, height } = stream.stream;
  document.title = `${name} – cliprl`;
  put("source", name);
  byId("source").title = name;
  put("f-source", `${width} × ${height}`);
  put("f-network", stream.network || "none");
  byId("record").hidden = !stream.records;
  byId("pause").hidden = stream.stream.live;
  byId("correct").hidden = !stream.corrects;
  follow.offer(stream.follows);
  if (stream.corrects) correction ??= new Correction(byId("stage"), stream, controls);
  classList ??= new ClassList(byId("classes"), stream.classes, controls);
}

link.addEventListener("status", ({ detail }) => {
  status = detail;
  statusTime = performance.now();
  screen.setOrigins(detail.call, detail.origins);
  controls.accept(detail.settings);
  classList?.update(controls.settings.hidden, detail.areas, detail.presence);
  showState();
  follow.accept(detail.followed);
  showMask();
  showFacts();
  showPosition();
});
link.addEventListener("lost", () => {
  showState();
  announce("state", "Connection to the program lost");
  begin();
});

// The state on this page: images may also arrive late here, or not at all.
function stateHere() {
  if (!link.isOpen || !status) return "lost";
  if (status.settings.paused) return "paused";
  const now = performance.now();
  if (status.state === "live" && now - statusTime > MUTE_MS) return "mute";
  if (status.state === "live" && stream?.stream.live && behindHere() !== null) return "behind";
  return status.state;
}

// The seconds by which the image on this page is behind the camera; null if it is not.
function behindHere() {
  const { latency } = meter.read();
  const age = latency + link.doubt; // at most: a late image is called late
  const late = latency !== null && performance.now() - meter.last < SILENCE_MS && age > LATE_MS ? age / 1000 : null;
  return status?.behind_s === null || status?.behind_s === undefined ? late : Math.max(status.behind_s, late ?? 0);
}

const HERE = { ...STATES, lost: ["No connection", "bad"], paused: ["Paused", "off"], mute: ["No answer", "bad"] };
let state = { name: "", since: 0 };

function showState() {
  const name = stateHere();
  const [text, level] = HERE[name];
  if (name !== state.name) state = { name, since: performance.now() };
  const behind = name === "behind" ? ` by ${(behindHere() ?? 0).toFixed(1)} s` : "";
  put("state-text", text + behind);
  byId("state").dataset.level = level;
  const held = !("state" in announced) || performance.now() - state.since > HOLD_MS;
  if (name !== "lost" && held) announce("state", `Source ${text.toLowerCase()}`);
}

function showMask() {
  const aged = status.mask === "aged" ? `aged ${Math.round(status.age_ms)} ms` : status.mask;
  const mark = status.unfamiliar ? "unfamiliar view" : status.unsure ? "unsure" : "";
  put("mask-text", mark ? `Mask ${aged} · ${mark}` : `Mask ${aged}`);
  byId("mask").dataset.level = mark ? "wait" : { fresh: "good", aged: "wait", off: "off" }[status.mask];
  put("f-doubt", status.doubt === null ? "–" : `${Math.round(100 * status.doubt)} %${mark ? `, ${mark}` : ""}`);
  put("f-mask", status.reason ? `${aged}: ${status.reason}` : aged);
  announce("mask", `Mask ${status.mask}`);
}

function showFacts() {
  put("f-dropped", String(status.dropped));
  put("f-viewers", String(status.viewers));
  put("f-reconnections", String(status.reconnections));
  byId("f-reconnections-row").hidden = status.reconnections === 0;
  put("f-missed", String(status.missed));
  byId("f-missed-row").hidden = status.missed === 0;
  const note = status.guarded ? "The endoscope is out of the body: the image is pixelated." : "";
  put("note", note);
  byId("note").hidden = !note;
  showRecord();
  showAlert();
}

// The state of the recording, which may differ from the requested one.
function recordState() {
  const state = status?.record_state ?? "off";
  return state === "off" && controls.settings.recording && status?.state !== "ended" ? "starting" : state;
}

function showRecord() {
  const state = recordState();
  const [label, signal] = RECORD[state];
  put("record-text", label);
  put("recording-text", signal);
  byId("recording").hidden = !signal;
  press("record", state !== "off");
  announce("recording", signal || "Not recording");
}

// A problem is shown until it is dismissed; that of a failing recording can't be dismissed.
function showAlert() {
  const failing = status.record_state === "failed";
  const text = failing || status.note !== dismissed ? status.note : "";
  put("alert-text", text);
  byId("alert").hidden = !text;
  byId("alert-close").hidden = failing;
}

// The position in a file. The slider is not updated while the user moves it.

let seeking = false;

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function showPosition() {
  byId("replay").hidden = !status.repeats;
  byId("seek-row").hidden = status.duration === null;
  if (status.duration === null) return;
  const slider = byId("seek");
  slider.max = String(status.duration);
  if (!seeking) slider.value = String(status.position);
  labelPosition();
}

function labelPosition() {
  const slider = byId("seek");
  const [at, end] = [slider.valueAsNumber, Number(slider.max)];
  put("seek-value", `${clock(at)} / ${clock(end)}`);
  slider.setAttribute("aria-valuetext", `${clock(at)} of ${clock(end)}`);
  slider.style.setProperty("--filled", `${end ? (100 * at) / end : 0}%`);
}

async function seek(seconds) {
  try {
    await post("api/position", { seconds });
  } catch (error) {
    tell(`Not moved: ${error.message}`, true);
  }
  setTimeout(() => (seeking = false), 400); // until the status has the new position
}

// What this screen displays.

screen.addEventListener("shown", ({ detail }) => meter.add(detail));
screen.addEventListener("transport", () => {
  for (const option of byId("transport").options) {
    if (option.value === "auto") option.textContent = `Automatic (${screen.transport === "rtc" ? "WebRTC" : "MJPEG"})`;
  }
});
screen.addEventListener("fallback", ({ detail }) => put("announcer", `${detail}: showing MJPEG`));

function showBanner() {
  const silent = performance.now() - meter.last;
  let text = "";
  if (!link.isOpen) text = link.isBlocked ? BLOCKED : "Connection to the program lost. Trying again …";
  else if (!status || !meter.last) text = "Waiting for the first image …";
  else if (stateHere() === "behind") {
    text = `Behind by ${(behindHere() ?? 0).toFixed(1)} s: ${status.problem || "images arrive late on this page"}`;
  } else if (status.state !== "live") text = awayText();
  else if (silent > SILENCE_MS && !status.settings.paused) {
    text = `No new image for ${(silent / 1000).toFixed(1)} s`;
  }
  put("banner", text);
  byId("banner").hidden = !text;
  byId("stage").classList.toggle("stale", Boolean(text));
  showState();
  screen.check(status?.state === "live" && !status.settings.paused && silent > SILENCE_MS);
}

function awayText() {
  const [text] = STATES[status.state];
  const since = status.for_s !== null && status.state !== "ended" ? ` for ${Math.round(status.for_s)} s` : "";
  return `Source ${text.toLowerCase()}${since}${status.problem ? `: ${status.problem}` : ""}`;
}

showBanner();
setInterval(showBanner, 100);
setInterval(() => {
  const { fps, latency: read } = meter.read();
  const receives = status?.state === "live" || status?.state === "behind";
  const latency = receives ? read : null; // a marked or repeated image has no meaningful latency
  put("latency", latency === null ? "–" : String(Math.round(latency)));
  put("fps", receives && fps ? String(fps) : "–");
  latencyPlot.add(latency);
  fpsPlot.add(receives ? fps : 0);
}, 250);
setInterval(() => {
  latencyPlot.describe();
  fpsPlot.describe();
}, 5000);

// Actions of the user.

controls.addEventListener("change", () => {
  const { opacity, contours, hidden, paused } = controls.settings;
  const percent = String(Math.round(opacity * 100));
  const slider = byId("opacity");
  if (slider.value !== percent) slider.value = percent;
  slider.setAttribute("aria-valuetext", `${percent} %`);
  slider.style.setProperty("--filled", `${percent}%`);
  put("opacity-value", `${percent} %`);
  byId("contours").checked = contours;
  classList?.update(hidden, status?.areas ?? {}, status?.presence ?? {});
  put("all", hidden.length ? "Show all" : "Hide all");
  showRecord();
  press("pause", paused);
});
controls.addEventListener("refused", ({ detail }) => tell(`Not changed: ${detail}`, true));

const names = () => classList?.classes.map((spec) => spec.name) ?? [];

function setCompare(mode) {
  const wasRaw = compare === "raw";
  compare = mode;
  const shown = mode !== "none";
  byId("other").hidden = !shown;
  byId("panes").dataset.layout = shown ? "pair" : "single";
  screen.live.caption.hidden = !shown;
  screen.other.caption.textContent = mode === "frozen" ? `Frozen ${new Date().toLocaleTimeString()}` : "Raw";
  if (wasRaw !== (mode === "raw")) screen.showRaw(mode === "raw");
  if (mode === "frozen") screen.freeze();
  press("freeze", mode === "frozen");
  press("beside", mode === "raw");
  tell({ none: "Live image only", frozen: "Frozen image beside the live one", raw: "Raw image beside the overlay" }[mode]);
}

async function takeSnapshot() {
  const anchor = document.createElement("a");
  try {
    if (compare === "frozen") {
      const still = await new Promise((done) => screen.other.canvas.toBlob(done, "image/png"));
      anchor.href = URL.createObjectURL(still);
      anchor.download = `cliprl_frozen_${new Date().toISOString().replaceAll(/[-:]|\.\d+/g, "")}.png`;
    } else {
      const answer = await fetch("snapshot.png");
      if (!answer.ok) throw new Error(await answer.text());
      anchor.download = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))[1];
      anchor.href = URL.createObjectURL(await answer.blob());
    }
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
    tell(`Snapshot saved as ${anchor.download}`);
  } catch (error) {
    tell(`No snapshot: ${error.message}`, true);
  }
}

const actions = {
  overlay: () => controls.toggleOverlay(),
  dimmer: () => controls.nudge(-0.05),
  brighter: () => controls.nudge(0.05),
  contours: () => controls.change({ contours: !controls.settings.contours }),
  class: (number) => {
    const name = names()[number];
    if (name) controls.show(name, controls.settings.hidden.includes(name));
  },
  all: () => controls.change({ hidden: controls.settings.hidden.length ? [] : names() }),
  freeze: () => setCompare(compare === "frozen" ? "none" : "frozen"),
  beside: () => setCompare(compare === "raw" ? "none" : "raw"),
  correct: () => correction?.toggle(),
  follow: () => follow.next(),
  unfollow: () => follow.end(),
  snapshot: takeSnapshot,
  record: () => stream?.records && controls.change({ recording: !controls.settings.recording }),
  pause: () => stream && !stream.stream.live && controls.change({ paused: !controls.settings.paused }),
  full: () => document.fullscreenEnabled && (document.fullscreenElement ? document.exitFullscreen() : byId("stage").requestFullscreen()).catch(() => {}),
  theme: () => tell(cycleTheme()),
  help: () => (byId("keys").open ? byId("keys").close() : byId("keys").showModal()),
};

for (const name of ["freeze", "beside", "correct", "snapshot", "record", "pause", "full", "theme", "help", "all"]) {
  byId(name).addEventListener("click", () => actions[name]());
}
byId("follow-next").addEventListener("click", () => follow.next());
byId("follow-end").addEventListener("click", () => follow.end());
byId("opacity").addEventListener("input", ({ target }) => controls.change({ opacity: target.valueAsNumber / 100 }));
byId("contours").addEventListener("change", ({ target }) => controls.change({ contours: target.checked }));
byId("transport").addEventListener("change", ({ target }) => screen.prefer(target.value));
byId("alert-close").addEventListener("click", () => {
  dismissed = status.note;
  showAlert();
});
byId("seek").addEventListener("input", () => {
  seeking = true;
  labelPosition();
});
byId("seek").addEventListener("change", ({ target }) => seek(target.valueAsNumber));
byId("replay").addEventListener("click", () => seek(0));
byId("keys-close").addEventListener("click", () => byId("keys").close());

// Full screen: the buttons disappear while the mouse does not move.

const stage = byId("stage");
let resting = 0;
function wake() {
  stage.classList.remove("idle");
  clearTimeout(resting);
  if (document.fullscreenElement) resting = setTimeout(() => stage.classList.add("idle"), 3000);
}
document.addEventListener("fullscreenchange", () => {
  press("full", Boolean(document.fullscreenElement));
  wake();
});
for (const kind of ["pointermove", "pointerdown", "keydown", "focusin"]) stage.addEventListener(kind, wake);

new ResizeObserver(([bar]) => {
  document.documentElement.style.setProperty("--bar", `${bar.borderBoxSize[0].blockSize}px`);
}).observe(document.querySelector(".bar"));

byId("full").hidden = !document.fullscreenEnabled;
startTheme();
new Keys(actions, byId("shortcuts"));
begin();
