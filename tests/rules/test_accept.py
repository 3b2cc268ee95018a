"""A near entry is served when it is near enough and no enabled guard objects."""

import math

import pytest

from cacheproxy.model import Verdict
from cacheproxy.rules.accept import accept
from cacheproxy.rules.guards import GUARDS


@pytest.mark.parametrize(
    ("stored", "similarity", "guards", "verdict"),
    [
        ("How can I reset my password?", 0.95, GUARDS, Verdict(serve=True)),
        ("How can I reset my password?", 0.92, GUARDS, Verdict(serve=True)),
        ("How can I reset my password?", 0.9199, GUARDS, Verdict(serve=False, reason="below_threshold")),
        ("How can I reset my password?", math.nan, GUARDS, Verdict(serve=False, reason="below_threshold")),
        ("How do I reset my 2 passwords?", 0.99, GUARDS, Verdict(serve=False, reason="guard:numbers")),
        ("How do I not reset my password?", 0.99, GUARDS, Verdict(serve=False, reason="guard:negation")),
        ("How do I reset my 2 passwords?", 0.99, ("negation",), Verdict(serve=True)),
        ("How do I reset my 2 passwords?", 0.99, (), Verdict(serve=True)),
    ],
)
def test_a_match_is_judged_by_similarity_first_and_then_by_the_enabled_guards(stored, similarity, guards, verdict):
    """The threshold itself serves; what is no number never does; a guard that is off says nothing."""
    assert accept("How do I reset my password?", stored, similarity, threshold=0.92, guards=guards) == verdict
