"""The server: this machine only, no telemetry, and uploads that end at their bound."""

import os
import socket
import urllib.error
import urllib.request

import pytest
from typer.testing import CliRunner

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.cli import app
from diffusion_classifier.demo import Limits, serve


@pytest.fixture(scope="module")
def page():
    clf = DiffusionClassifier(random_state=0)
    page = serve(clf, port=0, limits=Limits(max_bytes=1000), block=False)
    yield page
    page.close()


def upload(page, n_bytes):
    """Send a file, and return the status of the answer."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + b"0" * n_bytes
        + b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{page.local_url}gradio_api/upload", body, headers)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code


def test_only_this_machine_is_let_in(page):
    assert page.local_url.startswith("http://127.0.0.1:") and page.share_url is None
    assert page.server_name == "127.0.0.1"
    port = page.server_port
    with socket.socket() as sock, pytest.raises(OSError):  # another address of this machine
        sock.settimeout(2)
        sock.connect(("127.0.0.2", port))
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_uploads_are_bounded_while_they_arrive(page):
    assert upload(page, 900) == 200
    assert upload(page, 5000) == 413


def test_the_command_has_its_bounds():
    found = CliRunner().invoke(app, ["demo", "--help"])
    assert found.exit_code == 0 and "127.0.0.1" in found.output
    found = CliRunner().invoke(app, ["demo", "--port", "99999"])
    assert found.exit_code == 2
    found = CliRunner().invoke(app, ["demo", "--model", "./missing"])
    assert found.exit_code == 2 and "missing" in found.output
