"""Pickled weights become safetensors of the same values; what is none is refused, and never run."""

import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion_classifier.backends import convert_weights
from diffusion_classifier.backends.loading import convert, unpickle
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.errors import DamagedFileError, InputFileError
from tests.support.original_names import single_file
from tests.support.other_pipelines import tiny_dit
from tests.support.pipelines import sample_output, saved, tiny_sd

pytestmark = pytest.mark.usefixtures("empty_model_cache")


class Malicious:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def as_pickles(pipeline, folder):
    """Save as .bin: by diffusers itself, and as transformers did before its release 5."""
    pipeline.save_pretrained(folder, safe_serialization=False)
    for path in folder.rglob("*.safetensors"):
        if path.stem == "model":
            torch.save(load_file(path), path.with_name("pytorch_model.bin"))
        path.unlink()
    return len([*folder.rglob("*.bin")])


@pytest.mark.parametrize("make", [tiny_dit, tiny_sd])
def test_a_converted_folder_predicts_the_same_bit_for_bit(tmp_path, make):
    saved(make(), tmp_path / "safe")
    n_files = as_pickles(make(), tmp_path / "bin")
    shutil.copy(tmp_path / "safe" / "model_index.json", tmp_path / "bin")
    with pytest.raises(ValueError, match="diffusion-classifier convert FOLDER NEW_FOLDER"):
        load_backend(tmp_path / "bin")
    (tmp_path / "bin" / "optimizer.pt").write_bytes(b"anything")
    done = convert_weights(tmp_path / "bin", tmp_path / "new")
    assert done.left_out == ["optimizer.pt"] and done.n_files == n_files > 1
    assert weights(tmp_path / "new") == weights(tmp_path / "safe")
    expected, found = (output(load_backend(tmp_path / name)) for name in ("safe", "new"))
    assert torch.equal(found, expected)
    assert left(tmp_path) == ["bin", "new", "safe"]


def output(backend):
    """The network's output for two conditions, of words or of classes by number."""
    names = ("a cat", "a dog") if backend.text_conditional else ("0", "4")
    condition = backend.encode_classes(names, names)
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return backend.forward(z, torch.tensor([100, 900]), condition)


def weights(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))


