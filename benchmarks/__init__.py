"""What a hit, a miss and a start cost, beside what else could be used: `python -m benchmarks`. See README.md here."""
