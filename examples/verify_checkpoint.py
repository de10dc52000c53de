"""Check a Stable Diffusion checkpoint on this machine, and print a report for bug reports.

The report lists the configuration as it was read, the noise-prediction errors of one image under a
few prompts, the winning prompt and its margin, the speed and the memory:

    python examples/verify_checkpoint.py stable-diffusion-v1-5/stable-diffusion-v1-5
    python examples/verify_checkpoint.py folder --image cat.jpg --labels cat,dog,horse

Without --image, the script draws a red disc on white. Errors are divided by D, the number of
elements of a latent, so predicting zero noise gives an error of about 1. A trained network has
smaller errors at every timestep, the smallest at high timesteps. Means near or above 1 indicate
that the prediction type, scaling factor or schedule was read wrongly.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from importlib.metadata import version

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps

from diffusion_classifier import DiffusionClassifier, __version__
from diffusion_classifier.images import resize_image, to_tensor_batch
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import FixedDraws

N_TIMESTEPS = 10
DRAWN_LABELS = ["a red circle", "a blue square", "a photo of a cat"]  # the true one first
PACKAGES = ("torch", "diffusers", "transformers", "numpy")
FALLBACK_SIZE = (512, 512)  # height and width, if the configuration gives none


class Report:
    """Lines of text, printed at once and stored."""

    def __init__(self):
        self.lines = []

    def line(self, text=""):
        self.lines.append(text)
        print(text, flush=True)

    def fact(self, name, value):
        self.line(f"{name:<23} {value}")

    def title(self, text):
        self.line()
        self.line(text)


def red_disc(height, width):
    """Draw a red disc in the middle of a white image."""
    image = Image.new("RGB", (width, height), "white")
    radius = min(height, width) * 0.3
    box = [width / 2 - radius, height / 2 - radius, width / 2 + radius, height / 2 + radius]
    ImageDraw.Draw(image).ellipse(box, fill=(220, 20, 20))
    return image


def machine_facts(report):
    report.title("machine")
    report.fact("diffusion_classifier", __version__)
    for name in PACKAGES:
        report.fact(name, version(name))
    report.fact("python", platform.python_version())
    report.fact("system", f"{platform.system()} {platform.machine()}")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    report.fact("CUDA device", gpu)
    report.fact("CPU threads", torch.get_num_threads())


def checkpoint_facts(report, backend):
    """Report what was read from the configuration."""
    pipeline, schedule = backend.pipeline, backend.schedule
    log_snr = schedule.log_snr
    report.title("checkpoint")
    report.fact("pipeline class", type(pipeline).__name__)
    report.fact("scheduler class", type(pipeline.scheduler).__name__)
    report.fact("device, dtype", f"{backend.device}, {backend.dtype}")
    report.fact("prediction type", backend.prediction_type)
    report.fact("timesteps", schedule.n_timesteps)
    for name, t in (("first", 0), ("last", -1)):
        report.fact(
            f"{name} timestep",
            f"alpha {schedule.alpha[t]:.6f}, sigma {schedule.sigma[t]:.6f}, "
            f"log-SNR {log_snr[t]:.3f}",
        )
    report.fact("scaling factor", pipeline.vae.config.scaling_factor)
    report.fact("image size", backend.image_size)
    for name in ("unet", "vae", "text_encoder"):
        n = sum(parameter.numel() for parameter in getattr(pipeline, name).parameters())
        report.fact(f"parameters of {name}", f"{n:,}")


def latent_facts(report, backend, image):
    """Report the shape and scale of the image's latent; return its number of elements."""
    latent = backend.encode_images(to_tensor_batch([image]))[0]
    report.fact("latent shape", tuple(latent.shape))
    report.fact("latent of the picture", f"mean {latent.mean():.3f}, std {latent.std():.3f}")
    return latent.numel()


