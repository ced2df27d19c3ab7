"""The safetensors format: what the library writes is read to the bit, and a file that breaks the rules is refused."""
import json

import numpy as np
import pytest
import torch
from small_network import small_network

from network import build_network
from network.safe_load import UnsafeFileError, safe_load
from network.weights import load_pretrained, state_dict_of

FLOATS = np.array([[1.5, -2.0, 0.25]], "<f4")


def write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return str(path)


def entry(kind="F32", shape=(1, 3), begin=0, end=12):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}


def test_tensors_come_back_by_name(tmp_path):
    data = FLOATS.tobytes() + np.int64(7).tobytes() + b"\x80\x3f\x40\xc0" + b"\x01\x00"
    header = {"n": entry("I64", (), 12, 20), "empty": entry("F16", (0, 4), 26, 26), "w": entry(),
              "half": entry("BF16", (2,), 20, 24), "yes": entry("BOOL", (2,), 24, 26), "__metadata__": {"format": "pt"}}
    found = safe_load(write(tmp_path / "a.safetensors", header, data))
    assert list(found) == ["state_dict"]
    weights = found["state_dict"]
    assert weights["w"].numpy().tolist() == FLOATS.tolist() and weights["w"].dtype == torch.float32
    assert weights["n"].dtype == torch.int64 and weights["n"].shape == () and weights["n"].item() == 7
    assert weights["half"].dtype == torch.bfloat16 and weights["half"].float().tolist() == [1.0, -3.0]
    assert weights["yes"].tolist() == [True, False] and weights["empty"].shape == (0, 4)
    weights["w"][0, 0] = 3  # a tensor like any other
    assert list(state_dict_of(found)) == list(weights)


@pytest.mark.parametrize("header, data", [
    ({"w": entry(end=8)}, FLOATS.tobytes()),  # fewer bytes than its shape needs
    ({"w": entry()}, FLOATS.tobytes()[:-1]),  # cut off
    ({"w": entry()}, FLOATS.tobytes() + b"x"),  # bytes that belong to nothing
    ({"w": entry(begin=4, end=16)}, b"head" + FLOATS.tobytes()),  # a gap
    ({"w": entry(), "twice": entry()}, FLOATS.tobytes()),  # two tensors in one place
    ({"w": entry(shape=(-1, -3))}, FLOATS.tobytes()), ({"w": entry(shape=(3.0,))}, FLOATS.tobytes()),
    ({"w": entry(shape="3")}, FLOATS.tobytes()), ({"w": entry("F8_E4M3", (12,))}, FLOATS.tobytes()),
    ({"w": entry("object")}, FLOATS.tobytes()), ({"w": 3}, b""), ({"w": [1]}, b""), ({"w": {}}, b""),
    ({"w": None}, b""),
    ({"w": entry(end="12")}, FLOATS.tobytes()), ({"w": entry(shape=(0, 10 ** 30), end=0)}, b""),
    ({"__metadata__": 3}, b""), ({"__metadata__": {"config": "{torn"}}, b""), (b'{"w": ', b""), (b"{" * 9999, b""),
    (b"{\xff}", b"")])
def test_a_file_that_breaks_the_rules_is_refused(header, data, tmp_path):
    path = write(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(UnsafeFileError, match="bad.safetensors"):
        safe_load(path)


def test_a_header_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("network.safetensors_file.MOST_HEADER", 10)
    with pytest.raises(UnsafeFileError, match="its header has"):
        safe_load(write(tmp_path / "long.safetensors", {"w": entry()}, FLOATS.tobytes()))
    with pytest.raises(UnsafeFileError):
        safe_load(write(tmp_path / "longer.safetensors", {"w": entry()}, FLOATS.tobytes(), 2 ** 62))


def test_what_the_library_writes(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    state = {"a": torch.randn(3, 4), "b": torch.randn(5).half(), "c": torch.randn(2, 2).bfloat16(),
             "d": torch.tensor(3), "e": torch.arange(4, dtype=torch.uint8), "f": torch.randn(2, dtype=torch.float64)}
    path = str(tmp_path / "w.safetensors")
    library.save_file(state, path, {"class_names": '["x"]', "config": "{}", "more": "words"})
    found = safe_load(path)
    assert found["class_names"] == ["x"] and found["config"] == {} and "more" not in found
    assert all(torch.equal(found["state_dict"][name], value) for name, value in state.items())


def test_a_network_starts_from_such_a_file(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    with small_network() as name:
        net, other = build_network(name, 3), build_network(name, 4)
        library.save_file(net.state_dict(), str(tmp_path / "w.safetensors"))
        report = load_pretrained(other, tmp_path / "w.safetensors")
    assert set(report.skipped) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(other.conv5[0].conv_m1.conv.weight, net.conv5[0].conv_m1.conv.weight)
