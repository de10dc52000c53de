"""The table of a race that did not end: the images that finished before, in this run or earlier."""

from __future__ import annotations

from collections.abc import Mapping

from ..race.source import Result
from ..race.tape import DrawTape
from ..scoring.candidates import Candidates, same_candidates
from .setup import RecordSetup
from .table import ErrorTable


def finished_part(
    finished: Mapping[int, Result],
    tape: DrawTape,
    setup: RecordSetup,
    skipped: Mapping[int, str],
    candidates: Candidates | None,
    earlier: ErrorTable | None,
) -> ErrorTable | None:
    """Make the table of a race that did not end; None if no image finished.

    Images of an earlier table of the same race, among the same candidates, count as finished.
    """
    results = dict(finished)
    is_same = (
        earlier is not None
        and earlier.setup.difference(setup) is None
        and same_candidates(earlier.candidates, candidates)
    )
    if earlier is not None and is_same and len(earlier.timesteps) <= tape.n_draws:
        results = {result.image: result for result in earlier.results()} | results
    results = {image: result for image, result in results.items() if image not in skipped}
    if not results:
        return None
    reasons = [item for item in skipped.items() if item[0] < max(results)]
    return ErrorTable.from_results(results.values(), tape, setup, reasons, candidates)
