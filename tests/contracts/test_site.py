"""The site that ``make docs`` builds: links, names, the ten questions, and how it looks."""

import html
import importlib.util
import re
import shutil
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
DOCS, SITE = ROOT / "docs", ROOT / "build" / "docs"
# What a newcomer asks, where the answer is, and words that it says.
QUESTIONS = {
    "install": ("install.html", "pip install"),
    "first result": ("notebooks/first-steps.html", "clf.fit(None, digits)"),
    "own folder": ("own-folder.html", "diffusion-classifier evaluate pets"),
    "own model": ("adapters.html", "FunctionBackend takes any callable"),
    "which settings": ("settings.html", "A decision tree"),
    "how long": ("settings.html#how-long", "evaluations per second"),
    "why these probabilities": ("faq.html#why-are-probabilities-what-they-are", "into nats"),
    "why not CLIP": ("faq.html#why-not-clip-and-when", "CLIP answers a picture in one call"),
    "resume": ("long-runs.html#resume", "run the same command again"),
    "cluster": ("scale.html", "Ray Data"),
}


class Page(HTMLParser):
    """Links, what is loaded, ids, and text without its spaces, of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids, self.words = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = "".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("img", "script", "link", "source", "iframe"):
            self.loaded += [(tag, found.get("rel"), found.get("src") or found.get("href") or "")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def pages():
    assert (SITE / "index.html").exists(), "build the site first: make docs"
    return {path: Page(path) for path in sorted(SITE.rglob("*.html")) if "_static" not in str(path)}


def target(path, link):
    """The file and the anchor that a local link leads to; None for other sites."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or link.startswith("data:"):
        return None
    place, anchor = urldefrag(link)
    return (path.parent / unquote(urlsplit(place).path)).resolve() if place else path, anchor


@pytest.mark.site
def test_local_links_lead_to_pages_and_anchors(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + [link for *_, link in page.loaded if link]:
            found = target(path, link)
            if found is None:
                continue
            file, anchor = found
            known = anchor in ("", *pages[file].ids) if file in pages else True
            if not file.exists() or not known:
                broken.append((str(path.relative_to(SITE)), link))
    assert not broken


@pytest.mark.site
def test_pages_load_nothing_from_other_sites(pages):
    other = {
        (str(path.relative_to(SITE)), link)
        for path, page in pages.items()
        for tag, rel, link in page.loaded
        if re.match(r"(https?:)?//", link) and rel != "canonical"
    }
    assert not other


@pytest.mark.site
@pytest.mark.parametrize("question", QUESTIONS)
def test_ten_questions_are_answered_within_two_clicks(pages, question):
    place, words = QUESTIONS[question]
    file, anchor = SITE / urldefrag(place)[0], urldefrag(place)[1]
    reached = {SITE / "index.html"}
    for _ in range(2):
        for path in list(reached):
            links = [target(path, link) for link in pages[path].links]
            reached |= {link[0] for link in links if link and link[0] in pages}
    assert file in reached
    assert not anchor or anchor in pages[file].ids
    assert "".join(words.split()) in pages[file].text


@pytest.mark.site
def test_every_public_name_has_its_page():
    path = DOCS / "_ext" / "api_pages.py"
    spec = importlib.util.spec_from_file_location("api_pages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    inventory = (SITE / "objects.inv").read_bytes().split(b"\n", 4)[4]
    known = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    names = {f"{face}.{name}" for face, names in module.contents().items() for name in names}
    assert len(names) > 100 and "diffusion_classifier.DiffusionClassifier" in names
    assert names - known == set()


@pytest.mark.site
def test_gallery_and_notebooks_ran(pages):
    gallery = list((SITE / "gallery").glob("plot_*.html"))
    assert len(gallery) >= 8
    for path in gallery:
        assert any("sphx_glr" in link for *_, link in pages[path].loaded), path.name
    for name in ("first-steps", "own-ddpm", "cascade"):
        page = (SITE / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        assert page.count("cell_output") >= 4 and "Traceback" not in page, name


WIDTHS = (375, 1440)
MEASURE = """<script>
const waits = [...document.querySelectorAll("iframe")].map(frame => new Promise(done => {
  if (frame.contentDocument?.readyState === "complete"
      && frame.contentDocument.URL !== "about:blank") done();
  else frame.addEventListener("load", done); }));
Promise.all(waits).then(() => {
  document.querySelector("pre").textContent = [...document.querySelectorAll("iframe")]
    .map(frame => { const page = frame.contentDocument, root = page.documentElement;
      const lost = [...page.images].filter(i => i.complete && !i.naturalWidth).length;
      return [frame.dataset.page, frame.width, root.scrollWidth, lost].join(" "); }).join("\\n");
});</script>"""


@pytest.mark.site
def test_pages_fit_phones_and_screens_without_errors(pages, tmp_path):
    """In headless Chromium: as wide as the window, no broken picture, nothing on the console."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "install Chromium: apt-get install chromium"
    shown = [path for path in pages if "generated" not in path.parts]
    assert len(shown) > 50
    errors, wide, n_measured = [], [], 0
    for first in range(0, len(shown), 8):
        frames = "".join(
            f'<iframe width="{width}" height="800" data-page="{path.relative_to(SITE)}" '
            f'src="{html.escape(path.as_uri())}"></iframe>'
            for path in shown[first : first + 8]
            for width in WIDTHS
        )
        around = tmp_path / "around.html"
        around.write_text(f"{frames}<pre></pre>{MEASURE}", encoding="utf-8")
        done = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             "--allow-file-access-from-files", "--virtual-time-budget=20000",
             f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", around.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        errors += [line for line in lines if "[PST]" not in line]  # the theme names its mode
        for line in done.stdout.rpartition("<pre>")[2].partition("</pre>")[0].split("\n"):
            _page, width, scroll, lost = line.rsplit(" ", 3)
            n_measured += 1
            if int(scroll) > int(width) or int(lost):
                wide.append(line)
    assert n_measured == len(WIDTHS) * len(shown)
    assert wide == [] and errors == []


# -------------------------------------------------------- pages, without a build


def blocks(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def test_the_method_by_hand_equals_the_classifier():
    names: dict = {}
    [block] = blocks("how-it-works.md")
    exec(block, names)
    assert names["by_hand"].numpy() == pytest.approx(
        names["clf"].predict_proba(names["image"])[0], abs=1e-5
    )


def test_formulas_name_code_that_exists():
    text = (DOCS / "how-it-works.md").read_text(encoding="utf-8")
    named = re.findall(r"\[`([a-z_.]+)\.(\w+)`\]\(\.\./diffusion_classifier/([\w/]+\.py)\)", text)
    assert len(named) >= 12
    for module, name, file in named:
        found = importlib.import_module(f"diffusion_classifier.{module}")
        assert hasattr(found, name) and found.__file__.endswith(file), name


def test_figures_of_the_settings_are_those_of_the_pages_they_link():
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\|.*\| ([\d,.]+(?: \([\d,]+ to [\d,]+\))?) \| \[\w+\]\((\S+)\) \|$", text, re.M
    )
    assert len(rows) >= 20
    for figure, page in rows:
        assert figure in (DOCS / page).read_text(encoding="utf-8"), (figure, page)


def test_learned_figures_are_those_of_the_race():
    text = (DOCS / "labels.md").read_text(encoding="utf-8")
    race = (DOCS / "benchmarks" / "race.md").read_text(encoding="utf-8")
    figures = re.findall(r"\d+ \(\d+ to \d+\)|[\d.]+% \([\d.]+% to [\d.]+%\)", text)
    assert len(figures) == 8
    assert [figure for figure in figures if figure not in race] == []
