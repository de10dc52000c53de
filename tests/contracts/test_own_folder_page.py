"""The tutorial on one's own folder runs from top to bottom, with a tiny model in place of MODEL."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from diffusion_classifier.pruners import NoPruning
from tests.support.pipelines import saved, tiny_sd

PAGE = Path(__file__).parents[2] / "docs" / "own-folder.md"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "MPLBACKEND": "Agg",
}


@pytest.mark.slow
def test_every_block_of_the_page_runs(tmp_path, monkeypatch, capsys):
    model = saved(tiny_sd("epsilon"), tmp_path / "model")
    for name in ("cat", "dog", "rabbit"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in (1, 2):
            Image.effect_noise((40, 30), 80).save(tmp_path / "pets" / name / f"{number}.jpg")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert [language for language, _ in blocks].count("bash") == 5
    for language, block in blocks:
        few = f"--model {model} --max-draws 8"  # the model is random: no race would end earlier
        block = block.replace("--model MODEL", few).replace("MODEL", str(model))
        block = block.replace("random_state=0)", "pruner=NoPruning(8), random_state=0)")
        if language == "python":
            exec(block, {"NoPruning": NoPruning})
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            env=ENVIRONMENT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    answers = pd.read_csv("answers.csv")
    assert len(answers) == 6 and set(answers.label) <= {"cat", "dog", "rabbit"}
    first, second = (json.loads(Path(f"{name}.json").read_text()) for name in ("first", "second"))
    assert len(first["results"]) == len(second["results"]) == 6
    assert Image.open("why.png").width > 200 and Path("first.html").stat().st_size > 10_000
    assert "accuracy" in capsys.readouterr().out
