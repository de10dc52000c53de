"""What a user does in the first hour, from the shell and in Python, as the page says."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from diffusion_classifier.datasets import load_scenes

PAGE = Path(__file__).parents[2] / "docs" / "first_hour.md"
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
# The command beside this interpreter comes first: that of the installed package.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "MPLBACKEND": "Agg",
}

N_INTERRUPTED = 24  # images: enough for Ctrl-C to come before the last, however busy the machine


def shell(script, folder):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """Run the page in an empty folder; return the folder and what was printed, block by block."""
    folder, before = tmp_path_factory.mktemp("hour"), os.getcwd()
    names, printed = {}, []
    os.chdir(folder)
    try:
        for language, block in BLOCKS:
            if language == "bash":
                printed.append(shell(block, folder))
            else:
                exec(block, names)
                printed.append("")
    finally:
        os.chdir(before)
    return folder, names, printed


@pytest.mark.slow
def test_the_page_leaves_what_it_says(hour):
    folder, names, printed = hour
    text = "\n".join(printed)
    assert "6 images" in text and "prediction type" in text  # cost and info
    table = pd.read_csv(folder / "answers.csv")
    assert len(table) == 6 and table.error.isna().all()
    true = [path.split("/")[-2] for path in table.image]
    assert (table.label == true).mean() > 0.8
    assert "stopped at the time cap" in text and "stopped with exit code 4" in text
    answers, again = (json.loads((folder / f"{n}.json").read_text()) for n in ("answers", "again"))
    assert answers["complete"] and answers["results"] == again["results"]
    assert len(names["rows"]) == sum(len(row["labels"]) for row in answers["results"])
    page = (folder / "report.html").read_text("utf-8")
    assert page.lower().startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "accuracy" in text and "McNemar p =" in text
    for picture in ("why.png", "race.png"):
        assert min(Image.open(folder / picture).size) > 200
    two = names["scenes"].images[:2]
    assert (names["same"].predict(two) == names["clf"].predict(two)).all()


@pytest.mark.slow
def test_ctrl_c_leaves_answers_and_the_same_command_goes_on(tmp_path):
    for number, image in enumerate(load_scenes("test", n_samples=N_INTERRUPTED).images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "labels.txt").write_text("white\ngreen\npurple\n")
    command = [
        sys.executable, "-m", "diffusion_classifier", "predict", "*.png",
        "--labels-file", "labels.txt", "--prompt", "a {} digit", "--seed", "2",
        "--batch-size", "16", "--memory", "kept", "--json", "stopped.json",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        # A shell's background job ignores Ctrl-C, and hands this down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    line = process.stderr.readline()  # the first images are answered
    assert re.match(rf"\d+%, \d+/{N_INTERRUPTED} images", line), line
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130, rest
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    n_done = len(stopped["results"])
    assert 0 < n_done < N_INTERRUPTED and not stopped["complete"]
    assert f"interrupted: {n_done} of {N_INTERRUPTED} images; run it again to go on." in rest
    assert "Traceback" not in rest
    subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True, capture_output=True)
    done = json.loads((tmp_path / "stopped.json").read_text())
    assert done["complete"] and len(done["results"]) == N_INTERRUPTED
    answers = {row["image"]: row for row in done["results"]}
    assert all(answers[row["image"]] == row for row in stopped["results"])
