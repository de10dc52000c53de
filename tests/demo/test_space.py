"""The Space: its files are what the Hub expects, and its app starts and answers."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import yaml

SPACE = Path(__file__).parents[2] / "examples" / "space"


def test_its_card_names_the_app_and_the_tested_gradio():
    _, front, _ = (SPACE / "README.md").read_text("utf-8").split("---", 2)
    card = yaml.safe_load(front)
    pinned = (SPACE.parents[1] / "constraints.txt").read_text("utf-8")
    assert card["sdk"] == "gradio" and (SPACE / card["app_file"]).is_file()
    assert re.search(r"^gradio==(.*)$", pinned, re.M)[1] == card["sdk_version"]


def test_it_starts(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    # As on the Hub, from another folder; the address is this machine's own for the test.
    code = (SPACE / "app.py").read_text("utf-8")
    app = tmp_path / "app.py"
    app.write_text(code.replace("0.0.0.0", "127.0.0.1").replace("7860", str(port)), "utf-8")
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, app.name], cwd=tmp_path, env=env)
    try:
        end = time.monotonic() + 90
        while True:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.3)
        assert "<title>" in page or "gradio-app" in page
    finally:
        process.kill()
        process.wait()