def sharded(folder):
    """A UNet in two shards with an index, in the names of diffusers."""
    folder.mkdir()
    names = [f"diffusion_pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    for n, name in enumerate(names):
        torch.save({f"layer.{n}": torch.full((2, 3), float(n))}, folder / name)
    index = {"metadata": {}, "weight_map": {f"layer.{n}": name for n, name in enumerate(names)}}
    (folder / "diffusion_pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def test_shards_and_their_index_are_converted(tmp_path):
    assert convert_weights(sharded(tmp_path / "bin"), tmp_path / "new").n_tensors == 2
    index = json.loads(
        (tmp_path / "new" / "diffusion_pytorch_model.safetensors.index.json").read_text()
    )
    for n in range(2):
        shard = index["weight_map"][f"layer.{n}"]
        assert shard == f"diffusion_pytorch_model-0000{n + 1}-of-00002.safetensors"
        assert load_file(tmp_path / "new" / shard)[f"layer.{n}"].tolist() == [[n] * 3] * 2


def test_a_missing_shard_is_named(tmp_path):
    (sharded(tmp_path / "bin") / "diffusion_pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(OSError, match=r"'layer.1' is in .*00002.bin', which is missing"):
        convert_weights(tmp_path / "bin", tmp_path / "new")
    assert left(tmp_path) == ["bin"]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_file_predicts_the_same_bit_for_bit(tmp_path, legacy):
    file = single_file(tiny_sd(), tmp_path / "model.safetensors")
    expected, tensors = sample_output(load_backend(file)), load_file(file)
    file.unlink()
    saved = {"epoch": 3, "state_dict": tensors} if legacy else tensors
    torch.save(saved, tmp_path / "model.ckpt", _use_new_zipfile_serialization=not legacy)
    assert convert_weights(tmp_path / "model.ckpt", file).n_tensors == len(tensors)
    assert torch.equal(sample_output(load_backend(file)), expected)


def test_tensors_that_share_memory_or_are_views_keep_their_values(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": whole, "tied": whole, "row": whole[1], "turned": torch.arange(6).view(2, 3).T}
    tensors |= {"nan": torch.tensor(float("nan")), "none": torch.empty(0), "bits": whole.bfloat16()}
    torch.save(tensors, tmp_path / "w.pt")
    assert unpickle.convert(tmp_path / "w.pt", tmp_path / "w.safetensors") == sorted(tensors)
    found = load_file(tmp_path / "w.safetensors")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        torch.testing.assert_close(found[name], tensor.contiguous(), rtol=0, atol=0, equal_nan=True)


def test_a_file_with_other_values_than_written_is_noticed(tmp_path):
    tensors = {"w": torch.ones(2)}
    for other in ({"w": torch.zeros(2)}, {"w": torch.ones(2, 1)}, {"w": torch.ones(2).half()}, {}):
        save_file(other, tmp_path / "w.safetensors")
        with pytest.raises(OSError, match="read back"):
            unpickle.compare(tensors, tmp_path / "w.safetensors")


def malicious(file, kind):
    mark = file.parent / "ran"
    if kind == "raw":
        file.write_bytes(pickle.dumps(Malicious(mark)))
    else:
        state = {"state_dict": {"w": torch.ones(2), "x": Malicious(mark)}}
        torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")


def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path):
    malicious(tmp_path / "model.ckpt", "zip")
    with pytest.raises(OSError, match=r"holds more than tensors.*could run code.*mkdir.*was run"):
        convert_weights(tmp_path / "model.ckpt", tmp_path / "new.safetensors")
    assert left(tmp_path) == ["model.ckpt"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["legacy", "raw"])
def test_malicious_pickles_of_other_formats_do_not_run_either(tmp_path, kind):
    malicious(tmp_path / "model.ckpt", kind)
    with pytest.raises(unpickle.Refused, match="holds more than tensors"):
        unpickle.convert(tmp_path / "model.ckpt", tmp_path / "new.safetensors")
    assert left(tmp_path) == ["model.ckpt"]


def not_a_checkpoint(file):
    file.write_text("some text")


def cut(file):
    torch.save({"w": torch.ones(1000)}, file)
    file.write_bytes(file.read_bytes()[:-500])


def a_number(file):
    torch.save({"w": torch.ones(2), "step": 3}, file)


def a_tensor(file):
    torch.save(torch.ones(2), file)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (not_a_checkpoint, "is not a whole checkpoint"),
        (lambda file: file.touch(), "is not a whole checkpoint"),
        (cut, "is not a whole checkpoint"),
        (a_number, "holds int under 'step'"),
        (a_tensor, "holds no tensors by name, but Tensor"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, make, message):
    make(tmp_path / "model.pt")
    with pytest.raises(unpickle.Refused, match=message):
        unpickle.convert(tmp_path / "model.pt", tmp_path / "new.safetensors")
    assert left(tmp_path) == ["model.pt"]


def a_program(file):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), file)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: torch.save({}, file), r"holds a mapping without tensors; look for the file"),
        (
            lambda file: torch.save({"w": torch.ones(2, dtype=torch.complex128)}, file),
            r"tensor 'w' is torch.complex128; safetensors has no such numbers; convert the tensor",
        ),
        (
            lambda file: torch.save({"__metadata__": torch.ones(2)}, file),
            r"a tensor named '__metadata__', a word of safetensors; rename the tensor",
        ),
        (a_program, r"is a TorchScript archive, a program; load it with torch.jit.load"),
    ],
)
def test_what_safetensors_cannot_hold_is_named_with_its_own_advice(tmp_path, make, message):
    make(tmp_path / "model.pt")
    with pytest.raises(unpickle.Refused) as refused:
        unpickle.convert(tmp_path / "model.pt", tmp_path / "new.safetensors")
    reason, said = refused.value.args
    assert re.search(message, f"{said}; {convert.ADVICE[reason]}.")
    assert left(tmp_path) == ["model.pt"]


