"""The page on clusters does what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

ray = pytest.importorskip("ray")
pytest.importorskip("dask.distributed")

pytestmark = pytest.mark.slow  # starts clusters of Ray and Dask
PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_every_line_of_the_page_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(block, names)
    answers = names["answers"].sort_values("id")
    assert answers["label"].tolist() == names["clf"].predict(names["scenes"].images).tolist()
    here = cross_val_score(names["few"], names["latents"], names["scenes"].color, cv=2)
    np.testing.assert_array_equal(names["on_ray"], here)
    np.testing.assert_array_equal(names["on_dask"], here)
