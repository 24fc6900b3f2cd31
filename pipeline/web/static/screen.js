// The picture, or two side by side: JPEG pictures over the WebSocket at once, WebRTC as soon as it shows something.

const VIEWS = ["overlay", "raw"];
const RTC_PATIENCE_MS = 10000;
const RTC_SILENCE_MS = 2000;
// WebRTC that failed is tried again after so long, and then after twice the last pause, up to 64 times the first.
const RTC_AGAIN_MS = 5000;

class Pane {
  constructor(figure) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.video = figure.querySelector("video");
    this.caption = figure.querySelector("figcaption");
    this.context = this.canvas.getContext("2d", { alpha: false });
  }

  draw(image, width, height) {
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.context.drawImage(image, 0, 0);
  }

  get usesVideo() {
    return !this.video.hidden;
  }

  useVideo(on) {
    this.video.hidden = !on;
    this.canvas.hidden = on;
  }

  // A copy of what is on the screen now, drawn into another pane.
  copyTo(pane) {
    const image = this.usesVideo ? this.video : this.canvas;
    pane.draw(image, image.videoWidth || image.width, image.videoHeight || image.height);
  }
}

export class Screen extends EventTarget {
  #link;
  #panes;
  #origins = [];
  #views = ["overlay"];
  #peer = null;
  #calls = 0;
  #stopWatching = 0;
  #again = 0;
  #failures = 0;
  #lastRtc = 0;
  #drawn = new Map();
  transport = "jpeg";
  wish = "auto";