def test_conjugates_and_negatives_keep_their_values(tmp_path):
    whole = torch.tensor([1 + 2j, 3 - 4j])
    torch.save({"w": whole.conj(), "n": whole.clone().conj().imag}, tmp_path / "w.pt")
    unpickle.convert(tmp_path / "w.pt", tmp_path / "w.safetensors")
    found = load_file(tmp_path / "w.safetensors")
    assert found["w"].tolist() == [1 - 2j, 3 + 4j] and found["n"].tolist() == [-2, 4]


def test_bytes_of_expanded_tensors_are_counted_before_any_is_written(tmp_path):
    torch.save({"w": torch.ones(1).expand(10**9, 10**6)}, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").stat().st_size < 3000
    with pytest.raises(unpickle.Refused, match=r"take 4,000,000,000,000,000 bytes.* has .* left"):
        unpickle.convert(tmp_path / "w.pt", tmp_path / "new.safetensors")
    assert left(tmp_path) == ["w.pt"]


@pytest.mark.parametrize("legacy", [False, True])
def test_memory_that_runs_out_is_not_called_damage(tmp_path, legacy, monkeypatch):
    torch.save(
        {"w": torch.ones(3 * 10**7)}, tmp_path / "w.pt", _use_new_zipfile_serialization=legacy
    )
    size = (tmp_path / "w.pt").stat().st_size
    script = tmp_path / "little.py"  # the same script with 50 MB more than it has begun with
    script.write_text(
        "import resource, runpy, torch, safetensors.torch\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 50 * 10**6,) * 2)\n"
        f"runpy.run_path({str(convert.SCRIPT)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(convert, "SCRIPT", script)
    with pytest.raises(
        InputFileError, match=rf"not fit in memory: the file has {size:,} bytes; close other"
    ) as refused:
        convert_weights(tmp_path / "w.pt", tmp_path / "new.safetensors")
    assert not isinstance(refused.value, DamagedFileError)
    assert left(tmp_path) == ["little.py", "w.pt"]


def test_places_that_cannot_be_used_are_named(tmp_path):
    file = tmp_path / "w.bin"
    torch.save({"w": torch.ones(2)}, file)
    (tmp_path / "kept.safetensors").write_text("mine")
    with pytest.raises(FileNotFoundError, match=r"none\.bin does not exist"):
        convert_weights(tmp_path / "none.bin", tmp_path / "new.safetensors")
    with pytest.raises(FileExistsError, match="is not overwritten"):
        convert_weights(file, tmp_path / "kept.safetensors")
    with pytest.raises(ValueError, match=r"must end with \.safetensors"):
        convert_weights(file, tmp_path / "new.bin")
    with pytest.raises(FileNotFoundError, match="make it first"):
        convert_weights(file, tmp_path / "no" / "new.safetensors")
    with pytest.raises(ValueError, match="no weights to convert"):
        convert_weights(tmp_path, tmp_path / "new")
    assert (tmp_path / "kept.safetensors").read_text() == "mine"
    assert left(tmp_path) == ["kept.safetensors", "w.bin"]


def test_links_that_lead_outside_are_refused_and_those_of_the_cache_followed(tmp_path):
    folder, blobs = tmp_path / "models" / "snapshots" / "abc", tmp_path / "models" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    torch.save({"w": torch.ones(2)}, blobs / "1")
    (blobs / "1").chmod(0o644)
    (folder / "pytorch_model.bin").symlink_to("../../blobs/1")
    done = convert_weights(folder, tmp_path / "new")
    assert left(done.path) == ["model.safetensors"]
    assert (done.path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    (tmp_path / "link").symlink_to(folder)
    assert left(convert_weights(tmp_path / "link", tmp_path / "linked").path) == left(done.path)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "notes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ValueError, match=r"notes\.txt is a link to .*secret.txt"):
        convert_weights(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_disk_without_space_leaves_nothing(tmp_path):
    torch.save({"w": torch.ones(10**6)}, tmp_path / "w.pt")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written.*free some space"):
            convert_weights(tmp_path / "w.pt", tmp_path / "new.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left(tmp_path) == ["w.pt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_conversion_leaves_nothing(tmp_path, number):
    os.mkfifo(tmp_path / "stop")  # the conversion waits at it until it is interrupted
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    program = (
        "import sys, pathlib, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background: off
        "from diffusion_classifier.cli import main\n"
        "from diffusion_classifier.backends.loading import convert\n"
        "convert.SCRIPT = pathlib.Path(sys.argv.pop())\n"
        "main()\n"
    )
    waiting = tmp_path / "waiting.py"
    waiting.write_text(
        "import os, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[0]).parent\n"
        "(folder / 'id').write_text(str(os.getpid()))\n"
        "(folder / 'stop').read_bytes()\n"
    )
    command = [sys.executable, "-c", program, "convert", "w.pt", "new.safetensors", str(waiting)]
    options = {"stderr": subprocess.DEVNULL, "start_new_session": True}
    options["env"] = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, cwd=tmp_path, **options)
    deadline = time.monotonic() + 60
    id_file = tmp_path / "id"
    while not (id_file.exists() and id_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None and list(tmp_path.glob(".new.safetensors-*"))
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    while is_running(int(id_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(id_file.read_text()))
    assert left(tmp_path) == ["id", "stop", "w.pt", "waiting.py"]


def is_running(number):
    """Whether a process runs: it exists, and has not only been left unread."""
    stat = Path(f"/proc/{number}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_files_that_no_loader_reads_are_left_out(tmp_path):
    (tmp_path / "old" / ".cache" / "hf").mkdir(parents=True)
    torch.save({"w": torch.ones(2)}, tmp_path / "old" / "pytorch_model.bin")
    stray = ["model.bin", "model_ema.bin", "model_optimizer.bin", "optimizer.bin"]
    for name in stray:
        (tmp_path / "old" / name).write_bytes(b"anything")
    done = convert_weights(tmp_path / "old", tmp_path / "new")
    assert done.n_files == 1 and sorted(done.left_out) == [".cache/", *stray]
    assert left(tmp_path / "new") == ["model.safetensors"]
    assert load_file(tmp_path / "new" / "model.safetensors")["w"].tolist() == [1, 1]


def test_variants_and_shards_are_weights(tmp_path):
    (tmp_path / "old").mkdir()
    names = [".fp16", "-00001-of-00002", ".fp16-00001-of-00002", "-00001-of-00002.fp16"]
    for name in names:
        torch.save({"w": torch.ones(2)}, tmp_path / "old" / f"diffusion_pytorch_model{name}.bin")
    assert convert_weights(tmp_path / "old", tmp_path / "new").left_out == []
    assert left(tmp_path / "new") == sorted(
        f"diffusion_pytorch_model{name}.safetensors" for name in names
    )


@pytest.mark.parametrize("name", ["../pytorch_model.bin", "", ".", "sub/pytorch_model.bin", 3])
def test_an_index_that_names_no_file_beside_it_is_damaged(tmp_path, name):
    (tmp_path / "old").mkdir()
    torch.save({"w": torch.ones(2)}, tmp_path / "old" / "pytorch_model.bin")
    index = tmp_path / "old" / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(DamagedFileError, match="missing or does not hold it"):
        convert_weights(tmp_path / "old", tmp_path / "new")
    assert left(tmp_path) == ["old"]


def test_pickles_are_not_copied_whatever_the_case_of_their_suffix(tmp_path):
    (tmp_path / "old").mkdir()
    torch.save({"w": torch.ones(2)}, tmp_path / "old" / "pytorch_model.bin")
    names = ["OLD.CKPT", "a.pth.tar", "w.PT"]
    for name in names:
        (tmp_path / "old" / name).write_bytes(b"anything")
    assert convert_weights(tmp_path / "old", tmp_path / "new").left_out == names
    assert left(tmp_path / "new") == ["model.safetensors"]
