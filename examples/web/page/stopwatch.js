// Time for each chunk and delay of its text: what the page shows of its speed.

const KEPT = 2000; // of each list; ten minutes of chunks of 320 ms

export class Stopwatch {
  constructor(chunkSeconds) {
    this.chunkSeconds = chunkSeconds;
    this.numChunks = 0;
    this.busy = 0; // milliseconds
    this.chunks = [];
    this.delays = [];
  }

  /** Milliseconds from a chunk's features to its text. */
  addChunk(milliseconds) {
    this.numChunks += 1;
    this.busy += milliseconds;
    keep(this.chunks, milliseconds);
  }

  /** Milliseconds from the arrival of a chunk's last sample to its text. */
  addDelay(milliseconds) {
    keep(this.delays, milliseconds);
  }

  /** Seconds of sound, the share of real time that decoding took, and milliseconds [p50, p95]. */
  summary() {
    const seconds = this.numChunks * this.chunkSeconds;
    return {
      seconds,
      realTimeFactor: this.busy / 1000 / seconds,
      chunk: [percentile(this.chunks, 0.5), percentile(this.chunks, 0.95)],
      delay: this.delays.length
        ? [percentile(this.delays, 0.5), percentile(this.delays, 0.95)]
        : null,
    };
  }
}

function keep(values, value) {
  values.push(value);
  if (values.length > KEPT) values.shift();
}

/** The smallest value that is no less than `share` of all. */
export function percentile(values, share) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}
