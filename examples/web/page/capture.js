// The AudioWorklet: sound from the microphone in blocks, straight to the worker through a port.
//
// In:   the worker's port once, then "stop".  Out, to the worker: {samples, arrived}, {end: true}.

const BLOCK = 2048; // 43 ms at 48 kHz; smaller ones wake the worker more often, for no earlier text

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
    this.running = true;
    this.port.onmessage = ({ data }) => {
      if (data === "stop") this.#stop();
      else this.worker = data;
    };
  }

  process([channels]) {
    if (!this.worker || channels.length === 0) return this.running;
    const size = channels[0].length;
    for (let i = 0; i < size && this.running; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.block[this.filled++] = sum / channels.length;
      if (this.filled === BLOCK) this.#send();
    }
    return this.running;
  }

  #send() {
    const samples = this.block.slice(0, this.filled);
    this.worker.postMessage({ samples, arrived: Date.now() }, [samples.buffer]);
    this.filled = 0;
  }

  #stop() {
    if (!this.running) return;
    this.running = false;
    if (this.filled) this.#send();
    this.worker.postMessage({ end: true });
  }
}

registerProcessor("capture", Capture);
