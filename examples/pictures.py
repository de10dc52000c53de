"""Run the lines of docs/pictures.md, or of another page, which write its pictures.

It takes about three minutes on two CPU cores, most of them for 60,000 evaluations of the embedded
model:

    python examples/pictures.py
    python examples/pictures.py --page docs/why-wrong.md    # half a minute
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

PAGE = Path(__file__).parents[1] / "docs" / "pictures.md"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PAGE.with_suffix(""), help="folder")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--n-images", type=int, default=100)
    parser.add_argument("--draws", type=int, default=60)
    args = parser.parse_args(argv)
    text = args.page.read_text(encoding="utf-8")
    text = text.replace("n_samples=100", f"n_samples={args.n_images}")
    text = text.replace("NoPruning(60)", f"NoPruning({args.draws})")
    args.output.mkdir(parents=True, exist_ok=True)
    os.chdir(args.output)
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        exec(block, names)
    return names


if __name__ == "__main__":
    main()