def error_facts(report, errors, timesteps, names):
    """Report errors / D [prompt, timestep, draw] and gaps to the best; return the best's index."""
    report.title("errors / D by timestep, mean over draws")
    per_timestep = errors.mean(2)
    short = [name[:16] for name in names]
    report.line(f"{'t':>6}" + "".join(f"{name:>18}" for name in short))
    for t, row in zip(timesteps, per_timestep.T, strict=True):
        report.line(f"{t:6d}" + "".join(f"{error:18.6f}" for error in row))
    means = per_timestep.mean(1)
    report.line(f"{'mean':>6}" + "".join(f"{mean:18.6f}" for mean in means))

    report.title("gap to the best class / D, and its standard error over draws")
    best = means.argmin()
    for name, of_class in zip(names, errors, strict=True):
        gaps = of_class - errors[best]
        # Timesteps are fixed and only the noise is random: use the variance within each timestep.
        error = math.sqrt((gaps.var(1, ddof=1) / gaps.shape[1]).sum()) / len(gaps)
        report.fact(name, f"{gaps.mean():.3e} +- {error:.1e}")
    return int(best)


def memory_facts(report):
    report.title("memory, peak")
    if torch.cuda.is_available():
        report.fact("CUDA", f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    try:
        import resource
    except ImportError:  # Windows
        report.fact("process", "not known on this system")
        return
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    report.fact("process", f"{peak / 2**20:.0f} MiB")


def verify(report, args):
    labels = args.labels or DRAWN_LABELS
    report.line(f"verify_checkpoint: {args.checkpoint}")
    machine_facts(report)
    clf = DiffusionClassifier(
        args.checkpoint,
        prompts=None if args.labels else "{}",  # the labels of the drawn image are whole prompts
        pruner=NoPruning(max_draws=1),
        device=args.device,
        dtype=args.dtype,
        random_state=0,
    )
    start = time.perf_counter()
    clf.fit(None, labels)
    loading = time.perf_counter() - start
    backend = clf.backend_
    checkpoint_facts(report, backend)
    report.fact("loading", f"{loading:.1f} s")

    height, width = backend.image_size or FALLBACK_SIZE
    if args.image:
        with Image.open(args.image) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        picture = resize_image(picture, (height, width), "crop")
    else:
        picture = red_disc(height, width)
    n_elements = latent_facts(report, backend, picture)

    clf.predict([picture])  # warms up
    n_timesteps = min(N_TIMESTEPS, backend.schedule.n_timesteps)
    timesteps = (np.arange(n_timesteps) + 0.5) * backend.schedule.n_timesteps // n_timesteps
    timesteps = timesteps.astype(int).tolist()
    draws = [t for t in timesteps for _ in range(args.draws)]
    clf.set_params(sampler=FixedDraws(draws), pruner=NoPruning(len(draws)), verbose=1)
    clf.fit(None, labels)  # the backend is loaded once per process
    start = time.perf_counter()
    table = clf.errors([picture])
    seconds = time.perf_counter() - start

    errors = table.errors[0].astype(float).reshape(len(labels), n_timesteps, -1) / n_elements
    names = [str(table.classes[k]) for k in table.class_of]
    best = error_facts(report, errors, timesteps, names)
    report.title("answer")
    report.fact("picture", args.image or "a red disc on white, drawn")
    report.fact("prompts", "; ".join(table.prompts))
    report.fact("expected", labels[0])
    report.fact("answer", f"{names[best]} ({'right' if names[best] == labels[0] else 'WRONG'})")
    report.title("speed")
    evaluations = int(table.n_evaluations.sum())
    report.fact("evaluations", evaluations)
    report.fact("seconds", f"{seconds:.2f}")
    report.fact("evaluations/s", f"{evaluations / seconds:.1f}")
    memory_facts(report)


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="diffusers folder or Hub id")
    parser.add_argument("--image", help="image to classify; needs --labels")
    parser.add_argument(
        "--labels",
        type=lambda text: [label.strip() for label in text.split(",")],
        help="comma-separated, the correct one first",
    )
    parser.add_argument("--draws", type=int, default=4, help="draws per timestep (10 timesteps)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--output", help="text file to write the report to as well")
    args = parser.parse_args(argv)
    if (args.image is None) != (args.labels is None):
        parser.error("give --image and --labels together.")
    if args.draws < 2:
        parser.error("--draws must be at least 2, for a standard error.")
    return args


def main(argv=None):
    args = parse(argv)
    report = Report()
    try:
        verify(report, args)
    except Exception as error:  # the report must include failures
        report.title(f"failed: {type(error).__name__}: {error}")
        raise
    finally:
        if args.output:
            with open(args.output, "w", encoding="utf-8") as file:
                file.write("\n".join(report.lines) + "\n")


if __name__ == "__main__":
    main()
