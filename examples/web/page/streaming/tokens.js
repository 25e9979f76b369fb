// tokens.txt, and pieces to text as SentencePiece spells them: streaming/tokens.py.

import { BundleError } from "./errors.js";

export const BLANK = "<blk>";
export const UNKNOWN = "<unk>";
const BYTES = /(?:<0x[0-9A-Fa-f]{2}>)+/g;
const EDGES = /^[^\S\uFEFF]+|[^\S\uFEFF]+$/g; // Python strips no byte order mark, trim() does

/** The symbol of every id, `▁` as a space. Ids must be 0..vocabSize-1, each once. */
export function parseTokens(text, vocabSize, blankId = 0) {
  const symbols = new Array(vocabSize).fill(null);
  text.replace(/\n$/, "").split("\n").forEach((line, index) => {
    const found = /^([^ ]+) (\d{1,9})$/.exec(line);
    if (!found || Number(found[2]) >= vocabSize || symbols[Number(found[2])] !== null) {
      throw new BundleError(`tokens.txt:${index + 1}: not 'symbol id', ids once: export it again`);
    }
    symbols[Number(found[2])] = found[1].replaceAll("▁", " ");
  });
  if (symbols.includes(null) || symbols[blankId] !== BLANK) {
    throw new BundleError(
      `tokens.txt: not ${vocabSize} symbols, or ${blankId} is not ${BLANK}: export the bundle again`,
    );
  }
  return symbols;
}

/** Joins pieces: a space starts a word, runs of `<0xNN>` are UTF-8 bytes. */
export function piecesToText(pieces) {
  return pieces.join("").replace(BYTES, decodeBytes).replace(EDGES, "");
}

function decodeBytes(run) {
  const bytes = run.match(/[0-9A-Fa-f]{2}(?=>)/g).map((hex) => parseInt(hex, 16));
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
}
