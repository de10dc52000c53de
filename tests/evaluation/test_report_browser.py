"""The report in headless Chromium: no errors, nothing runs, and it fits a narrow screen."""

import html
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.evaluation import evaluate

pytestmark = pytest.mark.browser
MEANS = np.array([[-1.0, 0], [1.0, 0], [0, 1.0]])
NAMES = ["<script>alert(1)</script>", "a" * 90, "a class with a name of several words"]


@pytest.fixture(scope="module")
def report():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=12)
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    clf = DiffusionClassifier(backend, random_state=0).fit(MEANS, NAMES)
    names = [f"folder/{'x' * 80}/<script>console.error({i})</script>.png" for i in range(12)]
    X = MEANS[y] + rng.normal(size=(12, 2))
    found = evaluate(clf, X, np.array(NAMES)[y], names=names)
    assert found.wrong
    return found.to_html(images=[Image.new("RGB", (900, 300), "teal")] * 12)


def opened(path, *options):
    """What Chromium makes of a page, and the lines of its console."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "install Chromium: apt-get install chromium"
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={path.parent / 'profile'}", *options, path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_nothing_is_logged_and_nothing_runs(report, tmp_path):
    noisy = tmp_path / "noisy.html"
    noisy.write_text("<script>console.error('seen')</script>", encoding="utf-8")
    assert "seen" in opened(noisy, "--dump-dom")[1][0]  # errors would be found
    path = tmp_path / "report.html"
    path.write_text(report, encoding="utf-8")
    assert opened(path, "--dump-dom")[1] == []


@pytest.mark.parametrize("width", [375, 1440])
def test_the_page_is_as_wide_as_the_screen(report, width, tmp_path):
    around = tmp_path / "around.html"
    around.write_text(
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(report)}"></iframe><pre></pre>'
        """<script>addEventListener("load", () => {
        const page = document.querySelector("iframe").contentDocument;
        const broken = [...page.images].filter(image => !image.naturalWidth).length;
        document.querySelector("pre").textContent =
            [page.documentElement.scrollWidth, broken, page.images.length].join(" ");
        })</script>""",
        encoding="utf-8",
    )
    page, errors = opened(around, "--dump-dom", "--window-size=1500,1000")
    found = page.rpartition("<pre>")[2].partition("</pre>")[0].split()
    wide, broken, images = map(int, found)
    assert wide <= width and broken == 0 and images > 3 and errors == []


def test_the_page_prints(report, tmp_path):
    path, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    path.write_text(report, encoding="utf-8")
    opened(path, f"--print-to-pdf={printed}")
    content = printed.read_bytes()
    assert content.startswith(b"%PDF") and len(content) > 20_000