  constructor(link, live, other) {
    super();
    this.#link = link;
    this.#panes = [new Pane(live), new Pane(other)];
    link.addEventListener("picture", ({ detail }) => this.#receive(detail));
    link.addEventListener("answer", ({ detail }) => this.#hear(detail));
    link.addEventListener("open", () => {
      this.#drawn.clear();
      this.#failures = 0;
      this.#begin();
    });
    link.addEventListener("lost", () => this.#hangUp());
    document.addEventListener("visibilitychange", () => this.#ask());
  }

  get live() {
    return this.#panes[0];
  }

  get other() {
    return this.#panes[1];
  }

  // How RTP timestamps of a call map to the program's clock; a status from the program tells.
  date(call, origins) {
    this.#origins = call === this.#calls ? origins : [];
  }

  // "auto", "rtc" or "jpeg".
  prefer(wish) {
    this.wish = wish;
    this.#failures = 0;
    this.#hangUp();
    this.#begin();
  }

  showRaw(on) {
    this.#views = on ? VIEWS : VIEWS.slice(0, 1);
    this.other.useVideo(false);
    this.#hangUp();
    this.#begin();
  }

  freeze() {
    this.other.useVideo(false);
    this.live.copyTo(this.other);
  }

  // To be called now and then: whether WebRTC still brings pictures although there are new ones.
  check(moving) {
    if (this.transport === "rtc" && moving && performance.now() - this.#lastRtc > RTC_SILENCE_MS && !document.hidden) {
      this.#fallBack("WebRTC brings no pictures");
    }
  }

  #begin() {
    this.#ask();
    if (this.wish !== "jpeg" && "RTCPeerConnection" in window) {
      this.#call().catch((error) => this.#fallBack(String(error)));
    }
  }

  #ask() {
    const wanted = this.transport === "rtc" || document.hidden ? [] : this.#views;
    this.#link.send({ want: wanted });
  }

  async #receive(buffer) {
    const header = new DataView(buffer);
    const view = VIEWS[header.getUint32(0, true)];
    const captured = header.getFloat64(8, true);
    const index = header.getUint32(4, true);
    try {
      const bitmap = await createImageBitmap(new Blob([new Uint8Array(buffer, 16)], { type: "image/jpeg" }));
      const pane = this.#panes[this.#views.indexOf(view)];
      const late = index < (this.#drawn.get(view) ?? 0); // two are decoded at once
      if (pane && !pane.usesVideo && !late) {
        this.#drawn.set(view, index);
        pane.draw(bitmap, bitmap.width, bitmap.height);
        if (pane === this.live) requestAnimationFrame((now) => this.#shown(now, captured));
      }
      bitmap.close();
    } finally {
      this.#link.send({ ack: view });
    }
  }

  async #call() {
    const peer = (this.#peer = new RTCPeerConnection({ iceServers: [] }));
    const call = ++this.#calls;
    for (const _ of this.#views) peer.addTransceiver("video", { direction: "recvonly" });
    peer.ontrack = ({ track, receiver, transceiver }) => {
      receiver.jitterBufferTarget = 0; // no more delay than the network causes
      if ("playoutDelayHint" in receiver) receiver.playoutDelayHint = 0;
      const number = peer.getTransceivers().indexOf(transceiver);
      const pane = this.#panes[number];
      pane.video.srcObject = new MediaStream([track]);
      this.#watch(peer, pane, number);
    };
    peer.onconnectionstatechange = () => {
      if (peer === this.#peer && peer.connectionState === "failed") this.#fallBack("WebRTC did not connect");
    };
    this.#stopWatching = setTimeout(() => {
      if (peer === this.#peer && this.transport !== "rtc") this.#fallBack("WebRTC did not connect");
    }, RTC_PATIENCE_MS);
    await peer.setLocalDescription();
    if (peer !== this.#peer) return;
    this.#link.send({ offer: peer.localDescription.sdp, views: this.#views, call });
  }

  // An answer to an offer that was given up meanwhile is of no use.
  #hear({ call, answer, refused }) {
    if (!this.#peer || call !== this.#calls) return;
    if (answer === undefined) this.#fallBack(refused);
    else this.#peer.setRemoteDescription({ type: "answer", sdp: answer }).catch((error) => this.#fallBack(String(error)));
  }

  #watch(peer, pane, number) {
    const { video } = pane;
    const next = (now, metadata) => {
      if (peer !== this.#peer) return;
      if (!pane.usesVideo) this.#useVideo(pane);
      if (number === 0) {
        this.#lastRtc = performance.now();
        this.#shown(metadata.expectedDisplayTime, this.#captured(metadata.rtpTimestamp, now));
      }
      video.requestVideoFrameCallback(next);
    };
    video.requestVideoFrameCallback(next);
    video.play().catch(() => {});
  }

  #useVideo(pane) {
    pane.useVideo(true);
    if (this.#panes.slice(0, this.#views.length).every((p) => p.usesVideo)) {
      this.#failures = 0;
      this.#turnTo("rtc");
      this.#ask();
    }
  }

  // When the frame with this RTP timestamp was captured, in ms of the program's clock; null where that can't be told.
  #captured(timestamp, now) {
    const origin = this.#origins[0];
    const program = this.#link.toProgram(now);
    if (timestamp === undefined || origin === null || origin === undefined || program === null) return null;
    const ticks = (timestamp - origin) >>> 0; // modulo 2^32, as RTP counts
    const age = ((Math.round(program * 90) >>> 0) - ticks) | 0;
    return program - age / 90;
  }

  #shown(time, captured) {
    const program = this.#link.toProgram(time);
    const latency = captured === null || program === null ? null : program - captured;
    this.dispatchEvent(new CustomEvent("shown", { detail: { time, latency } }));
  }

  #fallBack(reason) {
    this.#hangUp();
    if (!this.#failures) this.dispatchEvent(new CustomEvent("fallback", { detail: reason }));
    this.#again = setTimeout(() => this.#begin(), RTC_AGAIN_MS * 2 ** Math.min(this.#failures++, 6));
    this.#ask();
  }

  #hangUp() {
    clearTimeout(this.#stopWatching);
    clearTimeout(this.#again);
    const peer = this.#peer;
    this.#peer = null;
    this.#origins = [];
    if (peer) {
      peer.close();
      this.#link.send({ hangup: true });
      for (const pane of this.#panes) this.#release(pane);
    }
    this.#turnTo("jpeg");
  }

  // Back from video to canvas, which goes on with the picture that the video showed last.
  #release(pane) {
    if (pane.usesVideo && pane.video.videoWidth) pane.copyTo(pane);
    pane.useVideo(false);
    pane.video.srcObject = null;
  }

  #turnTo(transport) {
    if (this.transport === transport) return;
    this.transport = transport;
    this.dispatchEvent(new Event("transport"));
  }
}
