"""Modified beam search as sherpa-onnx writes it: whole label sequences in a dictionary."""

from __future__ import annotations

import numpy as np


def search_hypotheses(session, encoded, blanks, num_paths, context_size):
    """encoded (T', J) of one stream -> labels, frames and trailing blanks of the best."""
    predicted, memory = session.predict(np.array([session.info.blank_id]), session.empty_memory())
    # labels -> [log probability, frames, trailing blanks, predicted, memory]
    beam = {(): [0.0, (), 0, predicted, memory]}
    for t, frame in enumerate(encoded):
        candidates = []
        for labels, (total, frames, trailing, predicted, memory) in beam.items():
            logits = session.join(frame[None], predicted)[0].astype(np.float64)
            log_probs = logits - np.logaddexp.reduce(logits)
            for token, log_prob in enumerate(log_probs):
                candidates.append(
                    (total + log_prob, labels, token, frames, trailing, predicted, memory)
                )
        candidates.sort(key=lambda candidate: -candidate[0])
        beam = {}
        for score, labels, token, frames, trailing, predicted, memory in candidates[:num_paths]:
            if token not in blanks:
                predicted, memory = session.predict(np.array([token]), memory)
                labels, frames, trailing = (*labels, token), (*frames, t), -1
            if labels in beam:
                beam[labels][0] = np.logaddexp(beam[labels][0], score)
            else:
                beam[labels] = [score, frames, trailing + 1, predicted, memory]
    labels = max(beam, key=lambda key: beam[key][0] / (context_size + len(key)))
    return labels, beam[labels][1], beam[labels][2]
