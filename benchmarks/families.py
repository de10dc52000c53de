"""Every family's errors against its pipeline's own call, on tiny random pipelines.

The pipeline's own ``__call__`` denoises pure noise in one step on the scheduler of training. From
the image that it returns follows its noise prediction, and from that the error of an image and a
prompt. The adapter's error of the same image, noise and prompt must be equal. The table between
the markers of docs/families.md holds the largest relative difference of the four prompts of every
case of tests/support/family_cases.py.

Run from a checkout, in about a minute on one CPU core::

    OMP_NUM_THREADS=1 python -m benchmarks.families
"""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.noise import PREDICTION_TYPES, noise_errors
from tests.support.family_cases import CASES, Case
from tests.support.own_calls import recorded

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
START, END = "<!-- differences -->", "<!-- end of differences -->"


@torch.inference_mode()
def worst_difference(case: Case, backend: DiffusersBackend) -> float:
    """Largest relative difference between our errors and those of the pipeline's own image."""
    condition = backend.encode_classes(case.labels, case.labels)
    (call,) = recorded(case, backend, [999])
    noised = next(iter(call.given.values()))
    z, denoised = (case.unpack(backend.pipeline, part) for part in (noised, call.stepped))
    denoised = denoised / (case.deviation or 1)
    t = torch.full((len(z),), 999)
    alpha, sigma = (level.item() for level in backend.schedule.at(t[:1]))
    eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    x = (z - sigma * eps) / alpha
    output = backend.forward(z, t, condition)
    kind = PREDICTION_TYPES[backend.prediction_type]
    levels = [torch.full((len(z), 1, 1, 1), level) for level in (alpha, sigma)]
    target, scale = kind.target(x, eps, *levels), kind.scale(*levels).flatten()
    ours = noise_errors(output, target, scale, "l2")
    own = ((z - alpha * denoised) / sigma - eps).square().flatten(1).sum(1)
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
