// The WebSocket to the program. It reconnects when it is lost, and estimates the program's clock.

const RETRY_MS = [250, 500, 1000, 2000];
const PING_MS = 2000;
const SAMPLES = 8;
const COARSE_MS = 10; // browsers round the time
const SILENCE_MS = 4000; // without a message for longer the connection is given up: a cut network closes nothing

// Whether the program answers: then a WebSocket that does not open is blocked on the way.
async function answers() {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), SILENCE_MS);
  try {
    const { headers } = await fetch("healthz", { signal: patience.signal });
    return (headers.get("Content-Type") ?? "").includes("json");
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
}

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

  // Whether the program answers while no WebSocket to it opens.
  get isBlocked() {
    return this.#failures > 2;
  }

  send(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  // Convert a time of this page (`performance.now()`) to the program's clock in ms; null before it is known.
  toProgram(time) {
    return this.#clocks.length ? time + this.#clock.offset : null;
  }

  // How much later than `toProgram` the program's time may be, in ms: all of a message's trip may have been its way back.
  get doubt() {
    return this.#clocks.length ? this.#clock.trip / 2 : 0;
  }

  get #clock() {
    return this.#clocks.reduce((a, b) => (b.trip < a.trip ? b : a));
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
    this.#failures++;
    this.#retry(0);
  }

  #retry(tries) {
    const next = async () => ((await answers()) || tries % 4 === 3 ? this.#open() : this.#retry(tries + 1));
    setTimeout(next, RETRY_MS[Math.min(tries + this.#failures - 1, RETRY_MS.length - 1)]);
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
      const newest = { trip: now - message.pong, offset: message.clock - (now + message.pong) / 2 };
      // The clock of a page stops while its machine sleeps: samples that contradict the newest are from before.
      const agrees = ({ trip, offset }) => Math.abs(offset - newest.offset) <= (trip + newest.trip) / 2 + COARSE_MS;
      this.#clocks = [...this.#clocks.filter(agrees), newest].slice(-SAMPLES);
    }
    if ("status" in message) this.dispatchEvent(new CustomEvent("status", { detail: message.status }));
    if ("call" in message) this.dispatchEvent(new CustomEvent("answer", { detail: message }));
  }
}
