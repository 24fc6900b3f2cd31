// One or two image panes. JPEG images come over the WebSocket until WebRTC delivers frames.

const VIEWS = ["overlay", "raw"];
// Without the callback it is not known whether a video shows anything.
const HAS_RTC = "RTCPeerConnection" in window && "requestVideoFrameCallback" in HTMLVideoElement.prototype;
const RTC_PATIENCE_MS = 10000;
const RTC_SILENCE_MS = 2000;
// The first pause before WebRTC is tried again; each pause is twice the last, up to 64 times the first.
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

  // Return the place of a pointer event in shares of the width and height of the image; null beside it.
  shareAt({ clientX, clientY }) {
    const image = this.usesVideo ? this.video : this.canvas;
    const [width, height] = [image.videoWidth || image.width, image.videoHeight || image.height];
    const box = image.getBoundingClientRect();
    const scale = Math.min(box.width / width, box.height / height);
    const x = (clientX - box.left - (box.width - width * scale) / 2) / (width * scale);
    const y = (clientY - box.top - (box.height - height * scale) / 2) / (height * scale);
    return x >= 0 && x <= 1 && y >= 0 && y <= 1 ? [x, y] : null;
  }

  // Draw a copy of the displayed image into another pane.
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
  #undisplayed = null; // the capture time of an image that was drawn
  transport = "jpeg";
  preference = "auto";

  constructor(link, live, other) {
    super();
    this.#link = link;
    this.#panes = [new Pane(live), new Pane(other)];
    link.addEventListener("image", ({ detail }) => this.#receive(detail));
    link.addEventListener("answer", ({ detail }) => this.#acceptAnswer(detail));
    link.addEventListener("open", () => {
      this.#drawn.clear();
      this.#failures = 0;
      this.#start();
    });
    link.addEventListener("lost", () => this.#hangUp());
    document.addEventListener("visibilitychange", () => {
      this.#lastRtc = performance.now(); // a hidden page is given no images of a video
      this.#request();
    });
  }

  get live() {
    return this.#panes[0];
  }

  get other() {
    return this.#panes[1];
  }

  // Set the origins of a call's RTP timestamps, from the program's status.
  setOrigins(call, origins) {
    this.#origins = call === this.#calls ? origins : [];
  }

  // "auto", "rtc" or "jpeg".
  prefer(preference) {
    this.preference = preference;
    this.#failures = 0;
    this.#hangUp();
    this.#start();
  }

  showRaw(on) {
    this.#views = on ? VIEWS : VIEWS.slice(0, 1);
    this.other.useVideo(false);
    this.#hangUp();
    this.#start();
  }

  freeze() {
    this.other.useVideo(false);
    this.live.copyTo(this.other);
  }

  // Fall back to JPEG if WebRTC delivers no frames although there are new ones. To be called periodically.
  check(moving) {
    if (this.transport === "rtc" && moving && performance.now() - this.#lastRtc > RTC_SILENCE_MS && !document.hidden) {
      this.#fallBack("WebRTC delivers no images");
    }
  }

  #start() {
    this.#request();
    if (this.preference !== "jpeg" && HAS_RTC) {
      this.#connect().catch((error) => this.#fallBack(String(error)));
    }
  }

  #request() {
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
      const late = index < (this.#drawn.get(view) ?? 0); // two images are decoded at once
      if (pane && !pane.usesVideo && !late) {
        this.#drawn.set(view, index);
        pane.draw(bitmap, bitmap.width, bitmap.height);
        if (pane === this.live) this.#reportNext(captured);
      }
      bitmap.close();
    } finally {
      this.#link.send({ ack: view });
    }
  }

  // Report the newest image that was drawn until the browser displays: it may display none for seconds, or one of two.
  #reportNext(captured) {
    const waits = this.#undisplayed !== null;
    this.#undisplayed = captured;
    if (waits) return;
    requestAnimationFrame((now) => {
      this.#report(now, this.#undisplayed);
      this.#undisplayed = null;
    });
  }

  async #connect() {
    const peer = (this.#peer = new RTCPeerConnection({ iceServers: [] }));
    const call = ++this.#calls;
    for (const _ of this.#views) peer.addTransceiver("video", { direction: "recvonly" });
    peer.ontrack = ({ track, receiver, transceiver }) => {
      receiver.jitterBufferTarget = 0; // no delay beyond that of the network
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

  // Ignore an answer to an offer that was abandoned.
  #acceptAnswer({ call, answer, refused }) {
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
        this.#report(metadata.expectedDisplayTime, this.#captured(metadata.rtpTimestamp, now));
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
      this.#setTransport("rtc");
      this.#request();
    }
  }

  // Return the capture time of a frame by its RTP timestamp, in ms of the program's clock; null if unknown.
  #captured(timestamp, now) {
    const origin = this.#origins[0];
    const program = this.#link.toProgram(now);
    if (timestamp === undefined || origin === null || origin === undefined || program === null) return null;
    const ticks = (timestamp - origin) >>> 0; // modulo 2^32, as RTP counts
    const age = ((Math.round(program * 90) >>> 0) - ticks) | 0;
    return program - age / 90;
  }

  #report(time, captured) {
    const program = this.#link.toProgram(time);
    const latency = captured === null || program === null ? null : program - captured;
    this.dispatchEvent(new CustomEvent("shown", { detail: { time, latency } }));
  }

  #fallBack(reason) {
    this.#hangUp();
    if (!this.#failures) this.dispatchEvent(new CustomEvent("fallback", { detail: reason }));
    this.#again = setTimeout(() => this.#start(), RTC_AGAIN_MS * 2 ** Math.min(this.#failures++, 6));
    this.#request();
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
    this.#setTransport("jpeg");
  }

  // Switch a pane from video to canvas, starting with the last image of the video.
  #release(pane) {
    if (pane.usesVideo && pane.video.videoWidth) pane.copyTo(pane);
    pane.useVideo(false);
    pane.video.srcObject = null;
  }

  #setTransport(transport) {
    if (this.transport === transport) return;
    this.transport = transport;
    this.dispatchEvent(new Event("transport"));
  }
}
