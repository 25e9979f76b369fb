// What can go wrong with what a user hands in: streaming/errors.py.

/** Input the user can correct. The message is one line and names the fix. */
export class InputError extends Error {
  name = "InputError";
}

/** A bundle that is damaged, foreign or of another schema. */
export class BundleError extends InputError {
  name = "BundleError";
}

/** Sound that is missing, empty, truncated or not finite; or no microphone. */
export class AudioError extends InputError {
  name = "AudioError";
}
