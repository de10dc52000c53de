"""The page of benchmarks/gpu.py."""

from __future__ import annotations

import diffusers
import torch
from report import as_table


def share(result, rate):
    """Return a rate as a share of the matrix product's."""
    return rate * result["flops"] / 1e12 / result["product"]


def as_rows(found, race, bare):
    """Yield the figures of each model, from the race and the bare rate that two functions pick."""
    for name, result in found.items():
        if (one := race(result)) is None:
            continue
        yield (
            name,
            {
                "images": one["images"],
                "rows": one["rows"],
                "rate": one["rate"],
                "tflops": one["rate"] * result["flops"] / 1e12,
                "share": share(result, one["rate"]),
                "bare": bare(result) / one["rate"],
                "in-net": one["in-net"],
                "occupancy": one["occupancy"],
                "peak": one["peak"],
            },
        )


COLUMNS = {
    "images": ("images", "{:.0f}"),
    "rows": ("rows", "{:,.0f}"),
    "rows per second": ("rate", "{:.1f}"),
    "TFLOP/s": ("tflops", "{:.0f}"),
    "of the matrix product": ("share", "{:.0%}"),
    "bare / race": ("bare", "{:.3f}"),
    "all / in the network": ("in-net", "{:.3f}"),
    "batches filled": ("occupancy", "{:.0%}"),
    "peak, GB": ("peak", "{:.1f}"),
}


def as_page(device, found, loop_batch):
    """Write the page."""
    plain = dict(as_rows(found, lambda r: r["race"], lambda r: r["bare"]))
    lines = [
        "# Races on a GPU",
        "",
        f"{device}, torch {torch.__version__}, diffusers {diffusers.__version__}; denoisers at "
        "their published sizes and resolutions with random weights, bfloat16, ten classes. One "
        "run; every rate is the median of five calls, races ran once after a warm-up. Operations "
        "are counted by torch (a multiplication and an addition are two). *Of the matrix product*: "
        "share of what a product of two 8,192 x 8,192 bfloat16 matrices reached in the same run. "
        "*Bare*: full batches of the denoiser alone. Random networks tell no classes apart, so "
        "races end at their budget.",
        "",
        "## As it is",
        "",
        *as_table(["model"], COLUMNS, plain),
        "",
        "## Compiled",
        "",
    ]
    compiled = {name: result for name, result in found.items() if "compiled" in result}
    rows = dict(as_rows(compiled, lambda r: r["compiled"]["race"], lambda r: r["compiled"]["bare"]))
    lines += as_table(["model"], COLUMNS, rows)
    lines += ["", "Compilation took:", ""]
    lines += [
        f"- {name}, {result['compiled']['mode']}: {result['compiled']['seconds']:.0f} s, bare "
        f"{result['compiled']['bare'] / result['bare']:.2f} times the rate"
        for name, result in compiled.items()
    ]
    lines += ["", "## Each switch alone", "", "Rows per second of the bare denoiser.", ""]
    for name, result in found.items():
        if result["switches"]:
            each = ", ".join(f"{key} {rate:.1f}" for key, rate in result["switches"].items())
            lines.append(f"- {name}, {result['full']} rows: {each}")
    lines += ["", "## Half precision", ""]
    for name, result in found.items():
        if "gap_error" in result:
            each = ", ".join(f"{key} {error:.1%}" for key, error in result["gap_error"].items())
            lines.append(
                f"- {name}: differences between classes are off by {each} (norm of the error over "
                "that of the differences, ten random prompts, t = 500), against float32"
            )
    lines += ["", "## A plain research loop", ""]
    for name, result in found.items():
        if "loop" in result:
            lines.append(
                f"- {name}: {result['loop']:.1f} rows per second in batches of {loop_batch}, one "
                f"image after the other, as published scripts do; a race evaluates "
                f"{result['race']['rate'] / result['loop']:.2f} times as many"
            )
    lines += ["", "## Noise", ""]
    for name, result in found.items():
        lines.append(
            f"- {name}: the host draws a draw's noise, once for all images and classes, in "
            f"{1e3 * result['noise']:.2f} ms; a row takes {1e3 / result['bare']:.1f} ms"
        )
    return "\n".join(lines) + "\n"
