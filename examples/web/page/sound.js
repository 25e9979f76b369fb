// Where sound comes from: the microphone, or a file.

import { AudioError } from "./streaming/errors.js";
import { isWav, parseWav } from "./streaming/audio.js";

// A recogniser hears what it heard in training: no echo cancelling, no gating of quiet speech.
const CONSTRAINTS = {
  audio: {
    channelCount: 1,
    echoCancellation: false,
    noiseSuppression: false,
    autoGainControl: false,
  },
};

/** What the names of the browser's errors mean for someone who only wants to speak. */
const REFUSALS = {
  NotAllowedError: "the microphone is not allowed: allow it in the address bar, then start again",
  NotFoundError: "there is no microphone: plug one in, or choose a sound file",
  NotReadableError: "another program holds the microphone: close that one, then start again",
};

/** An open microphone: {port, sampleRate} are for the worker, stop() ends it. */
export class Microphone {
  /** @param {(message: string) => void} onLost when the device goes away */
  static async open(onLost) {
    if (!navigator.mediaDevices) {
      throw new AudioError("no microphone on this address: open the page by https or on localhost");
    }
    const media = await navigator.mediaDevices.getUserMedia(CONSTRAINTS).catch((error) => {
      throw new AudioError(REFUSALS[error.name] ?? `the microphone failed: ${error.message}`);
    });
    const microphone = new Microphone(media, new AudioContext());
    await microphone.#connect(onLost);
    return microphone;
  }

  constructor(media, context) {
    this.media = media;
    this.context = context;
    this.sampleRate = context.sampleRate;
  }

  async #connect(onLost) {
    await this.context.audioWorklet.addModule("capture.js");
    await this.context.resume();
    this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    const { port1, port2 } = new MessageChannel();
    this.node.port.postMessage(port1, [port1]);
    this.port = port2;
    this.context.createMediaStreamSource(this.media).connect(this.node);
    this.media.getTracks()[0].onended = () => {
      onLost("the microphone went away: plug it in, then start again");
    };
  }

  /** The last samples, then the end, go through the port. */
  stop() {
    this.node.port.postMessage("stop");
    for (const track of this.media.getTracks()) track.stop();
  }

  /** Only after the worker has got the end: a closed context delivers nothing more. */
  close() {
    return this.context.close();
  }
}

/** A File -> {samples: mono, sampleRate}; raises AudioError. */
export async function readSound(file, modelRate) {
  const buffer = await file.arrayBuffer();
  if (buffer.byteLength === 0) throw new AudioError(`${file.name}: the file is empty`);
  try {
    return isWav(buffer) ? parseWav(buffer) : await decodeSound(buffer, modelRate);
  } catch (error) {
    const reason = error instanceof AudioError ? error.message : "no sound this browser can read";
    throw new AudioError(`${file.name}: ${reason}`);
  }
}

async function decodeSound(buffer, modelRate) {
  const context = new OfflineAudioContext({ length: 1, sampleRate: modelRate });
  const decoded = await context.decodeAudioData(buffer);
  const samples = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    const values = decoded.getChannelData(channel);
    for (let i = 0; i < samples.length; i++) samples[i] += values[i] / decoded.numberOfChannels;
  }
  return { samples, sampleRate: modelRate };
}
