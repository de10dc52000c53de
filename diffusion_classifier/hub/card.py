"""The model card: a README with metadata that the Hub reads and text that people read.

Labels, prompts and settings are text of users. Each is one line of a *code span*, in which Markdown
and HTML have no meaning, behind a fence of more backticks than it holds; characters that cannot be
seen are written as escapes. Tables hold numbers only.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..classifier import DiffusionClassifier
from ..errors import InputTypeError, InputValueError
from ..evaluation import Evaluation
from ..evaluation.settings import identity_of, settings_of
from ..pruners import NoPruning, RacingPruner, RiskControlledPruner
from ..shortlist import Shortlist
from ..utils.display import short_repr
from .contents import saved_files
from .network import Network
from .remote import check_repo_id

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

LIBRARY = "diffusion_classifier"
TASK = "zero-shot-image-classification"
MOST_CLASSES = 100  # that are listed, with
MOST_PROMPTS = 10  # prompts each
LONGEST = 200  # characters of a label, prompt or setting
FIGURES = ("accuracy", "top_accuracy", "log_loss", "brier", "evaluations")  # [value, low, high]
# What the card lists elsewhere or what says nothing to others.
_LISTED = ("prompts", "backend", "version", "device", "priors")

TEMPLATE = """---
{{ card_data }}
---

# Zero-shot classifier of {{ n_classes }} classes

