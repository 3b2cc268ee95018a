"""Time that moves only when told to."""


class FakeClock:
    """Both clocks at once: they start at a given second and stand still."""

    def __init__(self, seconds: float = 1_000_000.0) -> None:
        self.seconds = seconds

    def now(self) -> float:
        """Unix time in seconds."""
        return self.seconds

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds
