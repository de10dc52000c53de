"""EvidenceMapDisplay: where in a picture one class beats another.

The map is that of :func:`diffusion_classifier.explaining.explain`, on the latent's grid. A place is
coloured if its evidence is at least ``z`` standard errors away from 0. Enlarging the grid to the
picture is drawing only: the numbers stay one per place of the latent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..classifier import DiffusionClassifier
from ..estimator.settings import PictureFormat
from ..explaining import Evidence, explain
from ..images import read_images
from ..images.latents import Latents
from ..images.resize import resize_image
from ..utils.constraints import Reals, check
from .style import BLUE, VERMILION, as_label, new_axes

_PALEST = -250  # grey level that is drawn black, so that pictures are pale
_OPAQUE = 0.9  # opacity of the strongest evidence
_OUTLINED = 0.1  # of the strongest evidence: weaker places have no outline


@dataclass(eq=False)
class EvidenceMapDisplay:
    """Evidence for class ``a`` over class ``b`` at each place of the latent's grid.

    Make it with ``from_estimator``.

    Attributes
    ----------
    evidence : Evidence
        Two arrays of shape (H, W), in nats.
    a, b : labels
        The evidence is positive where ``a`` explains the picture better than ``b``.
    picture : PIL.Image.Image or None, default=None
        The picture as the model sees it, cropped and resized. Without it, the map is drawn alone.
    ax_ : matplotlib.axes.Axes
        Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Set by ``plot``.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.plotting import EvidenceMapDisplay
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["three", "five", "eight"])
    >>> image = load_scenes("test", n_samples=1).images[0]
    >>> display = EvidenceMapDisplay.from_estimator(clf, image, "eight", "three", n_draws=8)
    >>> display.evidence.nats.shape
    (8, 8)
    """

    evidence: Evidence
    a: Any
    b: Any
    picture: Image.Image | None = None
    ax_: Any = field(default=None, init=False, repr=False)
    figure_: Any = field(default=None, init=False, repr=False)

    @classmethod
    def from_estimator(
        cls,
        clf: DiffusionClassifier,
        image: Any,
        a: Any,
        b: Any,
        *,
        n_draws: int | None = None,
        **options: Any,
    ) -> Self:
        """Explain one image, and draw the map.

        Parameters
        ----------
        clf : DiffusionClassifier
            Fitted.
        image : image
            See :func:`~diffusion_classifier.explaining.explain`.
        a, b : labels
            Two of ``clf.classes_``.
        n_draws : int, optional
            Number of draws. By default the pruner's ``max_draws``.
        **options
            Of ``plot``.

        Returns
        -------
        EvidenceMapDisplay

        Raises
        ------
        InputError, NetworkError
            As ``explain`` raises them.
        """
        evidence = explain(clf, image, a, b, n_draws=n_draws)
        picture = None
        if not isinstance(image, Latents) and clf.backend_.input_kind == "image":
            size = PictureFormat(clf.image_size_, clf.resize_).size_for(clf.backend_)
            picture = resize_image(read_images([image])[0], size, clf.resize_)
        return cls(evidence, a, b, picture).plot(**options)

    def plot(self, ax: Any = None, *, z: float = 2.0, colorbar: bool = True) -> Self:
        """Draw the map over the picture in grey.

        Blue places speak for ``a``, orange-red ones for ``b``; the stronger, the less the picture
        is seen through. So that they differ in grey too, places for ``a`` have a full outline and
        those for ``b`` a dashed one, from a tenth of the strongest evidence on.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            By default those of a new figure.
        z : float, default=2.0
            Standard errors that a place must be away from 0 to be coloured; 0 colours all.
        colorbar : bool, default=True
            Whether to draw the scale, in nats per place.

        Returns
        -------
        EvidenceMapDisplay
            The display itself, with ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        check("z", z, Reals(0))
        ax = new_axes(ax, (5.4, 4.2))
        from matplotlib.colors import LinearSegmentedColormap

        height, width = self.evidence.nats.shape
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        nats, error = self.evidence
        far = np.abs(nats) >= z * np.nan_to_num(error, nan=0.0)
        most = float(np.abs(nats).max()) or 1.0
        strength = np.ones_like(nats)
        if self.picture is not None:
            # Red on green may be one grey: draw the colour channel that varies most.
            channel = max(self.picture.split(), key=lambda band: np.asarray(band).std())
            grey = np.asarray(ImageOps.autocontrast(channel))
            ax.imshow(grey, cmap="gray", vmin=_PALEST, vmax=255, extent=extent)
            strength = _OPAQUE * np.abs(nats) / most  # the picture is seen through weak evidence
        shown = ax.imshow(
            np.ma.masked_array(nats, ~far),
            cmap=LinearSegmentedColormap.from_list("b to a", [VERMILION, "white", BLUE]),
            vmin=-most,
            vmax=most,
            extent=extent,
            interpolation="nearest",
            alpha=strength,
        )
        outlined = far & (np.abs(nats) >= _OUTLINED * most)
        for sign, style in ((1, "-"), (-1, (0, (3, 2)))):
            self._outline(ax, outlined & (sign * nats > 0), style)
        ax.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
        a, b = as_label(self.a), as_label(self.b)
        ax.set_title(f"{a} over {b}: {nats.sum():+.3g} nats in all", fontsize="medium")
        if colorbar:
            bar = ax.figure.colorbar(shown, ax=ax, shrink=0.9)
            bar.set_label(f"nats per place: > 0 for {a}, < 0 for {b}", fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @staticmethod
    def _outline(ax: Any, inside: NDArray[np.bool_], style: Any) -> None:
        """Draw the outline of the places that are inside, as one artist."""
        from matplotlib.collections import LineCollection

        padded = np.pad(inside, 1)
        across = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])  # edges between columns
        along = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])  # edges between rows
        edges = [[(x - 0.5, y - 0.5), (x - 0.5, y + 0.5)] for y, x in across]
        edges += [[(x - 0.5, y - 0.5), (x + 0.5, y - 0.5)] for y, x in along]
        ax.add_collection(LineCollection(edges, colors="black", linewidths=1.0, linestyles=[style]))
