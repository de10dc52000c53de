"""What README and the page of options show, the examples, the benchmark, the pinned versions."""

import json
import re
import runpy
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffusion_classifier
from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.samplers import EvenSampler, FixedDraws
from tests.support.pipelines import saved, tiny_sd

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
HUB_ID = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def example(name):
    return runpy.run_path(str(ROOT / name))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders of tiny random pipelines, by prediction type."""
    kinds = ("epsilon", "v_prediction")
    return {kind: saved(tiny_sd(kind), tmp_path_factory.mktemp(kind)) for kind in kinds}


# ------------------------------------------------------------------------- README


def test_every_python_line_of_the_readme_runs(checkpoints, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("1.jpg", "2.jpg"):
        Image.effect_noise((40, 30), 80).save(Path("photos", name))
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert sum(HUB_ID in block for block in blocks) == 1  # what needs weights from the Hub
    names: dict = {}
    for block in blocks:
        exec(block.replace(HUB_ID, checkpoints["epsilon"]), names)
    printed = capsys.readouterr().out
    assert re.search(r"\['(cat|dog|horse)' '(cat|dog|horse)'\]", printed)


def test_every_python_line_of_the_options_page_runs(capsys):
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", USAGE, re.MULTILINE | re.DOTALL):
        exec(block, names)
    printed = capsys.readouterr().out
    assert "at most 88,000 evaluations" in printed
    assert "[300 400 500 600 700] (2, 2, 5)" in printed


def test_links_of_the_readme_work_on_a_package_index_and_lead_to_files():
    assert re.findall(r"\]\((?!https://)[^)]+\)", README) == []  # nothing relative
    home = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Source"]
    raw = home.replace("github.com", "raw.githubusercontent.com") + "/main/"
    targets = dict(re.findall(r"^\[(.+)\]: (\S+)$", README, re.MULTILINE))
    assert all(target.startswith((f"{home}/blob/main/", raw)) for target in targets.values())
    files = {name: target.partition("/main/")[2] for name, target in targets.items()}
    package = Path(diffusion_classifier.__file__).parent  # installed, when a sdist is tested
    assert [
        file
        for file in files.values()
        if not ((ROOT / file).is_file() or (package.parent / file).is_file())
    ] == []
    used = re.findall(r"\]\[([^]]+)\]", README)
    assert len(used) >= 10 and set(used) == set(files)


def test_costs_on_the_options_page_are_those_of_the_default_pruner():
    text = " ".join(USAGE.split())
    assert f"{StagedPruner().max_evaluations(10):,} evaluations for 10 classes" in text
    assert f"{StagedPruner().max_evaluations(100):,} for 100" in text


def test_the_published_search_on_the_options_page_takes_50_then_500_draws():
    block = next(block for block in USAGE.split("```") if "EvenSampler" in block)
    assert "sampler=EvenSampler(stages=(50, 500))" in block
    assert "pruner=StagedPruner(n_draws=(50,), keep=(5,), max_draws=500)" in block
    rounds = EvenSampler(stages=(50, 500)).rounds(NoiseSchedule.flow(1000), seed=0)
    assert [len(draws) for draws in rounds] == [50, 450]


# --------------------------------------------------------------------- quickstart


def test_quickstart_answers_both_questions_within_its_budget(tmp_path, capsys):
    figure = tmp_path / "figure.png"
    example("examples/quickstart.py")["main"](["--n-images", "6", "--output", str(figure)])
    out, err = capsys.readouterr()
    found = re.findall(r"(\d+) classes .* accuracy ([\d.]+)%, (\d+) evaluations per image", out)
    (n_digits, by_digit, digit_cost), (n_colors, by_color, color_cost) = found
    assert (n_digits, n_colors) == ("10", "7")
    assert float(by_digit) >= 66
    assert float(by_color) >= 83
    assert (int(digit_cost), int(color_cost)) == (128, 104)
    assert 200 * (128 + 104) <= 100_000
    assert "6/6" in err  # the progress bar
    with Image.open(figure) as image:
        assert image.width > 1000
        assert np.asarray(image.convert("L")).std() > 20


def test_predictions_from_the_errors_are_those_from_the_images():
    scenes = load_scenes("test", n_samples=4)
    clf = DiffusionClassifier(
        pruner=StagedPruner(n_draws=(4,), keep=(2,), max_draws=8), random_state=0, batch_size=16
    ).fit(None, ["three", "five", "eight"])
    from_table = clf.predict_proba(clf.errors(scenes.images))
    np.testing.assert_array_equal(from_table, clf.predict_proba(scenes.images))


# ----------------------------------------------------------------------- matching


def test_matching_finds_swapped_captions_and_says_how_surely(capsys):
    example("examples/matching.py")["main"](["--n-pairs", "6", "--draws", "8"])
    out = capsys.readouterr().out
    first, second = re.search(r"6 pairs, the first: (.*) / (.*)", out).groups()
    words = re.fullmatch(r"a (\w+) (\w+) on a (\w+) background", first).groups()
    assert second == "a {2} {1} on a {0} background".format(*words)
    figures = r"(\w+) +([\d.]+)%  \(95 % interval ([\d.]+)% to ([\d.]+)%, n = 6, chance ([\d.]+)%\)"
    rows = re.findall(figures, out)
    assert [row[0] for row in rows] == ["text", "image", "group"] * 2
    assert [row[4] for row in rows[:3]] == ["25.0", "25.0", "16.7"]
    for _, share, low, high, _ in rows:
        assert float(low) < float(share) <= float(high)
        assert float(share) >= 60  # 25 % by chance
    for part in (rows[:3], rows[3:]):
        assert float(part[2][1]) <= min(float(part[0][1]), float(part[1][1]))


def test_winoground_scores_count_pairs_as_defined():
    winoground = example("examples/matching.py")["winoground"]
    both, text, image, tie = [[2, 1], [1, 2]], [[2, 1], [3, 4]], [[2, 3], [1, 4]], [[1, 1], [1, 1]]
    right = winoground(np.array([both, text, image, tie]))
    assert right["text"].tolist() == [True, True, False, False]
    assert right["image"].tolist() == [True, False, True, False]
    assert right["group"].tolist() == [True, False, False, False]


# -------------------------------------------------------------- verify_checkpoint


def facts(report):
    """Lines of a report, ``name   value``, as a dict."""
    return dict(re.findall(r"^(\S.*?) {2,}(\S.*)$", report, re.MULTILINE))


def table_of(report):
    """Rows ``t: errors per class`` of the report's table."""
    rows = re.findall(r"^ +(\d+|mean)((?: +\d+\.\d{6})+)$", report, re.MULTILINE)
    return {t: [float(value) for value in values.split()] for t, values in rows}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_verify_checkpoint_reports_what_it_read_and_measured(kind, checkpoints, tmp_path, capsys):
    output = tmp_path / "report.txt"
    verify = example("examples/verify_checkpoint.py")
    argv = [checkpoints[kind], "--device", "cpu", "--draws", "3", "--output", str(output)]
    verify["main"](argv)
    report = output.read_text(encoding="utf-8")
    assert capsys.readouterr().out == report
    found = facts(report)
    assert found["torch"] == version("torch")
    assert found["pipeline class"] == "StableDiffusionPipeline"
    assert found["prediction type"] == kind
    assert found["timesteps"] == "1000"
    assert found["scaling factor"] == "0.5"
    assert found["latent shape"] == "(4, 8, 8)"
    assert found["device, dtype"] == "cpu, torch.float32"
    assert found["first timestep"].startswith("alpha 0.999575, sigma 0.029155")
    assert found["expected"] == "a red circle"
    assert found["evaluations"] == "90"  # 3 prompts, 10 timesteps, 3 draws
    assert float(found["evaluations/s"]) > 0
    assert re.fullmatch(r"\d+ MiB", found["process"])

    # The same errors, asked for directly.
    timesteps = list(range(50, 1000, 100))
    clf = DiffusionClassifier(
        checkpoints[kind],
        prompts="{}",
        sampler=FixedDraws(np.repeat(timesteps, 3).tolist()),
        pruner=NoPruning(30),
        device="cpu",
        random_state=0,
    ).fit(None, verify["DRAWN_LABELS"])
    errors = clf.errors([verify["red_disc"](16, 16)]).errors[0].reshape(3, 10, 3) / 256
    rows = table_of(report)
    assert list(rows) == [*map(str, timesteps), "mean"]
    for t, expected in zip(timesteps, errors.mean(2).T, strict=True):
        np.testing.assert_allclose(rows[str(t)], expected, atol=1e-6)
    means = errors.mean((1, 2))
    np.testing.assert_allclose(rows["mean"], means, atol=1e-6)
    winner = clf.classes_[means.argmin()]
    verdict = "right" if winner == "a red circle" else "WRONG"
    assert found["answer"] == f"{winner} ({verdict})"
    for name, mean in zip(clf.classes_, means, strict=True):
        [(gap, error)] = re.findall(rf"^{name} +(\S+) \+- (\S+)$", report, re.MULTILINE)
        assert float(gap) == pytest.approx(mean - means.min(), rel=2e-3, abs=1e-7)
        assert (float(error) == 0) == (name == winner)


