"""Whether one Ollama is sent asks: it was away, it answers again, and how long it must have rested by then.

Pure bookkeeping, the time comes as an argument. One that comes and goes rests longer each time, so that callers are
not sent to it again and again only to be sent on. Refuses to probe: what reads the list of models tells what it found.
"""

from __future__ import annotations

REST_S = 1.0
"""Least time between a failure and being sent asks again."""
REST_S_MAX = 60.0
STEADY_S = 60.0
"""Up for so long, it has forgotten its failures; one that fails sooner rests twice as long as the last time."""


class Health:
    """One Ollama's. It counts as there until something failed: at start nothing is known.

    `rest_s`: the first rest; 0 for one without others, which is asked whatever its state.
    """

    def __init__(self, rest_s: float = REST_S) -> None:
        self._first_rest_s = rest_s
        self.up = True
        self.reason = ""
        """Why it is down; empty while it is up."""
        self._rest_s = 0.0
        self._failed_s = float("-inf")
        self._up_since_s = float("-inf")

    def __repr__(self) -> str:
        return f"<Health {'up' if self.up else f'down: {self.reason}'}>"

    def failed(self, now_s: float, reason: str) -> bool:
        """It could not be reached, or died with a request; True if that is news."""
        news = self.up
        if news:
            steady = now_s - self._up_since_s >= STEADY_S
            self._rest_s = self._first_rest_s if steady else min(REST_S_MAX, 2 * self._rest_s)
        self.up, self.reason, self._failed_s = False, reason, now_s
        return news

    def answered(self, now_s: float) -> bool:
        """It gave its list of models; True if it is taken back now."""
        if self.up or now_s - self._failed_s < self._rest_s:
            return False
        self.up, self.reason, self._up_since_s = True, "", now_s
        return True
