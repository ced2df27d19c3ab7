"""Opening what was trained: every kind of file says what it is, or an error names the option that must."""
import json
from collections import OrderedDict

import pytest
import torch
from small_network import small_network

from network import NETWORKS, build_network
from network.safe_load import UnsafeFileError
from network.weights import WeightsError, network_of
from tools import trained as opening
from tools.trained import named, open_trained

SMALL = {"clip_length": 4, "val_frame_interval": 3, "crop_size": 32}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_names_of_the_weights_tell_the_network(name):
    blocks = {"%s.B%02d.conv_m1.bn.bias" % (stage.name, number): 0 for stage in NETWORKS[name].stages
              for number in range(1, stage.blocks + 1)}
    units = {"%s.B%02d_extra.blocker.bias" % (stage.name, number): 0 for stage in NETWORKS[name].stages
             for number in stage.glore_after}
    assert network_of(dict(blocks, **units)) == name
    assert network_of(dict(list(blocks.items())[1:], **units)) is None


@pytest.fixture(scope="module")
def state():
    with small_network() as name:
        torch.manual_seed(0)
        yield build_network(name, 3).state_dict()


@pytest.fixture
def save(tmp_path):
    def write(content, name="w.pth"):
        torch.save(content, str(tmp_path / name))
        return str(tmp_path / name)
    return write


def of_classes(state, count):
    return OrderedDict((name, value.new_zeros((count,) + value.shape[1:]) if name.startswith("classifier") else value)
                       for name, value in state.items())


def test_our_checkpoint_says_everything(state, save):
    config = dict(SMALL, train_frame_interval=2, dataset="motion10", network="RESNET50_3D", eval_batch_size=5)
    path = save({"state_dict": {"module." + name: value for name, value in state.items()}, "config": config,
                 "class_names": ["a", "b", "c"], "schema": 1})
    found = open_trained(path, "cpu")
    assert (found.name, found.num_classes, named(found), found.modality) == ("RESNET50_3D", 3, ["a", "b", "c"], "rgb")
    assert found.geometry == (4, 2, 3, 32, (32, 37), 37) and not found.network.training
    assert all(torch.equal(value, state[name]) for name, value in found.network.state_dict().items())
    assert found.config["eval_batch_size"] == 5 and "4 frames, 3 apart" in found.notes[0]
    typed = open_trained(path, "cpu", geometry={"crop_size": 64}, fallback={"crop_size": 48})
    assert typed.geometry.crop == 64 and typed.geometry.clip_length == 4


def test_averaged_weights_come_before_the_last_ones(state, save):
    average = OrderedDict((name, value + 1) for name, value in state.items())
    found = open_trained(save({"state_dict": state, "ema": {"decay": 0.9, "steps": 3, "weights": average}}), "cpu")
    assert torch.equal(found.network.classifier.bias, state["classifier.bias"] + 1)
    assert any("averaged" in note for note in found.notes)
    assert open_trained(save({"state_dict": state, "ema": None}), "cpu").num_classes == 3


def test_bare_weights_take_the_rest_from_beside_them(state, save, tmp_path):
    path = save(state)
    (tmp_path / "result.json").write_text(json.dumps({"class_names": ["a", "b", "c"], "config": SMALL}))
    found = open_trained(path, "cpu")
    assert named(found) == ["a", "b", "c"] and found.geometry.crop == 32
    (tmp_path / "result.json").write_text(json.dumps({"class_names": ["a", "b", "c"], "dataset": "motion10"}))
    assert open_trained(path, "cpu").geometry[:4] == (8, 2, 2, 32)  # of before the options were written down
    for text in (json.dumps({"class_names": ["a", "b"]}), "{torn", "[]"):  # of other weights, or nothing at all
        (tmp_path / "result.json").write_text(text)
        assert open_trained(path, "cpu").class_names is None


def test_a_named_data_sets_clips_are_taken_with_its_classes(state, save):
    found = open_trained(save(of_classes(state, 10)), "cpu", classes="motion10")
    assert found.geometry[:4] == (8, 2, 2, 32) and named(found)[0] == "Boil" and len(found.notes) == 1
    typed = open_trained(save(of_classes(state, 10)), "cpu", classes="motion10", fallback=SMALL)
    assert typed.geometry.clip_length == 4


