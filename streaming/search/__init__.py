"""Searches: what a bundle's graphs say about each frame -> tokens, chunk by chunk.

    search = GreedySearch(session, blanks, max_symbols)
    state = search.start()
    tokens, [state] = search.advance(encoded, [state])      tokens that no later sound can change
    state.pending                                           the best guess at what follows them

A state is a value: advance() leaves the one it was given as it was, so that a stream can be copied,
paused or sent to another machine between any two chunks.
"""

from streaming.search.greedy import GreedySearch, GreedyState
from streaming.search.token import Search, SearchState, Token, silent_tokens

STATES = (GreedyState,)  # what a paused stream may hold

__all__ = [
    "STATES",
    "GreedySearch",
    "GreedyState",
    "Search",
    "SearchState",
    "Token",
    "silent_tokens",
]
