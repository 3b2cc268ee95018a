"""`python -m cacheproxy`, and what the installed command `cacheproxy` calls."""

from __future__ import annotations

from cacheproxy.cli import commands


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    commands(prog_name="cacheproxy")


if __name__ == "__main__":
    main()