A fitted `DiffusionClassifier` of diffusion_classifier {{ version }}. The class whose prompt lets \
the diffusion model predict the noise in an image best wins \
([arXiv 2303.16203](https://arxiv.org/abs/2303.16203)).

## Load it

```python
from diffusion_classifier.hub import from_hub
clf = from_hub({{ arguments }})
clf.predict(["photo.png"])
```

## Network

{{ network }}
{% for name, value in identity %}
- {{ name }}: {{ value }}
{%- endfor %}

## Classes and prompts
{% for label, prompts in classes %}
- {{ label }}: {{ prompts }}
{%- endfor %}
{{ more_classes }}

## Settings
{% for name, value in settings %}
- {{ name }}: {{ value }}
{%- endfor %}

{{ promise }}

## Figures

{{ figures }}

## Files

`classifier.json` and `tensors.safetensors` hold the parameters, the prompts with their embeddings \
and what was learned. There is no pickle and no code among them.
"""


def model_card(
    clf: DiffusionClassifier,
    repo_id: str,
    *,
    evaluation: Evaluation | None = None,
    dataset: str | None = None,
) -> ModelCard:
    """Return the card that :func:`push_to_hub` uploads, to look at it first.

    Parameters
    ----------
    clf : DiffusionClassifier
        Fitted.
    repo_id : str
        Name of the repository, such as ``"owner/name"``.
    evaluation : Evaluation, optional
        Figures of this classifier.
    dataset : str, optional
        Name of the images of ``evaluation``.

    Returns
    -------
    huggingface_hub.ModelCard
        ``str(card)`` is the README, ``card.data`` its metadata.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If ``fit`` was not called.
    InputValueError
        If the evaluation is of other classes, another network or other settings.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.hub import model_card
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["one", "two"])
    >>> card = model_card(clf, "owner/one-or-two")
    >>> card.data.library_name, card.data.pipeline_tag
    ('diffusion_classifier', 'zero-shot-image-classification')
    >>> print(card.text.strip().splitlines()[0])
    # Zero-shot classifier of 2 classes
    """
    return made_card(clf, saved_files(clf)[1], repo_id, evaluation, dataset)


def made_card(
    clf: DiffusionClassifier,
    network: Network,
    repo_id: str,
    evaluation: Evaluation | None = None,
    dataset: str | None = None,
) -> ModelCard:
    """Make the card of a classifier whose network is known; see :func:`model_card`."""
    from huggingface_hub import ModelCard, ModelCardData

    check_repo_id(repo_id)
    if evaluation is not None:
        _check_evaluation(clf, evaluation)
    if dataset is not None and (evaluation is None or not isinstance(dataset, str)):
        raise InputValueError(
            f"dataset={short_repr(dataset)} must be the name of the images of evaluation=."
        )
    data = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=[TASK, "diffusion-classifier", "image-classification", "diffusion"],
        base_model=network.name if network.kind == "hub" else None,
        **_metadata(repo_id, evaluation, dataset),
    )
    shown = list(clf.prompts_.items())[:MOST_CLASSES]
    left = len(clf.classes_) - len(shown)
    extra = ", backend=..." if network.is_missing else ""
    extra += ", proposer=..." if isinstance(clf.shortlist, Shortlist) else ""
    identity = identity_of(clf)
    if network.kind == "folder":
        identity.pop("name", None)  # the path says more of its owner than of the network
    settings = {k: v for k, v in settings_of(clf).items() if k not in _LISTED}
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        n_classes=len(clf.classes_),
        version=__version__,
        arguments=f"{repo_id!r}{extra}".replace("'", '"'),
        network=_describe(network),
        identity=[(name, code(v)) for name, v in identity.items() if v is not None],
        classes=[(code(label), _prompts(prompts)) for label, prompts in shown],
        more_classes=f"\nAnd {left:,} more, in `classifier.json`." if left else "",
        settings=[(name, code(" ".join(str(v).split()))) for name, v in settings.items()],
        promise=_promise(clf),
        figures=_figures(evaluation, dataset),
    )


def code(value: Any) -> str:
    """Write any value as a code span: one line of text that is never markup.

    Examples
    --------
    >>> code("cat | <b>"), code("a`b"), code("two\\nlines")
    ('`cat | <b>`', '``a`b``', '`two\\\\nlines`')
    """
    hidden = ("C", "Zl", "Zp")  # control characters, marks of direction, separators of lines
    text = "".join(
        repr(char)[1:-1] if unicodedata.category(char).startswith(hidden) else char
        for char in str(value)[: LONGEST + 1]
    )
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    longest = run = 0
    for char in text:
        run = run + 1 if char == "`" else 0
        longest = max(longest, run)
    fence = "`" * (longest + 1)
    pad = " " if not text.strip() or text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _prompts(prompts: list[str]) -> str:
    shown = ", ".join(code(prompt) for prompt in prompts[:MOST_PROMPTS])
    left = len(prompts) - MOST_PROMPTS
    return f"{shown} and {left:,} more" if left > 0 else shown


def _describe(network: Network) -> str:
    """Say which network the classifier needs, where it comes from and whose licence it has."""
    name = code(network.name)
    if network.kind == "embedded":
        return (
            "The small model of coloured digits that comes with diffusion_classifier. Its weights "
            "derive from handwriting by E. Alpaydin and C. Kaynak and are under CC BY 4.0."
        )
    if network.kind == "saved":
        return f"A {name} without a network: the files hold all that it learned from data."
    if network.kind == "hub":
        return (
            f"[{network.name}](https://huggingface.co/{network.name}), which is loaded from there. "
            "Its weights are not in this repository. They have their own licence, which also "
            "limits what this classifier may be used for: see that page."
        )
    place = "a folder of its author" if network.kind == "folder" else f"memory, by a {name}"
    return (
        f"**The network is not on the Hub.** It was loaded from {place}. Pass the same network as "
        "`backend=`; a network of another configuration is refused. Its weights are not in this "
        "repository, and their licence is not known here."
    )


def _promise(clf: DiffusionClassifier) -> str:
    """Say what the pruner promises of the answers."""
    pruner = clf.pruner_
    if isinstance(pruner, RacingPruner):
        return (
            "Promise of the pruner: asymptotically, in at most "
            f"{100 * pruner.alpha:g} % of races it drops the class that would win with infinitely "
            "many draws. This says nothing about how often that class is the true one."
        )
    if isinstance(pruner, RiskControlledPruner):
        return (
            f"Promise of the pruner: of many images like those it was fitted on, at most "
            f"{100 * pruner.risk:g} % are expected to get another answer than with all draws. It "
            "is a promise on average, not for each image."
        )
    if isinstance(pruner, NoPruning):
        return "Every class is evaluated on every draw; no class is dropped early."
    return "The pruner drops classes early and promises no error rate."


def _check_evaluation(clf: DiffusionClassifier, evaluation: Evaluation) -> None:
    """Raise unless the figures are of this classifier."""
    if not isinstance(evaluation, Evaluation):
        raise InputTypeError(
            f"evaluation={short_repr(evaluation)} must be an Evaluation; make one with "
            "diffusion_classifier.evaluation.evaluate."
        )
    free = ("batch_size", "device", "backend", "random_state")  # the network and seed say the rest
    ours = {
        "classes": clf.classes_.tolist(),
        **{f"network[{k!r}]": v for k, v in identity_of(clf).items()},
        **{f"settings[{k!r}]": v for k, v in settings_of(clf).items() if k not in free},
    }
    theirs = {
        "classes": evaluation.classes,
        **{f"network[{k!r}]": v for k, v in evaluation.network.items()},
        **{f"settings[{k!r}]": v for k, v in evaluation.settings.items() if k not in free},
    }
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            raise InputValueError(
                f"evaluation has {name}={short_repr(theirs.get(name))}, but the classifier "
                f"{short_repr(ours.get(name))}; evaluate the classifier that is pushed."
            )


def _metadata(repo_id: str, evaluation: Evaluation | None, dataset: str | None) -> dict[str, Any]:
    """Return the figures as the Hub reads them; they need the name of a data set."""
    from huggingface_hub import EvalResult

    if evaluation is None or dataset is None:
        return {}
    task: dict[str, Any] = {"task_type": TASK, "dataset_type": dataset, "dataset_name": dataset}
    values = {"accuracy": evaluation.accuracy.value, "log_loss": evaluation.log_loss.value}
    found = [
        EvalResult(**task, metric_type=name, metric_name=name, metric_value=float(value))
        for name, value in values.items()
    ]
    return {"model_name": repo_id, "eval_results": found, "metrics": list(values)}


def _figures(evaluation: Evaluation | None, dataset: str | None) -> str:
    """Return a table of the figures with their intervals."""
    if evaluation is None:
        return "This classifier was uploaded without an evaluation."
    of = f" of {code(dataset)}" if dataset else ""
    lines = [
        f"{evaluation.n:,} images{of}, {evaluation.n_skipped:,} more were skipped. Intervals are "
        "of 95 %: Wilson's for shares, the bootstrap's else. The author states these figures.",
        "",
        "| figure | value | interval |",
        "|---|---|---|",
    ]
    for name in FIGURES:
        value, low, high = getattr(evaluation, name)
        shown = f"top-{evaluation.top} accuracy" if name == "top_accuracy" else name
        lines.append(f"| {shown.replace('_', '-')} | {value:.4g} | {low:.4g} to {high:.4g} |")
    return "\n".join(lines)
