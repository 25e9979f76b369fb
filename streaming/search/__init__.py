"""Searches: what a bundle's graphs say about each frame -> tokens, chunk by chunk.

    search = make_search(session, symbols, speller, DecodingSettings("modified_beam_search"))
    state = search.start()
    tokens, [state] = search.advance(encoded, [state])      tokens that no later sound can change
    state.pending                                           the best guess at what follows them

A state is a value: advance() leaves the one it was given as it was, so that a stream can be copied,
paused or sent to another machine between any two chunks. A state is made of GreedyState, or
BeamState and its Hypothesis; FusionState; Token; arrays, tuples and numbers. Hotwords and language
models belong to the search: a state goes on in one of the same settings.
"""

from streaming.search.beam import BeamSearch, BeamState, Hypothesis
from streaming.search.fusion import Fusion, FusionState
from streaming.search.greedy import GreedySearch, GreedyState
from streaming.search.hotwords import Phrases
from streaming.search.settings import SEARCHES, DecodingSettings, make_search
from streaming.search.spelling import Speller, spell_phrases, split_phrases
from streaming.search.token import Search, SearchState, Token, silent_tokens

STATES = (GreedyState, BeamState, Hypothesis, FusionState)  # what a paused stream may hold

__all__ = [
    "SEARCHES",
    "STATES",
    "BeamSearch",
    "BeamState",
    "DecodingSettings",
    "Fusion",
    "FusionState",
    "GreedySearch",
    "GreedyState",
    "Hypothesis",
    "Phrases",
    "Search",
    "SearchState",
    "Speller",
    "Token",
    "make_search",
    "silent_tokens",
    "spell_phrases",
    "split_phrases",
]
