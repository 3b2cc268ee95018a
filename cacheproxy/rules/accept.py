"""Whether a near entry may be served: near enough, and no guard objects.

Refuses to look at anything but the two questions and their similarity: scope, partition, age and check are settled
before an entry comes this far.
"""

from __future__ import annotations

from collections.abc import Collection

from cacheproxy.model import Match, Verdict
from cacheproxy.rules.guards import object_to

BELOW_THRESHOLD = "below_threshold"


def accept(question: str, match: Match, *, threshold: float, guards: Collection[str]) -> Verdict:
    """The verdict on one match for `question`.

    `threshold`: least similarity, 0..1, that serves (a similarity that is not a number never does). `guards`: names of
    the guards to ask. The reason of a refusal is `below_threshold` or `guard:` with the name of the first that objects.
    A guard that raises is a defect: the caller counts it and serves nothing.
    """
    if not match.similarity >= threshold:
        return Verdict(serve=False, reason=BELOW_THRESHOLD)
    objection = object_to(question, match.entry.question, guards)
    return Verdict(serve=False, reason=f"guard:{objection}") if objection else Verdict(serve=True)
