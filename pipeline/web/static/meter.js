// Measurement of the frame rate and the latency on this screen.

const WINDOW_MS = 1000;

export class Meter {
  #times = [];
  #latencies = [];
  last = 0;

  add({ time, latency }) {
    this.last = performance.now();
    this.#times.push(time);
    if (latency !== null) this.#latencies.push([time, latency]);
    if (this.#times.length > 500) this.#trim(time);
  }

  #trim(now) {
    while (this.#times.length && this.#times[0] < now - WINDOW_MS) this.#times.shift();
    while (this.#latencies.length && this.#latencies[0][0] < now - WINDOW_MS) this.#latencies.shift();
  }

  // Return the number of frames in the last second, and their median latency in ms (null if none was measured).
  read() {
    this.#trim(performance.now());
    const sorted = this.#latencies.map(([, latency]) => latency).sort((a, b) => a - b);
    return { fps: this.#times.length, latency: sorted.length ? sorted[sorted.length >> 1] : null };
  }
}
