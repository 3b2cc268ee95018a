"""Whether the answer to a near question may be served: near enough, and no guard objects.

Refuses to look at anything but the two questions and their similarity: scope, partition, age and check are settled
before an entry comes this far.
"""

from __future__ import annotations

from collections.abc import Collection

from cacheproxy.model import Verdict
from cacheproxy.rules.guards import object_to

BELOW_THRESHOLD = "below_threshold"


def accept(question: str, answered: str, similarity: float, *, threshold: float, guards: Collection[str]) -> Verdict:
    """The verdict on giving `question` the answer to the question `answered`, which is as similar as that.

    `threshold`: least similarity, 0..1, that serves (a similarity that is not a number never does). `guards`: names of
    the guards to ask. The reason of a refusal is `below_threshold` or `guard:` with the name of the first that objects.
    A guard that raises is a defect: the caller counts it and serves nothing.
    """
    if not similarity >= threshold:
        return Verdict(serve=False, reason=BELOW_THRESHOLD)
    objection = object_to(question, answered, guards)
    return Verdict(serve=False, reason=f"guard:{objection}") if objection else Verdict(serve=True)
