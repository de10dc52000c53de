"""The model card: what it says, and that text of users is never markup."""

from dataclasses import replace

import pytest
import yaml
from markdown_it import MarkdownIt

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import InputTypeError, InputValueError
from diffusion_classifier.evaluation import evaluate
from diffusion_classifier.hub import model_card
from diffusion_classifier.hub.card import code
from diffusion_classifier.pruners import NoPruning, RacingPruner

REPO = "owner/digits"
HOSTILE = [
    "a | b | c",
    "two\nlines\n\n# Title\n- item",
    "\r\n---\nlicense: mit\n---",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "`code` ``more`` ```",
    "``` \n</code></pre>",
    "[link](javascript:alert(1)) ![x](http://x.org/y.png) http://x.org",
    "{{ 7 * 7 }} {% for x in y %}",
    "**bold** _it_ ~~gone~~ \\",
    "\u202eright to left\u2028\x1b[31m",
    " blanks ",
    "`",
]


def rendered(text):
    """Tokens of a card's text, as a reader of Markdown with tables sees it, HTML included."""
    return [
        inner
        for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
        for inner in [token, *(token.children or [])]
    ]


@pytest.fixture(scope="module")
def clf():
    clf = DiffusionClassifier(
        prompts="a {} digit", pruner=RacingPruner(alpha=0.01, max_draws=24), random_state=0
    )
    return clf.fit(None, ["red", "blue", "green"])


@pytest.fixture(scope="module")
def evaluation(clf):
    scenes = load_scenes("test")
    images = [
        (image, color)
        for image, color in zip(scenes.images, scenes.color, strict=True)
        if color in clf.classes_
    ][:6]
    return evaluate(clf, [image for image, _ in images], [color for _, color in images], top=2)


def test_what_the_card_says(clf):
    card = model_card(clf, REPO)
    head = yaml.safe_load(str(card).split("---")[1])
    assert head["library_name"] == "diffusion_classifier"
    assert head["pipeline_tag"] == "zero-shot-image-classification"
    assert "zero-shot-image-classification" in head["tags"]
    assert "base_model" not in head and "license" not in head  # nobody said so
    codes = [token.content for token in rendered(card.text) if token.type == "code_inline"]
    for text in (
        "red",
        "a red digit",
        "RacingPruner(alpha=0.01, max_draws=24)",
        str(clf.seed_),
        "embedded",
    ):
        assert text in codes
    (fence,) = [token for token in rendered(card.text) if token.type == "fence"]
    assert fence.content.splitlines() == [
        "from diffusion_classifier.hub import from_hub",
        'clf = from_hub("owner/digits")',
        'clf.predict(["photo.png"])',
    ]
    assert "in at most 1 % of races" in card.text
    assert "CC BY 4.0" in card.text
    assert "without an evaluation" in card.text


def test_no_promise_without_pruning():
    clf = DiffusionClassifier(pruner=NoPruning(8), random_state=0).fit(None, ["one", "two"])
    text = model_card(clf, REPO).text
    assert "no class is dropped early" in text and "Promise" not in text


def test_text_of_users_is_never_markup():
    prompts = {label: [label, f"a {label}"] for label in HOSTILE}
    with pytest.warns(UserWarning):
        clf = DiffusionClassifier(prompts=prompts, random_state=0).fit(None, HOSTILE)
    plain = DiffusionClassifier(random_state=0).fit(None, ["one", "two"])
    card = model_card(clf, REPO)
    assert yaml.safe_load(str(card).split("---")[1]) == dict(model_card(plain, REPO).data.to_dict())
    tokens, expected = rendered(card.text), rendered(model_card(plain, REPO).text)
    for kind in ("heading_open", "link_open", "image", "html_block", "html_inline", "strong_open",
                 "em_open", "table_open", "hr", "fence"):  # fmt: skip
        counts = [[token.type for token in some].count(kind) for some in (tokens, expected)]
        assert counts[0] == counts[1], kind
    codes = {token.content for token in tokens if token.type == "code_inline"}
    assert "<script>alert(1)</script><img src=x onerror=alert(1)>" in codes
    assert "{{ 7 * 7 }} {% for x in y %}" in codes
    assert "two\\nlines\\n\\n# Title\\n- item" in codes
    assert "\\u202eright to left\\u2028\\x1b[31m" in codes


@pytest.mark.parametrize("text", [*HOSTILE, "x" * 500, "`" * 300])
def test_a_code_span_is_one_piece(text):
    (paragraph,) = [t for t in MarkdownIt().parse(f"- {code(text)}: x") if t.type == "inline"]
    span, rest = paragraph.children
    assert span.type == "code_inline" and rest.content == ": x"
    assert len(code(text).splitlines()) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_many_classes_are_cut():
    clf = DiffusionClassifier(random_state=0, verbose=0)
    text = model_card(clf.fit(None, list(range(150))), REPO).text
    assert "And 50 more, in `classifier.json`." in text
    assert "- `99`: `a 99`" in text and "- `100`" not in text


def test_figures_come_with_intervals(clf, evaluation):
    text = model_card(clf, REPO, evaluation=evaluation).text
    cells = [token.content for token in rendered(text) if token.type == "inline"]
    start = cells.index("accuracy")
    value, low, high = evaluation.accuracy
    assert cells[start + 1 : start + 3] == [f"{value:.4g}", f"{low:.4g} to {high:.4g}"]
    assert "top-2 accuracy" in cells
    assert "6 images, 0 more were skipped" in text


def test_figures_in_the_metadata_need_the_name_of_the_images(clf, evaluation):
    assert "model-index" not in model_card(clf, REPO, evaluation=evaluation).data.to_dict()
    head = model_card(clf, REPO, evaluation=evaluation, dataset="scenes: |x").data.to_dict()
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "scenes: |x"
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics["accuracy"] == evaluation.accuracy.value
    assert metrics["log_loss"] == evaluation.log_loss.value
    with pytest.raises(InputValueError, match="name of the images of evaluation="):
        model_card(clf, REPO, dataset="scenes")


def test_figures_of_another_classifier_are_refused(clf, evaluation):
    with pytest.raises(InputTypeError, match=r"evaluation=0\.9 must be an Evaluation"):
        model_card(clf, REPO, evaluation=0.9)
    for changed, message in (
        (replace(evaluation, classes=["a", "b"]), r"has classes=\['a', 'b'\]"),
        (replace(evaluation, settings={**evaluation.settings, "seed": 1}), r"settings\['seed'\]=1"),
        (replace(evaluation, network={**evaluation.network, "name": "x"}), r"network\['name'\]"),
    ):
        with pytest.raises(InputValueError, match=message):
            model_card(clf, REPO, evaluation=changed)
