r"""Shortlists made by a race of the same model over groups of classes.

Classes that are combinations ("red three") share the values of factors, and classes in a hierarchy
share nodes. A race of G groups costs G prompts a draw, and far fewer than the K classes. If m(c) is
the group of class c in a race m, and p the probabilities of the classes before any image is seen,

    log q(c | x) = log p(c) + sum_m [ log p(m(c) | x) - log p(m(c)) ] + const,    p(g) = sum_g p(c).

With one race this splits the probability of a group among its classes. With several it treats
factors as independent, which only serves to choose candidates: the classes race as a whole later.
Classes of the same groups and the same prior tie, and a shortlist holds all or none of them. Other
classes that happen to tie come in the order of their groups.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from ..backends.base import Conditioning
from ..errors import InputTypeError, InputValueError
from ..utils.constraints import InstancesOf, Sequences, Table
from ..utils.display import short_repr
from .base import Asked, BaseShortlist, Model, Proposal

_TIE = 1e-9  # in log probability

Prompts = str | Sequence[str] | Mapping[Any, Any] | None


@dataclass(frozen=True, eq=False)
class Groups:
    """One race of groups of classes.

    Attributes
    ----------
    members : Tensor of shape (K,), dtype int64
        The group of each class.
    prompts : list of str of length P
    class_of : Tensor of shape (P,), dtype int64
        The group that each prompt describes.
    condition : Conditioning of length P

    Raises
    ------
    InputValueError
        If lengths differ, or a group has no class or no prompt.
    """

    members: Tensor
    prompts: list[str]
    class_of: Tensor
    condition: Conditioning

    def __post_init__(self) -> None:
        n_groups = int(self.members.max()) + 1
        one_each = torch.arange(n_groups)
        if (
            not torch.equal(self.members.unique(), one_each)
            or not torch.equal(self.class_of.unique_consecutive(), one_each)
            or not len(self.prompts) == len(self.class_of) == len(self.condition)
        ):
            raise InputValueError("each group of a shortlist needs a class and a prompt.")

    @property
    def asked(self) -> Asked:
        """The prompts, as a model races them."""
        return Asked(self.prompts, self.class_of, self.condition)

    def log_prior(self, log_prior: Tensor) -> Tensor:
        """Sum log priors [K] of classes over groups, [G]."""
        n_groups = int(self.members.max()) + 1
        sums = torch.zeros(n_groups, dtype=torch.float64)
        return sums.index_add(0, self.members, log_prior.exp()).log()


class GroupShortlist(BaseShortlist):
    """Base class of shortlists that race groups of classes first.

    Attributes
    ----------
    groups_ : list of Groups
        The races that precede that of the classes.
    """

    groups_: list[Groups]
    _has_prior: ClassVar[bool] = True

    @abstractmethod
    def group(self, labels: Sequence[str]) -> list[tuple[list[str], list[int], Prompts]]:
        """Return for each race the names of groups, the group of each label, and the prompts."""

    def fit(self, X: Any, y: Any, model: Model) -> Self:
        self.groups_ = []
        for names, members, prompts in self.group([str(label) for label in model.classes.tolist()]):
            used = sorted(set(members))  # groups without a class do not race
            number = torch.tensor([used.index(group) for group in members])
            asked = model.ask([names[group] for group in used], prompts)
            if len(used) == 1:  # nor does a group of all classes
                continue
            order = np.argsort([names[group] for group in used], kind="stable")
            number = torch.as_tensor(np.argsort(order))[number]  # models sort their labels
            self.groups_.append(Groups(number, *asked))
        if not self.groups_:
            raise InputValueError(
                f"{short_repr(self)} has no race: all {len(model.classes)} classes are in the same "
                "group; divide them into at least two, or set shortlist=None."
            )
        self.prior_strength_ = 0.0
        return self

    def propose(self, X: Any, model: Model, on_error: str = "raise") -> Proposal:
        log_proba: NDArray[np.float64] | float = model.log_prior.numpy()
        skipped: dict[int, str] = {}
        for groups in self.groups_:
            log_prior = groups.log_prior(model.log_prior)
            found = model.race_groups(groups.asked, log_prior, X, on_error)
            gain = found.log_proba - log_prior.numpy()
            log_proba = log_proba + gain[:, groups.members.numpy()]
            skipped |= dict(found.skipped)
        # The gains of several races need not sum to a probability.
        return Proposal(log_softmax(np.asarray(log_proba), axis=1), sorted(skipped.items()))

    def choose(self, log_proba: NDArray[np.float64]) -> NDArray[np.bool_]:
        k, cell = min(self.k, log_proba.shape[1]), self._cells()
        order = np.lexsort((np.broadcast_to(cell, log_proba.shape), -log_proba))
        mask = np.zeros(log_proba.shape, bool)
        np.put_along_axis(mask, order[:, :k], True, 1)
        last = order[:, k - 1 : k]
        tied = log_proba >= np.take_along_axis(log_proba, last, 1) - _TIE
        return mask | (tied & (cell == cell[last]))

    def max_candidates(self, n_classes: int) -> int:
        return min(self.k - 1 + int(np.bincount(self._cells()).max()), n_classes)

    def _cells(self) -> NDArray[np.int64]:
        """Number the combinations of groups; classes [K] of the same groups have the same one."""
        members = torch.stack([groups.members for groups in self.groups_], 1)
        return np.unique(members.numpy(), axis=0, return_inverse=True)[1].reshape(-1)

    def max_evaluations(self, model: Model) -> int:
        return sum(model.cost_of(groups.asked) for groups in self.groups_)


class FactoredShortlist(GroupShortlist):
    """Race factors first, for classes that are combinations of their values.

    With 7 colours and 10 digits, 17 prompts a draw find the candidates among 70 classes.

    Parameters
    ----------
    factors : dict of str to list of str
        Values of each factor, such as ``{"colour": ["red", ...], "digit": ["one", ...]}``.
    template : str
        How labels are made of values, such as ``"{colour} {digit}"``. Every label must be such a
        combination; not all combinations need to be labels.
    prompts : dict of str to template, list of templates or dict, optional
        Prompts of a factor's values, such as ``{"colour": "a {} digit"}``; see ``prompts`` of
        ``DiffusionClassifier``. By default the backend's own template.
    first : list of str, optional
        Factors that race first; the others race only as parts of the candidates. By default all.
    k : int, default=10
        Number of candidates per image; more, if some tie with the k-th because they differ only in
        factors that do not race first.
    prior_strength : float or "learned", default=0.0
        How much of the factors' log probabilities, less the log priors that they contain, is added
        to the log priors of the race. They come from the same network, so they hardly add to what
        the race finds out.

    Attributes
    ----------
    groups_ : list of Groups
        The races of factors.
    prior_strength_ : float
        The prior strength in use.

    Raises
    ------
    InputTypeError, InputValueError
        In ``fit``, if a label is not a combination, factors are not as described, or all classes
        share the values of the factors that race first.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.pruners import NoPruning
    >>> from diffusion_classifier.shortlist import FactoredShortlist
    >>> shortlist = FactoredShortlist(
    ...     {"colour": ["red", "blue"], "digit": ["three", "five", "eight"]},
    ...     "{colour} {digit}", prompts={"colour": "a {} digit", "digit": "a {}"}, k=2)
    >>> labels = [f"{c} {d}" for c in ["red", "blue"] for d in ["three", "five", "eight"]]
    >>> clf = DiffusionClassifier(pruner=NoPruning(8), shortlist=shortlist, random_state=0)
    >>> clf.fit(None, labels).propose(load_scenes("test", n_samples=2).images).sum(1).tolist()
    [2, 2]
    """

    _constraints: ClassVar[Table] = {
        **BaseShortlist._constraints,
        "factors": InstancesOf(dict),
        "template": InstancesOf(str),
        "prompts": InstancesOf(dict) | None,
        "first": Sequences(InstancesOf(str)) | None,
    }

    def __init__(
        self,
        factors: Mapping[str, Sequence[str]],
        template: str,
        *,
        prompts: Mapping[str, Prompts] | None = None,
        first: Sequence[str] | None = None,
        k: int = 10,
        prior_strength: float | Literal["learned"] = 0.0,
    ) -> None:
        self.factors = factors
        self.template = template
        self.prompts = prompts
        self.first = first
        self.k = k
        self.prior_strength = prior_strength

    def group(self, labels: Sequence[str]) -> list[tuple[list[str], list[int], Prompts]]:
        factors = {name: _strings(f"factors[{name!r}]", v) for name, v in self.factors.items()}
        missing = [name for name in factors if "{" + str(name) + "}" not in self.template]
        if missing or not factors:
            raise InputValueError(
                f"template={self.template!r} has no slot {{{missing[0]}}}; write a slot for each "
                "factor."
                if missing
                else "factors is empty; give the values of at least one factor."
            )
        if self.first is not None and not len(self.first):
            raise InputValueError("first is empty; name at least one factor, or None for all.")
        for option, names in (("first", self.first or ()), ("prompts", self.prompts or ())):
            for name in names:
                if name not in factors:
                    raise InputValueError(
                        f"{option} names {name!r}, which is none of the factors {list(factors)}."
                    )
        places: dict[str, tuple[int, ...]] = {}
        for values in product(*(range(len(v)) for v in factors.values())):
            label = self.template
            for name, place in zip(factors, values, strict=True):
                label = label.replace("{" + name + "}", factors[name][place])
            if label in places:
                raise InputValueError(f"two combinations of factors make the label {label!r}.")
            places[label] = values
        for label in labels:
            if label not in places:
                raise InputValueError(
                    f"the label {short_repr(label)} is no combination of the factors in "
                    f"{self.template!r}, such as {next(iter(places))!r}."
                )
        prompts = self.prompts or {}
        return [
            (values, [places[label][number] for label in labels], prompts.get(name))
            for number, (name, values) in enumerate(factors.items())
            if name in (factors if self.first is None else self.first)
        ]


class HierarchyShortlist(GroupShortlist):
    """Race the nodes of a hierarchy first, then the classes of the best nodes.

    Parameters
    ----------
    nodes : dict of str to list of str
        Labels of each node, such as ``{"animal": ["cat", "dog"], "vehicle": ["car", "bus"]}``.
        Every class must be in exactly one. Labels that are no classes are ignored.
    prompts : template, list of templates or dict, optional
        Prompts of the nodes; see ``prompts`` of ``DiffusionClassifier``. By default the backend's
        own template.
    k : int, default=10
        Number of candidates per image at least: nodes join, the best first, until they have as
        many classes.
    prior_strength : float or "learned", default=0.0
        How much of the nodes' log probabilities, less the log priors that they contain, is added to
        the log priors of the race.

    Attributes
    ----------
    groups_ : list of Groups
        The race of nodes.
    prior_strength_ : float
        The prior strength in use.

    Raises
    ------
    InputTypeError, InputValueError
        In ``fit``, if a label is in no node or in several, or all classes are in one node.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.pruners import NoPruning
    >>> from diffusion_classifier.shortlist import HierarchyShortlist
    >>> nodes = {c: [f"{c} {d}" for d in ["three", "five", "eight"]] for c in ["red", "blue"]}
    >>> shortlist = HierarchyShortlist(nodes, prompts="a {} digit", k=3)
    >>> labels = [label for of_node in nodes.values() for label in of_node]
    >>> clf = DiffusionClassifier(pruner=NoPruning(8), shortlist=shortlist, random_state=0)
    >>> clf.fit(None, labels).propose(load_scenes("test", n_samples=2).images).sum(1).tolist()
    [3, 3]
    """

    _constraints: ClassVar[Table] = {
        **BaseShortlist._constraints,
        "nodes": InstancesOf(dict),
    }

    def __init__(
        self,
        nodes: Mapping[str, Sequence[str]],
        *,
        prompts: Prompts = None,
        k: int = 10,
        prior_strength: float | Literal["learned"] = 0.0,
    ) -> None:
        self.nodes = nodes
        self.prompts = prompts
        self.k = k
        self.prior_strength = prior_strength

    def group(self, labels: Sequence[str]) -> list[tuple[list[str], list[int], Prompts]]:
        node_of: dict[str, int] = {}
        names = list(self.nodes)
        for number, (name, children) in enumerate(self.nodes.items()):
            for label in _strings(f"nodes[{name!r}]", children):
                if label in node_of:
                    raise InputValueError(
                        f"the label {short_repr(label)} is in the nodes {names[node_of[label]]!r} "
                        f"and {name!r}; put it into one."
                    )
                node_of[label] = number
        for label in labels:
            if label not in node_of:
                raise InputValueError(
                    f"the label {short_repr(label)} is in none of the nodes "
                    f"{short_repr(names)}; add it to one."
                )
        return [(names, [node_of[label] for label in labels], self.prompts)]


def _strings(name: str, values: Any) -> list[str]:
    """Return distinct values as strings."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise InputTypeError(f"{name}={short_repr(values)} must be a list of strings.")
    found = [str(value) for value in values]
    if not found or len(set(found)) < len(found):
        raise InputValueError(f"{name}={short_repr(values)} must be different strings, at least 1.")
    return found
