"""Labels become prompts: templates are filled, dictionaries looked up, and mistakes explained."""

import numpy as np
import pytest

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.estimator.classes.prompts import make_prompts

DEFAULT = "a photo of a {}"


def test_default_template_is_filled_with_each_label_in_order():
    assert make_prompts(["dog", "cat"], None, DEFAULT) == [
        ["a photo of a dog"],
        ["a photo of a cat"],
    ]


def test_a_template_of_the_user_replaces_the_default():
    assert make_prompts(["cat"], "a sketch of a {}", DEFAULT) == [["a sketch of a cat"]]


@pytest.mark.parametrize("container", [list, tuple])
def test_several_templates_give_each_label_one_prompt_per_template(container):
    templates = container(["a {}", "the {}, close up"])
    assert make_prompts(["cat", "dog"], templates, DEFAULT) == [
        ["a cat", "the cat, close up"],
        ["a dog", "the dog, close up"],
    ]


def test_every_slot_is_filled_and_doubled_braces_are_literal():
    assert make_prompts(["cat"], "{} or {{not}} {}", DEFAULT) == [["cat or {not} cat"]]


def test_a_label_with_braces_is_not_filled_again():
    assert make_prompts(["{}", "{0.x}"], "a {}", DEFAULT) == [["a {}"], ["a {0.x}"]]


@pytest.mark.parametrize(
    ("label", "text"),
    [(3, "3"), (np.int64(3), "3"), (np.str_("cat"), "cat"), (True, "True"), (2.5, "2.5")],
)
def test_labels_of_any_type_are_written_as_str_writes_them(label, text):
    assert make_prompts([label], "a {}", DEFAULT) == [["a " + text]]


def test_a_dictionary_gives_literal_prompts():
    prompts = {"cat": "a {} with a hat", "dog": ["a dog", ""], "emu": "never asked for"}
    assert make_prompts(["dog", "cat"], prompts, DEFAULT) == [["a dog", ""], ["a {} with a hat"]]


def test_dictionary_keys_are_found_by_value_whatever_their_type():
    labels = np.array([3, 7])
    assert make_prompts(labels, {3: "three", 7: "seven"}, DEFAULT) == [["three"], ["seven"]]
    keyed_by_numpy = {np.int64(3): "three", np.str_("cat"): "cat"}
    assert make_prompts([3, "cat"], keyed_by_numpy, DEFAULT) == [["three"], ["cat"]]


def test_labels_missing_from_the_dictionary_are_all_named():
    with pytest.raises(ValueError, match=r"no prompt for 'dog', 3\b.*it has 'cat'"):
        make_prompts(np.array(["cat", "dog", 3], dtype=object), {"cat": "a cat"}, DEFAULT)


def test_a_missing_label_is_shown_as_a_plain_value():
    with pytest.raises(ValueError, match=r"no prompt for 'dog'"):
        make_prompts(np.array(["cat", "dog"]), {np.str_("cat"): "a cat"}, DEFAULT)


@pytest.mark.parametrize(
    "template",
    [
        "no slot",
        "",
        "{{}}",
        "a {0.__class__}",
        "a {0}",
        "a {name}",
        "a {!r}",
        "a {:>5}",
        "a {:{}}",
        "a {[0]}",
        "a {.__class__}",
        "a {",
        "a }",
        "a {} and {name}",
    ],
)
def test_a_template_without_plain_slots_is_refused_and_quoted(template):
    for prompts in (template, [DEFAULT, template]):
        with pytest.raises(ValueError) as error:
            make_prompts(["cat"], prompts, DEFAULT)
        assert repr(template) in str(error.value)
        assert '"a photo of a {}"' in str(error.value)


def test_the_default_template_is_checked_too():
    with pytest.raises(ValueError, match="'no slot'"):
        make_prompts(["cat"], None, "no slot")


@pytest.mark.parametrize("empty", [[], ()])
def test_an_empty_list_of_templates_is_refused(empty):
    with pytest.raises(ValueError, match=r"prompts=.* is empty"):
        make_prompts(["cat"], empty, DEFAULT)


def test_an_empty_list_of_prompts_for_a_label_is_refused_by_name():
    with pytest.raises(ValueError, match=r"prompts\['dog'\]=\[\] is empty"):
        make_prompts(["cat", "dog"], {"cat": "a", "dog": []}, DEFAULT)


