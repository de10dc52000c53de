"""The report is one file: everything that the evaluation knows, and nothing that runs."""

import base64
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.evaluation import Evaluation, evaluate

MEANS = np.array([[-1.0, 0], [1.0, 0], [0, 1.0]])
NAMES = ["<script>alert(1)</script>", "b&\"'", "c"]
FILE = '"><script>alert(2)</script><img src=x onerror=alert(3)>.png'
RNG = np.random.default_rng(0)
Y = RNG.integers(3, size=12)
X = MEANS[Y] + RNG.normal(size=(12, 2))
IMAGES = [Image.new("RGB", (20 + 50 * i, 30), (20 * i, 0, 0)) for i in range(12)]


class Reader(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)
        self.text = "\n".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def sources(self):
        return [attrs["src"] for tag, attrs in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def found():
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    clf = DiffusionClassifier(backend, weighting="likelihood", random_state=0).fit(MEANS, NAMES)
    made = evaluate(clf, X, np.array(NAMES)[Y], names=[f"{i} {FILE}" for i in range(12)], top=2)
    assert 1 < len(made.wrong) < 12
    return made


@pytest.fixture(scope="module")
def report(found):
    return found.to_html(images=IMAGES)


def test_the_report_shows_what_the_evaluation_knows(found, report):
    page = Reader(report)
    for name, value in found.lines():
        assert name in page.words and value in page.words
    for row in found.per_class:
        low, high = (100 * end for end in row["recall"][1:])
        assert row["label"] in page.words and f"({low:.0f}–{high:.0f})" in page.text
    for place in found.wrong:
        record = found.records[place]
        assert f"{100 * record['probability']:.1f} %), is {record['true']}" in page.text
        assert record["image"] in page.words
    assert "likelihood" in page.words and str(found.settings["seed"]) in page.words
    kinds = [re.match(r"data:image/([a-z+]+);base64,", source)[1] for source in page.sources()]
    # confusion, reliability, and a photograph and a race for each wrong answer
    assert kinds.count("svg+xml") == 2 + len(found.wrong)
    assert kinds.count("png") + kinds.count("jpeg") == len(found.wrong)


def test_labels_and_names_are_text(report):
    page = Reader(report)
    allowed = {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "section", "div",
        "span", "article", "table", "thead", "tbody", "tr", "th", "td", "img",
    }  # fmt: skip
    assert {tag for tag, _ in page.tags} <= allowed
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert attributes <= {
        "lang", "charset", "name", "content", "http-equiv", "class", "scope", "src", "alt",
    }  # fmt: skip
    assert NAMES[0] in page.words and FILE in page.text
    assert all(source.startswith("data:image/") for source in page.sources())
    assert not re.search(r"https?://", re.sub(r"base64,[\w+/=]+", "", report))
    for source in page.sources():
        if "svg" in source:
            drawing = base64.b64decode(source.partition(",")[2]).decode()
            assert "<script" not in drawing


def test_a_photograph_is_the_image_that_was_answered(found, report):
    place = found.wrong[0]
    source = next(s for s in Reader(report).sources() if not s.startswith("data:image/svg"))
    content = base64.b64decode(source.partition(",")[2])
    width, height = IMAGES[place].size
    with Image.open(io.BytesIO(content)) as image:
        scale = min(1, 480 / width)
        assert image.size == (round(width * scale), round(height * scale))
        assert abs(image.getpixel((0, 0))[0] - 20 * place) < 6


def test_the_same_evaluation_gives_the_same_file_and_leaves_matplotlib_alone(
    found, report, tmp_path
):
    before, colour = pyplot.get_fignums(), pyplot.rcParams["figure.facecolor"]
    with pyplot.style.context("dark_background"):
        path = tmp_path / "report.html"
        assert found.to_html(path, IMAGES) == report
        assert pyplot.rcParams["figure.facecolor"] == "black"
    assert path.read_text(encoding="utf-8") == report
    assert pyplot.get_fignums() == before and pyplot.rcParams["figure.facecolor"] == colour


def test_without_matplotlib_there_are_tables_only(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Reader(found.to_html(images=IMAGES))
    assert "matplotlib is not installed" in page.text
    assert len(page.sources()) == len(found.wrong)  # photographs
    assert all(value in page.words for _, value in found.lines())


def test_an_evaluation_read_from_json_has_a_report_without_races(found):
    again = Evaluation.from_dict(found.to_dict())
    page = Reader(again.to_html())
    assert len(page.sources()) == 2
    assert f"{len(found.wrong)} of 12 answers are wrong" in page.text


def test_many_classes_and_images_have_a_short_report(found):
    classes = [f"class {i}" for i in range(1000)]
    base = {**found.records[0], "probability": 0.9, "labels": classes[:2]}
    records = [
        {**base, "image": i, "true": classes[i], "label": classes[i // 2 * 2], "rank": 1 + i % 2}
        for i in range(1000)
    ]
    skipped = [
        {**dict.fromkeys(base), "image": 1000 + i, "true": classes[0], "error": f"damaged {i}"}
        for i in range(60)
    ]
    made = replace(found, records=records + skipped, classes=classes, races={})
    page = made.to_html()
    assert len(page) < 300_000
    text = Reader(page).text
    assert "The 50 classes of 1,000 with the lowest recall." in text
    assert "500 of 1,000 answers are wrong; 24 are shown" in text
    assert "The first 50 of 60." in text and "damaged 49" in text and "damaged 50" not in text


def test_images_of_another_length_are_refused(found):
    with pytest.raises(InputValueError, match="images holds 3 images, but 12 were evaluated"):
        found.to_html(images=IMAGES[:3])