def test_verify_checkpoint_takes_ones_own_picture_and_labels(checkpoints, tmp_path, capsys):
    picture = tmp_path / "wide.png"
    Image.new("RGB", (50, 30), "green").save(picture)
    argv = [checkpoints["epsilon"], "--image", str(picture), "--labels", "cat, dog"]
    example("examples/verify_checkpoint.py")["main"]([*argv, "--draws", "2"])
    found = facts(capsys.readouterr().out)
    assert found["prompts"] == "a photo of a cat; a photo of a dog"
    assert found["expected"] == "cat"
    assert found["evaluations"] == "40"


def test_verify_checkpoint_keeps_the_report_of_a_failure(tmp_path):
    output = tmp_path / "report.txt"
    with pytest.raises(FileNotFoundError):
        example("examples/verify_checkpoint.py")["main"](
            ["no/such/folder", "--output", str(output)]
        )
    report = output.read_text(encoding="utf-8")
    assert facts(report)["torch"] == version("torch")
    assert "failed: MissingFileError: no folder 'no/such/folder'" in report


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--image", "cat.png"], "give --image and --labels together"),
        (["--draws", "1"], "--draws must be at least 2"),
    ],
)
def test_verify_checkpoint_refuses_impossible_options(argv, message, capsys):
    with pytest.raises(SystemExit):
        example("examples/verify_checkpoint.py")["main"](["folder", *argv])
    assert message in capsys.readouterr().err


