"""Files that would run code, lie about their tensors or are broken: refused, and nothing of them happens."""
import collections
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from network import safe_load as module
from network.safe_load import UnsafeFileError, safe_load

FORMATS = {"zip": True, "legacy": False}


@pytest.fixture(params=["torch's restriction", "our restriction"])
def reader(request, monkeypatch):
    """Both second readings: by torch's own weights_only, and by the one that older versions need."""
    if request.param == "our restriction":
        monkeypatch.setattr(module, "_has_weights_only", lambda: False)
    elif not module._has_weights_only():
        pytest.skip("this torch has no weights_only")
    return safe_load


@pytest.fixture(params=sorted(FORMATS))
def save(request, tmp_path):
    def write(obj):
        path = tmp_path / "file.pth"
        torch.save(obj, str(path), _use_new_zipfile_serialization=FORMATS[request.param])
        return path
    return write


class Runs:
    """What it calls when unpickled."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Storage:
    """A tensor's data in a forged file: its key, kind and the number of elements that it claims."""

    def __init__(self, numel, key="0", kind=torch.FloatStorage):
        self.pid = ("storage", kind, key, "cpu", numel)


class Forger(pickle.Pickler):
    suffix = ()

    def persistent_id(self, obj):
        return obj.pid + self.suffix if isinstance(obj, Storage) else None


class LegacyForger(Forger):
    suffix = (None,)


def forged_tensor(storage, offset, size, stride, hooks=()):
    return Runs(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False,
                collections.OrderedDict(hooks))


def forged_pickle(obj, forger=Forger):
    buffer = io.BytesIO()
    forger(buffer, protocol=2).dump(obj)
    return buffer.getvalue()


def write_zip(path, data, records, **options):
    with zipfile.ZipFile(str(path), "w", **options) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", b"3\n")
        for key, content in records:
            archive.writestr("archive/" + key, content)
    return path


def write_legacy(path, data, contents):
    with open(str(path), "wb") as file:
        for part in (0x1950a86a20f9469cfc6c, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
            pickle.dump(part, file, protocol=2)
        file.write(data)
        pickle.dump([key for key, _ in contents], file, protocol=2)
        for _, values in contents:
            file.write(len(values).to_bytes(8, "little") + values.tobytes())
    return path


@pytest.fixture(params=sorted(FORMATS))
def forge(request, tmp_path):
    def write(obj):
        values = np.arange(6, dtype=np.float32)
        forger = Forger if request.param == "zip" else LegacyForger
        data = obj if isinstance(obj, bytes) else forged_pickle(obj, forger)
        if request.param == "zip":
            return write_zip(tmp_path / "forged.pth", data, [("data/0", values.tobytes())])
        return write_legacy(tmp_path / "forged.pth", data, [("0", values)])
    return write


def refusal(path, reader, said):
    with pytest.raises(UnsafeFileError) as caught:
        reader(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return type(one) is type(other) and one.dtype == other.dtype and torch.equal(one.double(), other.double())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_plain_data_comes_back(save, reader):
    base = torch.randn(4, 5)
    obj = {"epoch": 3, "rate": 0.5, "name": "\u00fc", "none": None, "yes": True, "big": 1 << 70,
           "list": [1, (2, [3.5])], "state_dict": torch.nn.Linear(3, 2).state_dict(), "view": base[1:, 2],
           "turned": base.t(), "shared": base, "empty": torch.empty(0, 3), "scalar": torch.tensor(7),
           "parameter": torch.nn.Parameter(torch.ones(2)), "shape": torch.Size([1, 2]), "dtype": torch.float16}
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
                  torch.uint8, torch.bool):
        obj[str(dtype)] = torch.arange(3).to(dtype)
    assert same(obj, reader(save(obj)))


def test_an_optimizer_and_its_network_come_back(save, reader):
    net = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 1), torch.nn.BatchNorm3d(4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(2, 3, 2, 2, 2)).pow(2).sum().backward()
    optimizer.step()
    obj = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    assert same(obj, reader(save(obj)))


@pytest.mark.parametrize("nest", [lambda evil: evil, lambda evil: {"state_dict": {"a": torch.ones(2), "b": evil}},
                                  lambda evil: [torch.ones(2), (evil,)], lambda evil: {"key": {1: [evil]}}])
def test_a_file_that_would_run_code(save, reader, tmp_path, nest):
    marker = tmp_path / "it_ran"
    path = save(nest(Runs(open, str(marker), "w")))
    assert not marker.exists()
    refusal(path, reader, "io.open")
    assert not marker.exists()


def test_a_name_is_not_even_imported(forge, reader, tmp_path, monkeypatch):
    (tmp_path / "imports_me.py").write_text("import pathlib\npathlib.Path(%r).touch()\n" % str(tmp_path / "it_ran"))
    monkeypatch.syspath_prepend(str(tmp_path))
    refusal(forge(b"\x80\x02cimports_me\nanything\n."), reader, "imports_me.anything")
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("function, args, said", [
    (eval, ("1+1",), "eval"), (torch.load, ("x",), "torch"), (getattr, ("a", "upper"), "getattr"),
    (np.zeros, (3,), "numpy"), (torch.manual_seed, (3,), "torch"), (collections.Counter, (), "collections.Counter")])
def test_other_calls_are_named(save, reader, function, args, said):
    refusal(save({"a": Runs(function, *args)}), reader, said)


def test_the_file_may_not_change_what_it_names(forge, reader):
    for name in (b"torch\nFloatStorage", b"torch._utils\n_rebuild_tensor_v2", b"collections\nOrderedDict"):
        data = b"\x80\x02c" + name + b"\nN}X\x09\x00\x00\x00poisoned_K\x01s\x86b."
        refusal(forge(data), reader, "sets the state of a tensor or of a type")
    assert not hasattr(torch.FloatStorage, "poisoned_")
    assert not hasattr(torch._utils._rebuild_tensor_v2, "poisoned_")


