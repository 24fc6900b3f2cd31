// The WebSocket to the program. It reconnects when it is lost, and estimates the program's clock.

const RETRY_MS = [250, 500, 1000, 2000];
const PING_MS = 2000;
const SAMPLES = 8;
const SILENCE_MS = 4000; // without a message for longer the connection is given up: a cut network closes nothing

export class Link extends EventTarget {
  #socket = null;
  #failures = 0;
  #clocks = [];
  #pinging = 0;
  #watching = 0;
  #heard = 0; // when the last message came

  constructor() {
    super();
    this.#open();
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  send(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  // Convert a time of this page (`performance.now()`) to the program's clock in ms; null before it is known.
  toProgram(time) {
    if (!this.#clocks.length) return null;
    const best = this.#clocks.reduce((a, b) => (b.trip < a.trip ? b : a));
    return time + best.offset;
  }

  #open() {
    const address = new URL("ws", document.baseURI); // relative: a proxy may serve the page below a prefix
    address.protocol = address.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(address));
    socket.binaryType = "arraybuffer";
    this.#heard = performance.now();
    this.#watching = setInterval(() => {
      if (performance.now() - this.#heard > SILENCE_MS) this.#lose(socket);
    }, SILENCE_MS / 8);
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      this.#failures = 0;
      this.#clocks = [];
      this.#ping();
      this.dispatchEvent(new Event("open"));
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#receive(data);
    };
    socket.onclose = () => this.#lose(socket);
  }

  // Leave a connection that is closed or silent, and open another one after a pause.
  #lose(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    socket.close();
    clearTimeout(this.#pinging);
    clearInterval(this.#watching);
    this.dispatchEvent(new Event("lost"));
    setTimeout(() => this.#open(), RETRY_MS[Math.min(this.#failures++, RETRY_MS.length - 1)]);
  }

  #ping() {
    this.send({ ping: performance.now() });
    this.#pinging = setTimeout(() => this.#ping(), this.#clocks.length < SAMPLES ? PING_MS / 10 : PING_MS);
  }

  #receive(data) {
    this.#heard = performance.now();
    if (typeof data !== "string") {
      this.dispatchEvent(new CustomEvent("image", { detail: data }));
      return;
    }
    const message = JSON.parse(data);
    if ("pong" in message) {
      const now = performance.now();
      this.#clocks.push({ trip: now - message.pong, offset: message.clock - (now + message.pong) / 2 });
      if (this.#clocks.length > SAMPLES) this.#clocks.shift();
    }
    if ("status" in message) this.dispatchEvent(new CustomEvent("status", { detail: message.status }));
    if ("call" in message) this.dispatchEvent(new CustomEvent("answer", { detail: message }));
  }
}