def test_prompts_of_a_wrong_type_are_refused_with_type_and_place():
    with pytest.raises(TypeError, match="prompts=5 is of type int"):
        make_prompts(["cat"], 5, DEFAULT)
    with pytest.raises(TypeError, match=r"prompts\[1\]=None is of type NoneType"):
        make_prompts(["cat"], ["a {}", None], DEFAULT)
    with pytest.raises(TypeError, match=r"prompts\['cat'\]=5 is of type int"):
        make_prompts(["cat"], {"cat": 5}, DEFAULT)
    with pytest.raises(TypeError, match=r"prompts\['cat'\]\[1\]=b'cat' is of type bytes"):
        make_prompts(["cat"], {"cat": ["a cat", b"cat"]}, DEFAULT)


@pytest.mark.parametrize("blank", [" ", "\t\n"])
def test_a_prompt_of_white_space_is_refused(blank):
    with pytest.raises(ValueError, match=r"prompts\['cat'\] is blank"):
        make_prompts(["cat"], {"cat": blank}, DEFAULT)


def test_text_that_is_no_unicode_is_refused():
    """Half of a character, as from a file that was read in the wrong encoding."""
    for labels, prompts in (["a", "\ud800"], None), (["a", "b"], {"a": "x", "b": "y\udcff"}):
        with pytest.raises(InputValueError, match=r"prompt .* no valid Unicode text.*encoding"):
            make_prompts(labels, prompts, DEFAULT)


def test_the_empty_string_is_the_unconditional_prompt():
    assert make_prompts(["thing", "cat"], {"thing": "", "cat": "a cat"}, DEFAULT) == [
        [""],
        ["a cat"],
    ]


def test_a_repeated_prompt_within_one_class_is_kept():
    assert make_prompts(["cat"], ["a {}", "a {}"], DEFAULT) == [["a cat", "a cat"]]


def test_two_classes_that_share_a_prompt_are_refused():
    prompts = {"cat": ["a pet", "a cat"], "dog": ["a dog", "a pet"]}
    with pytest.raises(ValueError, match=r"'cat' and 'dog' share the prompt 'a pet'"):
        make_prompts(["cat", "dog"], prompts, DEFAULT)
    with pytest.raises(ValueError, match=r"1 and '1' share the prompt 'a photo of a 1'"):
        make_prompts([1, "1"], None, DEFAULT)


@pytest.mark.parametrize(
    "article, label",
    [
        *(("an", word) for word in ("apple", "egg", "igloo", "owl", "umbrella", "Éclair")),
        *(("an", word) for word in ("hour", "hourglass", "heirloom", "honest man", "honour")),
        *(("an", word) for word in ("unimportant thing", "uninhabited isle", "urn", "usher")),
        *(("an", word) for word in ("8", "80s car", "11", "18", '"orange"', "onion", "utmost")),
        *(("a", word) for word in ("cat", "house", "honey", "3", "1", "118")),
        *(
            ("a", word)
            for word in ("university", "unicorn", "uniform", "user", "ukulele", "utensil")
        ),
        *(("a", word) for word in ("European", "ewe", "one", "one-way street", "urinal", "union")),
    ],
)
def test_the_default_template_has_the_right_article(article, label):
    assert make_prompts([label], None, DEFAULT) == [[f"a photo of {article} {label}"]]
    assert make_prompts([label], None, "A {}") == [[f"{article.capitalize()} {label}"]]


def test_an_article_changes_only_right_before_the_label_of_a_default_template():
    assert make_prompts(["ant"], None, "a {}, not a big {} or pizza {}") == [
        ["an ant, not a big ant or pizza ant"]
    ]
    assert make_prompts(["ant"], DEFAULT, DEFAULT) == [["a photo of a ant"]]
    assert make_prompts(["ant"], ["a {}", DEFAULT], "a {}") == [["a ant", "a photo of a ant"]]
    assert make_prompts(["ant"], {"ant": "a ant"}, DEFAULT) == [["a ant"]]
    assert make_prompts(["ant"], None, DEFAULT, articles=False) == [["a photo of a ant"]]


def test_an_empty_dictionary_of_prompts_is_refused():
    with pytest.raises(ValueError, match=r"prompts=\{\} is empty"):
        make_prompts(["cat"], {}, DEFAULT)