@pytest.mark.parametrize("names", [5, "abc", ["a", "b"], ["a", "b", "c", "d"], None])
def test_names_that_do_not_fit_the_classes_name_nothing(names, state, save):
    assert open_trained(save({"state_dict": state, "class_names": names, "config": SMALL}), "cpu").class_names is None


@pytest.mark.parametrize("name, value", [("crop_size", "x"), ("eval_batch_size", [1]), ("split", "two"),
                                         ("dataset", 3), ("data_root", {})])
def test_a_configuration_of_another_kind_is_refused_by_file_and_name(name, value, state, save):
    config = dict(SMALL, **{name: value})
    with pytest.raises(ValueError, match="w.pth: the %s that it was trained with" % name):
        open_trained(save({"state_dict": state, "class_names": ["a", "b", "c"], "config": config}), "cpu")


def test_bare_weights_alone_need_a_word_on_their_classes(state, save, tmp_path):
    found = open_trained(save(state), "cpu", fallback=SMALL)
    assert found.geometry.crop == 32 and found.class_names is None
    with pytest.raises(ValueError, match="--classes FILE.* in label order"):
        named(found)
    with pytest.raises(ValueError, match="--classes FILE.*, or --classes UCF101 if"):
        named(open_trained(save(of_classes(state, 101)), "cpu"))
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    assert named(open_trained(save(state), "cpu", classes=str(tmp_path / "names.txt"))) == ["x", "y", "z"]
    for classes, words in (("UCF101", "101 names"), ("nothing", "neither a file"), ("folder", "0 names")):
        with pytest.raises(ValueError, match=words):
            open_trained(save(state), "cpu", classes=classes)
    assert any("--crop-size" in note for note in open_trained(save(state), "cpu").notes)


def test_four_hundred_classes_are_those_of_kinetics(state, save):
    found = open_trained(save({"state_dict": of_classes(state, 400), "epoch": 0}), "cpu")
    assert named(found)[0] == "abseiling" and found.geometry == (8, 8, 8, 224, (224, 340), 256)
    assert any("Kinetics400" in note for note in found.notes)


def test_counters_of_batches_may_be_missing(state, save):
    old = OrderedDict((name, value) for name, value in state.items() if not name.endswith("num_batches_tracked"))
    assert open_trained(save(old), "cpu").num_classes == 3


@pytest.mark.parametrize("change, words", [
    (lambda state: state.pop("tail.bn.weight"), "tail.bn.weight"),
    (lambda state: state.pop("classifier.weight"), "no network"),
    (lambda state: state.update({"conv1.conv.weight": state["conv1.conv.weight"][:, :, 0]}), "2-D network"),
    (lambda state: state.update({"conv1.conv.weight": state["conv1.conv.weight"][:, :1]}), "1 channels"),
    (lambda state: state.update({"conv3.B03_extra.x": state["tail.bn.weight"]}), "--network"),
    (lambda state: state.update({"more": state["tail.bn.weight"]}), "of no use there"),
    (lambda state: state.update({"tail.bn.weight": torch.ones(3)}), "tail.bn.weight")])
def test_weights_that_fit_no_network_are_refused_by_file_and_name(change, words, state, save):
    wrong = OrderedDict(state)
    change(wrong)
    with pytest.raises(WeightsError, match=words) as stop:
        open_trained(save(wrong), "cpu")
    assert "w.pth" in str(stop.value)


def test_options_that_contradict_the_file(state, save, tmp_path):
    with pytest.raises(WeightsError, match="holds RESNET50_3D: leave --network"):
        open_trained(save(state), "cpu", network="resnet101_3d")
    with pytest.raises(ValueError, match="did you mean"):
        open_trained(save(state), "cpu", network="RESNET50_3")
    with pytest.raises(ValueError, match="--crop-size"):
        open_trained(save(state), "cpu", geometry={"crop_size": 8})
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_trained(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UnsafeFileError, match="text.pth"):
        open_trained(tmp_path / "text.pth")


def test_weights_of_flow(state, save):
    path = save(build_network("RESNET50_3D", 3, channels=2).state_dict())
    found = open_trained(path, "cpu")
    assert found.modality == "flow" and found.network(torch.zeros(1, 2, 2, 32, 32)).shape == (1, 3)


def test_typed_lengths_are_checked():
    options = opening.argparse.Namespace(clip_length=0, val_frame_interval=None, crop_size=None)
    with pytest.raises(ValueError, match="--clip-length 0"):
        opening.geometry_typed(options)
