"""The demo in headless Chromium: what a visitor does, at two widths and with keys alone."""

import time

import pytest
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.demo import serve
from tests.support.chromium import Chromium

pytestmark = pytest.mark.browser
LABELS = "document.querySelector('#dc-labels textarea, #dc-labels input')"
FOCUS = "(e => e.id || e.name || e.innerText.trim() || e.tagName)(document.activeElement)"
MAP = "!!document.querySelector('.dc-map img')?.naturalWidth"
RACE = "document.querySelector('#dc-race').innerText"


@pytest.fixture(scope="module")
def url():
    page = serve(DiffusionClassifier(random_state=0), port=0, block=False)
    yield page.local_url
    page.close()


@pytest.fixture
def browser(tmp_path):
    browser = Chromium(tmp_path)
    yield browser
    browser.close()


def opened(browser, url, width, dark=False):
    browser.open(url, width, dark)
    browser.wait(f"!!{LABELS} && !!document.querySelector('#dc-pad canvas')")


def nothing_else(browser, url):
    """No errors, and no request to another host."""
    assert browser.errors == []
    away = [to for to in browser.requested if not to.startswith((url, "data:", "blob:"))]
    assert away == []


def draw_a_seven(browser):
    x, y = browser.run(
        "(({left, top}) => [left, top])"
        "(document.querySelector('#dc-pad canvas').getBoundingClientRect())"
    )
    across = [(x + 70 + 12 * i, y + 60) for i in range(10)]
    browser.stroke(*across, *[(x + 178 - 7 * i, y + 60 + 15 * i) for i in range(10)])


@pytest.mark.parametrize(("width", "dark"), [(375, False), (375, True), (1440, False)])
def test_a_drawing_races_at_any_width(browser, url, width, dark):
    opened(browser, url, width, dark)
    n_tries = 0
    while not browser.run(MAP):  # a page that is still loading misses the first strokes
        time.sleep(3 * min(n_tries, 1))
        n_tries += 1
        assert n_tries < 12
        draw_a_seven(browser)
        browser.run("document.querySelector('#dc-run').click()")
        browser.wait(f"{MAP} || /draw a picture first/.test({RACE})")
    assert browser.run("document.querySelector('.dc-summary b').innerText") == "red seven"
    assert browser.run("document.documentElement.scrollWidth") <= width
    nothing_else(browser, url)


def test_an_upload_and_a_bad_file(browser, url, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(load_scenes("test", n_samples=8).images[2]).save(good)
    bad.write_bytes(b"no picture")
    for file, labels, said in (
        (good, "red seven, blue seven, blue three", "blue seven, "),
        (good, "blue seven, <img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        (bad, "red seven, blue seven", "The picture cannot be read as an image"),
    ):
        opened(browser, url, 1440)
        browser.run("[...document.querySelectorAll('[role=tab]')].at(-1).click()")
        browser.wait("!!document.querySelector('#dc-upload input[type=file]')")
        browser.choose("#dc-upload input[type=file]", file)
        browser.wait("!!document.querySelector('#dc-upload img')")
        browser.run(f"{LABELS}.focus()")
        browser.type(labels)
        browser.press("Enter")
        browser.wait(
            "!!document.querySelector('.dc-map img') || !!document.querySelector('.dc-error')"
        )
        assert said in browser.run(RACE)
        assert not browser.run("document.querySelectorAll('#dc-race img').length")
        nothing_else(browser, url)


def test_with_keys_alone(browser, url):
    opened(browser, url, 1440)
    reached = []
    for _ in range(9):
        browser.press("Tab")
        reached.append(browser.run(FOCUS))
        if reached[-1] in ("INPUT", "TEXTAREA"):
            browser.type("one")
            browser.press("Enter")
            browser.wait("!!document.querySelector('.dc-error')")
            assert "at least two labels" in browser.run(RACE)
    tabs = ["Draw a digit", "Choose a picture"]
    assert reached[:5] == [*tabs, "pen", "paper", "Clear"]
    assert reached[6:8] == ["dc-run", "dc-stop"]
    nothing_else(browser, url)
