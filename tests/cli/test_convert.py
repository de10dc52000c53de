"""``convert``: one line of what was done, or of what is wrong."""

import torch
from typer.testing import CliRunner

from diffusion_classifier.cli import Exit, app


def test_the_command_says_what_it_did_or_what_is_wrong(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    arguments = ["convert", str(tmp_path / "w.pt"), str(tmp_path / "new.safetensors")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == Exit.ANSWERED and "1 file of weights, 1 tensor\n" in done.stdout
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == Exit.USAGE and "is not overwritten" in again.stderr
    config = tmp_path / "run.yaml"
    config.write_text(f"source: {tmp_path / 'w.pt'}\ndest: {tmp_path / 'other.safetensors'}\n")
    assert CliRunner().invoke(app, ["convert", "--config", str(config)]).exit_code == 0
    assert (tmp_path / "other.safetensors").is_file()
