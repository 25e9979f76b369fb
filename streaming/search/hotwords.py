"""Hotwords: a trie of phrases that raises the score of labels on the way to one of them.

Every label along a phrase earns its score; a match that breaks off gives back what it earned, but
for the part that begins another match (Aho-Corasick's fail links); a whole phrase keeps it, and
the search starts again at the root. As the ContextGraph of icefall and sherpa-onnx in
non-strict mode, except that a phrase's higher score also counts for phrases that were given before
it and begin alike.
"""

from collections.abc import Iterator

import numpy as np

from streaming.features import FloatArray

# Of each phrase its token ids and what each of them earns, in nats.
Phrases = tuple[tuple[tuple[int, ...], float], ...]

ROOT = 0


class HotwordTrie:
    """Nodes are numbers, parents before children; without phrases only the root."""

    def __init__(self, phrases: Phrases) -> None:
        self._children: list[dict[int, int]] = [{}]
        self._parents = [ROOT]
        self._token_scores = [0.0]
        self._is_end = [False]
        for tokens, score in phrases:
            self._insert(tokens, score)
        self._node_scores = self._add_up()
        self._fails, self._outputs = self._link()

    def __len__(self) -> int:
        return len(self._children)

    def step(self, node: int, token: int) -> tuple[int, float]:
        """Where a label leads, and what it earns there (less than 0: gives back)."""
        after = self._children[node].get(token)
        if after is not None:
            earned = self._token_scores[after]
        else:
            after = next((n[token] for n in self._climb(node) if token in n), ROOT)
            earned = self._node_scores[after] - self._node_scores[node]
        whole = self._outputs[after]
        if whole != ROOT:
            return ROOT, earned + self._node_scores[whole] - self._node_scores[after]
        return after, earned

    def gains(self, node: int, vocab_size: int) -> FloatArray:
        """(V,): what each label that begins or continues a match earns, and 0 for the others.

        For a search of one path, whose labels need not give anything back: there is no other path
        that they would be compared with.
        """
        gains = np.zeros(vocab_size, dtype=np.float32)
        for children in reversed([self._children[node], *self._climb(node)]):
            for token, child in children.items():
                gains[token] = self._token_scores[child]
        return gains

    def _climb(self, node: int) -> Iterator[dict[int, int]]:
        """The children of the shorter matches that end where this one does, longest first."""
        while node != ROOT:
            node = self._fails[node]
            yield self._children[node]

    def _insert(self, tokens: tuple[int, ...], score: float) -> None:
        node = ROOT
        for token in tokens:
            if token not in self._children[node]:
                self._children[node][token] = len(self._children)
                self._children.append({})
                self._parents.append(node)
                self._token_scores.append(score)
                self._is_end.append(False)
            node = self._children[node][token]
            self._token_scores[node] = max(score, self._token_scores[node])
        self._is_end[node] = node != ROOT

    def _add_up(self) -> list[float]:
        """What the way to each node earns."""
        totals = [0.0]
        for parent, score in list(zip(self._parents, self._token_scores, strict=True))[1:]:
            totals.append(totals[parent] + score)
        return totals

    def _link(self) -> tuple[list[int], list[int]]:
        """Of each node the longest other match that ends there, and the longest whole phrase."""
        self._fails = [ROOT] * len(self)
        outputs = [ROOT] * len(self)
        level = list(self._children[ROOT].values())
        outputs_of = dict.fromkeys(level, ROOT)
        while level:
            for node in level:
                outputs[node] = node if self._is_end[node] else outputs_of[node]
            below = [(n, *arc) for n in level for arc in self._children[n].items()]
            for node, token, child in below:
                climbed = (n[token] for n in self._climb(node) if token in n)
                self._fails[child] = next(climbed, ROOT)
                outputs_of[child] = outputs[self._fails[child]]
            level = [child for _, _, child in below]
        return self._fails, outputs
