"""What importing the package costs, and what installing it pulls in."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SLOW = {
    "diffusers", "transformers", "matplotlib", "pandas", "safetensors", "huggingface_hub",
    "typer", "rich", "yaml",
}  # fmt: skip
CODE = """
import sys
import sklearn, torch, sklearn.base, sklearn.datasets, sklearn.model_selection, torch.utils.data
before = set(sys.modules)
import diffusion_classifier, diffusion_classifier.backends, diffusion_classifier.datasets
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
print(*sorted(name.partition(".")[0] for name in sys.modules))
"""


def test_importing_the_package_adds_nothing_slow():
    run = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, cwd=ROOT
    )
    added, loaded = (set(line.split()) for line in run.stdout.splitlines())
    assert "diffusion_classifier" in added and "torch" in loaded
    assert added.isdisjoint(SLOW)
    standard = {"xml", "_elementtree", "pyexpat", "sqlite3", "_sqlite3"}  # and quick
    assert added <= {"diffusion_classifier", "PIL", "defusedxml"} | standard
    assert loaded.isdisjoint({"diffusers", "transformers", "matplotlib"})


def test_the_core_installation_is_small():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {name.split(">")[0] for name in project["dependencies"]}
    assert names == {
        "torch",
        "diffusers",
        "huggingface_hub",
        "transformers",
        "numpy",
        "scikit-learn",
        "scipy",
        "safetensors",
        "pillow",
        "tqdm",
        "typer",
        "rich",
        "pyyaml",
    }
