"""Class names of pipelines that keep only the last class of each name."""

from pathlib import Path

import diffusers
import huggingface_hub
import pytest

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.errors import InputValueError
from tests.support.other_pipelines import dit, tiny_dit
from tests.support.pipelines import CLASS_NAMES, edit_index, saved

pytestmark = pytest.mark.usefixtures("empty_model_cache")


def classes(backend, *prompts):
    return backend.encode_classes(prompts, prompts)["class_labels"].tolist()


def in_memory(id2label):
    scheduler = diffusers.DDIMScheduler()
    return diffusers.DiTPipeline(**dit(), scheduler=scheduler, id2label=id2label)


def test_a_name_that_an_earlier_class_may_have_had_is_refused():
    """Class 1 is a crane, too, but the pipeline has forgotten that."""
    backend = DiffusersBackend(in_memory(CLASS_NAMES))
    message = (
        r"'crane' is the name of class 4 and perhaps of 1, which has no name left.*'crane': '4'"
    )
    with pytest.raises(InputValueError, match=message):
        classes(backend, "tench", "crane")
    with pytest.raises(InputValueError, match=r"'black grouse' is the name of class 5 and perhaps"):
        classes(backend, "black grouse")
    assert classes(backend, "Tinca tinca", "1", "4", "5.0", "") == [0, 1, 4, 5, 6]


def test_names_registered_with_the_pipeline_are_all_known():
    pipeline = in_memory(CLASS_NAMES)
    pipeline.register_to_config(id2label=CLASS_NAMES)
    backend = DiffusersBackend(pipeline)
    assert classes(backend, "tench", "black grouse") == [0, 5]
    with pytest.raises(InputValueError, match="'crane' is the name of classes 1, 4"):
        classes(backend, "crane")


def test_names_of_one_class_each_are_all_known():
    names = {index: f"name {index}" for index in CLASS_NAMES}
    assert classes(DiffusersBackend(in_memory(names)), "name 5", "name 0") == [5, 0]
    assert classes(DiffusersBackend(in_memory(None)), "5", "0") == [5, 0]


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_a_pipeline_that_diffusers_loaded_has_its_names_where_it_came_from(
    tmp_path, monkeypatch, place
):
    pipeline = diffusers.DiTPipeline.from_pretrained(saved(tiny_dit(), tmp_path))
    if place == "hub":
        cached = {("someone/dit", "model_index.json"): str(tmp_path / "model_index.json")}
        monkeypatch.setattr(
            huggingface_hub, "try_to_load_from_cache", lambda *name: cached.get(name)
        )
        pipeline.register_to_config(_name_or_path="someone/dit")
    backend = DiffusersBackend(pipeline)
    assert classes(backend, "tench", "black grouse") == [0, 5]
    with pytest.raises(InputValueError, match="'crane' is the name of classes 1, 4"):
        classes(backend, "crane")
    edit_index(tmp_path, id2label={"0": "tench", "5": "other"})  # no longer what was loaded
    with pytest.raises(InputValueError, match=r"'black grouse' .* perhaps of 1"):
        classes(backend, "black grouse")


@pytest.mark.parametrize(
    "id2label", [[], 3, {"a": "cat"}, {"0": 1}, {"-1": "cat"}, {"0": None}], ids=str
)
def test_names_of_another_form_are_refused_at_loading(tmp_path, id2label):
    folder = Path(saved(tiny_dit(), tmp_path))
    edit_index(folder, id2label=id2label)
    with pytest.raises(InputValueError, match=r"id2label \(in model_index\.json\) must map the in"):
        load_backend(folder)
