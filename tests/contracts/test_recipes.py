"""The page of recipes does what it says."""

import logging
import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


class Recorded:
    """Stands for a module that is not installed: it keeps the calls of its functions."""

    def __init__(self, name, calls):
        self.name, self.calls, self.summary = name, calls, {}

    def __getattr__(self, function):
        if function.startswith("__"):
            raise AttributeError(function)

        def call(*arguments, **options):
            self.calls.append((f"{self.name}.{function}", arguments, options))
            return self

        return call


def test_every_line_of_the_recipes_runs(capsys, caplog, monkeypatch):
    calls: list = []
    caplog.set_level(logging.INFO, "diffusion_classifier")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 27
    names: dict = {}
    for block in blocks:
        with monkeypatch.context() as patch:  # others ask whether these are installed
            for name in ("wandb", "mlflow"):
                if f"import {name}" in block:
                    patch.setitem(sys.modules, name, Recorded(name, calls))
            exec(block, names)
    assert "evaluations" in capsys.readouterr().err  # a bar
    assert names["table"].errors.shape == (len(names["y"]), 3, 8)
    assert len(names["view"]) == len(names["y"]) and "Rows per network call" in names["page"]
    assert names["again"].classes_.tolist() == ["blue", "green", "red"]
    assert [record.message for record in caplog.records][-1].startswith("2 of 2 images answered")
    assert [name for name, *_ in calls] == [
        "wandb.init", "wandb.log", "wandb.log", "wandb.finish",
        "mlflow.start_run", "mlflow.log_param", *["mlflow.log_metric"] * 5, "mlflow.end_run",
    ]  # fmt: skip
    assert calls[0][2]["config"]["n_images"] == 2 and calls[3][2] == {"exit_code": 0}
    assert 0 < calls[1][1][0]["probability"] <= 1 and calls[1][1][0]["evaluations"] > 0
    assert calls[-2][1][0] == "seconds" and calls[-1][1] == ("FINISHED",)
