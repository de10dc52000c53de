"""Every family's errors against its pipeline's own call, on tiny random pipelines.

The pipeline's own ``__call__`` denoises pure noise in one step on the scheduler of training. From
the image that it returns follows its noise prediction, and from that the error of an image and a
prompt. The adapter's error of the same image, noise and prompt must be equal. The table between
the markers of docs/families.md holds the largest relative difference of the four prompts of every
case of tests/support/family_cases.py.

Run from a checkout, in about 30 seconds on one CPU core::

    OMP_NUM_THREADS=1 python -m benchmarks.families
"""

from __future__ import annotations

from pathlib import Path

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.testing.families import both_errors
from tests.support.family_cases import CASES, Case
from tests.support.own_calls import subject_of

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
START, END = "<!-- differences -->", "<!-- end of differences -->"


def worst_difference(case: Case, backend: DiffusersBackend) -> float:
    """Largest relative difference between our errors and those of the pipeline's own image."""
    ours, own = both_errors(subject_of(case, backend))
    return ((ours - own) / own).abs().max().item()


def main() -> None:
    rows = ["| case | pipeline | largest relative difference |", "|---|---|---|"]
    for name, case in CASES.items():
        backend = DiffusersBackend(case.build())
        difference = worst_difference(case, backend)
        rows.append(f"| {name} | `{type(backend.pipeline).__name__}` | {difference:.0e} |")
        print(rows[-1], flush=True)
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    after = rest.split(END)[1]
    table = "\n".join(rows)
    PAGE.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
