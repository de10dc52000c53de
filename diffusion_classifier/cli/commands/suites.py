"""``evaluate --suite``: a published experiment, until its end, the time cap or Ctrl-C."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from ...evaluation import Evaluation, evaluate
from ...evaluation.suites import MATCHING, MatchingResult, Prepared, SuiteResult, prepare_suite
from ..options import make_unfitted, settings_of
from ..outputs import check_writable, document, to_json, write, write_settings
from ..running import finish, in_blocks, progress
from ..shell import Exit, usage


@dataclass(frozen=True)
class SuiteFiles:
    """Files that a suite writes: the report, all records, and what is worth sending back."""

    report: Path | None
    json: Path | None
    send: Path | None


def run_suite(ctx: typer.Context, suite: str, files: SuiteFiles) -> None:
    """Run a suite with the options of ``evaluate``."""
    given = ctx.params
    with usage():
        check_writable(files.report, files.json, files.send)
        prepared = prepare_suite(
            make_unfitted(ctx),
            suite,
            given["data"],
            published=given["published"],
            limit=given["limit"],
            seed=given["seed"],
            memory=given["memory"],
            templates=given["templates"],
            classnames=given["classnames"],
        )
    if not given["quiet"]:
        typer.echo(prepared.plan(), err=True)
    runs = _match if prepared.suite.task == MATCHING else _classify
    outcome, found, n_done, n = runs(prepared, given["quiet"], given["max_minutes"])
    if found is not None:
        _write(ctx, found, files, complete=outcome.code == Exit.ANSWERED)
        if not given["quiet"]:
            typer.echo(found.summary())
    finish(outcome, n_done, n, given["memory"], skipped=False)


def _classify(prepared: Prepared, quiet: bool, minutes: float | None) -> tuple[Any, ...]:
    """Answer block by block."""
    data, clf = prepared.data, prepared.classifier
    n = len(data.labels)
    names = list(range(n))  # the report that is sent back names no file

    def work(block: slice) -> Evaluation:
        return evaluate(clf, data.images[block], data.labels[block], names=names[block])

    def rescue(block: slice, partial: Any) -> Evaluation:
        done = slice(block.start, block.start + len(partial))
        found = evaluate(clf, partial, data.labels[done], names=names[done], on_error="skip")
        return replace(found, records=found.answered, races={})

    with progress(clf, n, quiet):
        outcome = in_blocks(n, work, rescue, minutes)
    if not outcome.parts:
        return outcome, None, 0, n
    found = Evaluation.concatenate(outcome.parts)
    places = [record["image"] for record in found.records]
    run = replace(prepared, data=data.chosen(places))
    return outcome, SuiteResult(run, found), len(places), n


def _match(prepared: Prepared, quiet: bool, minutes: float | None) -> tuple[Any, ...]:
    """Score pair by pair; what was scored before a stop counts."""
    scores: list[Any] = []

    def work(block: slice) -> None:
        for pair in prepared.matches():
            scores.append(pair)

    with progress(prepared.classifier, 0, quiet):
        outcome = in_blocks(1, work, lambda block, partial: None, minutes)
    found = MatchingResult(prepared, scores) if scores else None
    return outcome, found, len(scores), len(prepared.data)


def _write(
    ctx: typer.Context, found: SuiteResult | MatchingResult, files: SuiteFiles, complete: bool
) -> None:
    settings, sent = settings_of(ctx), found.to_dict()
    sent["complete"] = complete
    write(files.send, to_json(sent))
    if isinstance(found, SuiteResult):
        values = found.evaluation.to_dict()
        records = values.pop("images")
        if files.report is not None:
            write(files.report, found.to_html())
        labels: list[Any] | None = found.evaluation.classes
    else:
        values, labels = dict(found.figures), None
        records = [{"scores": np.asarray(pair).tolist()} for pair in found.scores]
    summary = {**values, "published": sent["published"]}
    made = document(
        "evaluate", settings, labels=labels, summary=summary, results=records, complete=complete
    )
    write(files.json, to_json(made))
    write_settings("evaluate", settings, files.report, files.json, files.send)
