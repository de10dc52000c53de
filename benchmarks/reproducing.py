"""Write docs/reproducing.md: published figures, ours, commands, and GPU hours by arithmetic.

All of it comes from the suites and from the rate in docs/benchmarks/gpu.json. It takes a second and
runs no network:

    python benchmarks/reproducing.py
"""

import json
from pathlib import Path

from report import write_page

from diffusion_classifier.evaluation.suites import load_suite, suite_names

DOCS = Path(__file__).parents[1] / "docs"
MOST_DRAWS = 200  # of the default race
TEXT = """# Reproducing the paper

Published experiments are *suites*: the data set, its classes in words, a template, and the schedule
of the paper ([Li et al., ICCV 2023](https://arxiv.org/abs/2303.16203)). One command runs one, and
prints our figure with its 95 % interval beside the published one:

```
diffusion-classifier evaluate --suite pets --model stabilityai/stable-diffusion-2-base --published
```

Without `--published` the default race runs. `--limit 200` takes 200 images, as many of each class.
`--memory DIR` keeps what was computed, and the same command resumes. The most it can cost is
printed before it starts.

## What was published, and what was measured here

**Nothing was measured here yet: the project has had no access to the weights and data sets.** The
column is empty until somebody runs a row.

{table}

- Published: accuracy in per cent with Stable Diffusion 2.0 at 512 pixels; for Winoground the text
  score. Each figure was compared with the tables on the
  [authors' page](https://diffusion-classifier.github.io). A dash: the paper has no figure.
- Rows: passes through the network per image, from the published stages.
- Hours: rows times images, at {rate:.0f} rows per second. This is what a network of the size of
  Stable Diffusion 1.5 took on one NVIDIA H200 in bfloat16
  ([how it was measured](benchmarks/gpu.md)). Stable Diffusion 2.0 is assumed to be as fast.
  Encoding of images is left out. The default race is given its most, 200 draws for every class.
  Most races end long before; [how long before](benchmarks/race.md) depends on the model.

Each `command` is `diffusion-classifier evaluate --suite NAME --published --model
stabilityai/stable-diffusion-2-base`.

## What is like the published script, and what is not

The same: timesteps, cuts, loss, image size, short-side resize with centre crop, the mean of the
autoencoder's distribution, and one noise for all classes. The choice of each stage is tested
against plain code of the algorithm.

Other: templates are of our own writing; noise has another seed; alpha and sigma keep their
precision where the script halves it; Winoground's images are resized bicubically. For
other templates and class names give files in the JSON form of CLIP_benchmark, with the name of the
data set as key:

```
diffusion-classifier evaluate --suite pets --templates templates.json --classnames names.json
```

`templates.json` holds `{{"pets": ["a photo of a {{c}}."]}}`, `names.json` the classes in the
order of the labels: `{{"pets": ["Abyssinian", ...]}}`. Several templates cost as many times more.

## Without the Hub

`--data FOLDER` takes a folder with one sub-folder of images per class, or a data set that
`save_to_disk` wrote. ImageNet's folders are named by number, so add `--classnames`. A suite of your
own is a YAML file of the same form as those in `diffusion_classifier/evaluation/suites`:
`--suite mine.yaml`.

From Python:

```python
from diffusion_classifier.evaluation.suites import evaluate_suite

found = evaluate_suite("stabilityai/stable-diffusion-2-base", "pets", published=True)
found.to_html("pets.html")
found.to_json("pets.json")
```

## Send a report back

`--send pets.json` writes the figures, settings, versions and the identity of the network. It holds
no image, no file name and no path. Open an issue on the
[project's page](https://github.com/diffusion-classifier/diffusion_classifier/issues) and attach it;
say which card you used. The row of the table is then filled in, with your interval.
"""


def hours(suite, rows, n, rate):
    """GPU hours of n images; a pair of Winoground has two."""
    return rows * n * (2 if suite.task == "matching" else 1) / rate / 3600


def as_hours(value):
    """Write hours with two digits."""
    return f"{value:.1f}" if value < 10 else f"{round(value, -len(str(int(value))) + 2):,.0f}"


def make_page(rate):
    """Return the text of the page."""
    heads = "suite", "images", "published", "ours", "rows", "published schedule", "race at most"
    lines = [
        "| " + " | ".join(heads[:5]) + " | " + " | ".join(f"hours, {h}" for h in heads[5:]) + " |",
        "|" + "---|" * len(heads),
    ]
    for name in suite_names():
        suite = load_suite(name)
        paper, n = suite.published, suite.published.n_images or suite.n_images
        rows = paper.rows(suite.n_classes)
        most = MOST_DRAWS * suite.n_classes
        cells = [
            f"`{name}`: {suite.title}",
            f"{n:,}",
            "–" if paper.figure is None else f"{paper.figure}",
            "",
            f"{rows:,}",
            as_hours(hours(suite, rows, n, rate)),
            as_hours(hours(suite, most, n, rate)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return TEXT.format(table="\n".join(lines), rate=rate)


def main():
    """Write the page."""
    rate = json.loads((DOCS / "benchmarks" / "gpu.json").read_text())["SD1.5"]["race"]["rate"]
    write_page(DOCS / "reproducing.md", make_page(rate), [])


if __name__ == "__main__":
    main()