def test_the_file_may_not_set_attributes_of_a_dictionary(forge, reader):
    refusal(forge(b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb."), reader, "attributes")


def test_a_forged_tensor_that_is_sound_is_read(forge, reader):
    loaded = reader(forge([forged_tensor(Storage(6), 1, (2, 2), (3, 1)), forged_tensor(Storage(6), 6, (0, 3), (3, 1))]))
    assert loaded[0].tolist() == [[1.0, 2.0], [4.0, 5.0]] and loaded[1].shape == (0, 3)


@pytest.mark.parametrize("offset, size, stride", [
    (0, (7,), (1,)), (1, (6,), (1,)), (0, (2, 2), (5, 2)), (6, (1,), (1,)), (1 << 40, (1,), (1,)),
    (0, (2,), (1 << 62,)), (0, (1 << 40,), (0,)), (5, (2,), (-1,)), (-1, (2,), (1,)), (0, (-1, -3), (1, 1)),
    (0, (2, 2), (1,)), (0, (2.0,), (1,)), (0, [2], [1]), (True, (2,), (1,)), (0, (1 << 63, 1 << 63), (0, 0))])
def test_a_tensor_beyond_its_data(forge, reader, offset, size, stride):
    refusal(forge({"a": forged_tensor(Storage(6), offset, size, stride)}), reader, "it holds a tensor")


@pytest.mark.parametrize("claimed", [5, 7, 1 << 40])
def test_data_of_another_size_than_it_says(forge, reader, claimed):
    refusal(forge(forged_tensor(Storage(claimed), 0, (2,), (1,))), reader, "not of the size it says")


def test_data_too_large_to_be_there(reader, tmp_path):
    for numel in (1 << 20, 1 << 40, 1 << 60):
        path = write_legacy(tmp_path / "huge.pth", forged_pickle(
            forged_tensor(Storage(numel), 0, (2,), (1,)), LegacyForger), [("0", np.ones(6, np.float32))])
        content = path.read_bytes()
        path.write_bytes(content[:-32] + numel.to_bytes(8, "little") + content[-24:])
        refusal(path, reader, "a tensor's data is missing")


def test_data_described_in_two_ways(forge, reader):
    for other in (Storage(12, kind=torch.HalfStorage), Storage(3), Storage(3, kind=torch.DoubleStorage)):
        tensors = [forged_tensor(Storage(6), 0, (2,), (1,)), forged_tensor(other, 0, (2,), (1,))]
        refusal(forge(tensors), reader, "the same data in two ways")


def test_tensors_with_hooks_or_of_other_data(forge, reader):
    refusal(forge(forged_tensor(Storage(6), 0, (2,), (1,), hooks=[(1, "a")])), reader, "hooks")
    refusal(forge(forged_tensor("storage", 0, (2,), (1,))), reader, "foreign kind")
    parameter = Runs(torch._utils._rebuild_parameter, "data", True, collections.OrderedDict())
    refusal(forge(parameter), reader, "foreign kind")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
def test_a_file_cut_off(save, reader, share):
    path = save({"a": torch.randn(50, 40), "b": torch.randn(30)})
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    refusal(path, reader, "cannot be read")


@pytest.mark.parametrize("content", [
    b"\n", b"hello, world\n" * 100, b"\x00" * 2000, bytes(range(256)) * 8, b"PK\x03\x04" + b"\x00" * 500,
    b"<!DOCTYPE html><html></html>", pickle.dumps([1, 2, 3], protocol=2), b"\x80\x02" + b"(" * 5000,
    b"\x80\x04\x95" + b"\xff" * 8])
def test_garbage(reader, tmp_path, content):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    refusal(path, reader, "")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_load_or_are_refused(save, reader, seed):
    path = save({"a": torch.arange(6.0), "b": [1, "x", (2.5, None)], "c": torch.nn.Parameter(torch.ones(3))})
    content = path.read_bytes()
    rng = np.random.RandomState(seed)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.randint(0, len(damaged), rng.randint(1, 4)):
            damaged[place] = rng.randint(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            reader(path)
        except UnsafeFileError:
            refused += 1
    assert refused > 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program(reader, tmp_path):
    path = tmp_path / "program.pt"
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(path))
    refusal(path, reader, "TorchScript program")


def test_the_oldest_format(reader, tmp_path):
    path, marker = tmp_path / "old.tar", tmp_path / "it_ran"
    with tarfile.open(str(path), "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            content = pickle.dumps(Runs(open, str(marker), "w"), protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    refusal(path, reader, "tar archive")
    assert not marker.exists()


def test_other_archives(reader, tmp_path):
    np.savez(str(tmp_path / "arrays.npz"), a=np.ones(3))
    refusal(tmp_path / "arrays.npz", reader, "archive of another kind")
    data = forged_pickle(forged_tensor(Storage(6), 0, (2,), (1,)))
    content = np.arange(6, dtype=np.float32).tobytes()
    path = write_zip(tmp_path / "packed.pth", data, [("data/0", content)], compression=zipfile.ZIP_DEFLATED)
    refusal(path, reader, "compressed or not unique")
    refusal(write_zip(tmp_path / "absent.pth", data, []), reader, "cannot be read")
    path = write_zip(tmp_path / "cases.pth", data, [("data/0", content), ("DATA/0", b"")])
    refusal(path, reader, "compressed or not unique")
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write_zip(tmp_path / "twice.pth", data, [("data/0", content), ("data/0", content)])
    refusal(path, reader, "compressed or not unique")


def test_a_missing_file_is_the_systems_error(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        reader(tmp_path / "absent.pth")