# --------------------------------------------------------------------- benchmark


def test_accuracy_benchmark_counts_every_evaluation_and_saves_its_table(tmp_path, capsys):
    argv = ["--n-images", "2", "--draws", "3", "--output", str(tmp_path)]
    example("benchmarks/accuracy.py")["main"](argv)
    saved_facts = json.loads((tmp_path / "accuracy.json").read_text(encoding="utf-8"))
    assert saved_facts["draws"] == 3
    assert saved_facts["versions"]["torch"] == version("torch")
    rows = {row["question"]: row for row in saved_facts["rows"]}
    assert list(rows) == ["digit", "colour", "background", "digit, unseen pairs"]
    assert [row["evaluations"] for row in rows.values()] == [60, 42, 42, 60]
    assert [row["target"] for row in rows.values()] == [0.97, 0.99, None, 0.94]
    table = (tmp_path / "accuracy.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    for row in rows.values():
        assert row["accuracy"] == row["right"] / 2
        line = f"| {row['question']} | {row['n_classes']} | 2 | {row['accuracy']:.1%} |"
        assert line in table


def test_a_small_part_of_the_recorded_accuracy_holds():
    measure = example("benchmarks/accuracy.py")["measure"]
    digit = measure("digit", 24, 10)
    assert digit["accuracy"] >= 0.87
    # Wilson's interval: centre (p + z^2/2n) / (1 + z^2/n), z = 1.959964
    n, p, z2 = 24, digit["accuracy"], 1.959964**2
    half = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    np.testing.assert_allclose(digit["interval"], [centre - half, centre + half], atol=1e-6)
    assert measure("colour", 24, 6)["accuracy"] >= 0.91


# -------------------------------------------------------------------------- pins


def test_every_direct_dependency_is_pinned():
    def names(requirements):
        found = {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}
        return found - {"diffusion-classifier"}

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = [project["dependencies"], *project["optional-dependencies"].values()]
    assert set().union(*map(names, wanted)) - pins.keys() == set()
    assert pins["torch"] == "2.13.0"  # of which there is a build without CUDA
