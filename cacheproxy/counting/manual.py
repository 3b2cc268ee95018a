"""`docs/reference/metrics.md`, written from the tables, so that the page cannot lag behind the program.

Refuses to say anything of a figure that its table does not.
"""

from __future__ import annotations

from cacheproxy.counting.counts import SERIES_MAX
from cacheproxy.counting.families import FAMILIES, PREFIX
from cacheproxy.counting.faults import FAULTS
from cacheproxy.counting.labels import OTHER, STEPS, TIERS
from cacheproxy.counting.outcomes import HITS
from cacheproxy.model import Outcome


def describe() -> str:
    """`docs/reference/metrics.md`: every family, step and fault, from the tables above."""
    lines = [_DESCRIPTION_HEAD]
    lines += ["| metric | kind | labels | meaning | when to worry |", "|---|---|---|---|---|"]
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{PREFIX}{family.name}` | {family.kind} | {labels} | {family.meaning} | {family.worry} |")
    lines += ["", "## Steps", "", "| `step` | from what to what |", "|---|---|"]
    lines += [f"| `{step}` | {sentence} |" for step, sentence in STEPS.items()]
    lines += ["", "## Faults", "", "| `kind` | what happened |", "|---|---|"]
    lines += [f"| `{kind}` | {sentence} |" for kind, sentence in FAULTS.items()]
    return "\n".join(lines) + "\n"


_DESCRIPTION_HEAD = f"""\
# Metrics

The admin port's `/metrics` (Prometheus) and `/stats` (JSON) read the same counts. This page is made from the tables in
`cacheproxy/counting/families.py`; a test holds the two together.

* The number of asks is always the sum over `outcome`: {", ".join(f"`{outcome}`" for outcome in Outcome)}.
* **Hit rate** = hits / (hits + misses), where hits are the asks that cost Ollama nothing:
  {", ".join(f"`{outcome}`" for outcome in HITS)}. A `bypass` is in neither. As PromQL:

      sum(rate({PREFIX}asks_total{{outcome=~"{"|".join(HITS)}"}}[5m]))
        / sum(rate({PREFIX}asks_total{{outcome!="bypass"}}[5m]))

* `tier` says where the answer lay: {", ".join(f"`{tier}`" for tier in TIERS)}.
* `model` is a name that Ollama lists, else `{OTHER}`. A family holds at most {SERIES_MAX} series; past that, new ones
  count under `{OTHER}`.
* Percentiles in `/stats` cover the time since the start and are at most 1.6 % off between 1 µs and 2.3 h. Windows there
  (1, 5 and 15 minutes) are exact to within five seconds; their rates are over the time really covered.
* All workers (`server.workers`) are counted together, at most a tenth of a second late. `process_*` (memory, CPU time,
  open files) are the main one's, and come from the operating system; so are `memory_bytes` and `memory_entries`.
"""
