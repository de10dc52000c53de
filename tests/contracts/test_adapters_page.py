"""The page on adapters does what it says, and its adapter gives what the pipeline itself gives."""

import ast
import copy
import re
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from diffusion_classifier.backends import families as families_module
from diffusion_classifier.backends import register_family
from diffusion_classifier.testing import check_family
from tests.support import language_pipelines, tier_two_pipelines
from tests.support.family_cases import CASES
from tests.support.own_calls import options_of
from tests.support.pipelines import saved

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
KNOWN = {name for family in families_module.FAMILIES for name in family.pipelines}
HUB_ID = "lodestones/Chroma1-HD"


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the page's blocks leave behind, its model being a tiny one."""
    folder = saved(language_pipelines.tiny_chroma(), tmp_path_factory.mktemp("chroma"))
    before, found = list(families_module.FAMILIES), {}
    found["steps"] = []
    for block in BLOCKS:
        exec(block.replace(HUB_ID, folder), found)
        found["steps"].append(copy.copy(found["clf"]))  # later blocks change it
    yield found
    families_module.FAMILIES[:] = before


def test_every_block_runs(names, capsys):
    assert len(BLOCKS) == 9
    assert sum(HUB_ID in block for block in BLOCKS) == 2
    assert names["clf"].backend_.prediction_type == "flow"
    assert type(names["clf"].backend_._family).__name__ == "Chroma"


def test_classes_of_the_examples_are_those_of_their_networks(names):
    indices = [step._condition.tensors.get("class_index") for step in names["steps"][:4]]
    assert [index.tolist() for index in indices] == [[1, 2], [3, 8], [0, 1, 2], [0, 1]]


def test_the_networks_of_the_examples_see_what_they_were_trained_on(names):
    _, grey, flow, signals = names["steps"][:4]
    black = grey.encode(np.zeros((2, 40, 40), np.uint8)).values
    assert black.shape == (2, 1, 28, 28) and (black == -1).all()
    z = torch.ones(2, 3, 16, 16)
    t = torch.tensor([0, 999])
    velocity = flow.backend_.forward(z, t, flow._condition[:1][[0, 0]])
    torch.testing.assert_close(velocity[:, 0, 0, 0], torch.tensor([0.0005, 0.9995]))
    assert flow.backend_.schedule.at(t)[1].tolist() == [0.0005, 0.9995]
    X = np.random.default_rng(0).normal(size=(3, 2, 64))
    proba = signals.predict_proba(X)
    np.testing.assert_array_equal(signals.predict_proba(X.reshape(3, 128)), proba)


def test_the_adapter_is_shorter_than_60_lines():
    (node,) = (n for n in ast.parse(BLOCKS[-2]).body if isinstance(n, ast.ClassDef))
    assert node.end_lineno - node.lineno + 1 < 60


def test_the_adapter_gives_the_network_what_its_pipeline_gives_it(names):
    pipeline = language_pipelines.tiny_chroma()
    check_family(pipeline, names["Chroma"](), **options_of(CASES["chroma"], pipeline))


def test_only_families_are_registered():
    with pytest.raises(TypeError, match="is not a Family; give an instance"):
        register_family(tier_two_pipelines)


def test_the_table_of_families_lists_every_pipeline_and_no_other():
    table = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    listed = {name for name in re.findall(r"`(\w+)`", table) if name.endswith("Pipeline")}
    assert listed == KNOWN
    assert all(hasattr(diffusers, name) for name in listed)
