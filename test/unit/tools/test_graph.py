"""tools.graph: the maps are the unit's own, at the right place and time; the ranking is the formula; files, words."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import CLASSES, write_video
from film_numbers import decode_all, write_frames
from small_network import small_network
from torch import nn

from data.clip_readers import UnreadableClip
from data.modalities import MODALITIES
from network import NETWORKS, build_network
from network.execution import set_execution
from network.glore import GloReUnit
from tools import graph, graph_film, graph_picture
from tools.graph_overlay import Lens, as_picture, coloured, linear, pixels_of, stride_between
from tools.graph_sight import Sight, UnitWatch, among, arriving, changed, given_back, top_nodes, units_of, variation
from tools.trained import open_trained

NAME = "RESNET50_3D_GCN_X5"
GEOMETRY = {"clip_length": 4, "val_frame_interval": 3, "crop_size": 32}


@pytest.fixture(scope="module", autouse=True)
def small_glore_network():
    """RESNET50_3D_GCN_X5 with one narrow block a stage and a unit in conv3 and in conv4."""
    spec = NETWORKS[NAME]
    stages = tuple(stage._replace(blocks=1, mid=4 + number, out=8 * (number + 1), temporal=(1,),
                                  glore_after=(1,) if stage.glore_after else ())
                   for number, stage in enumerate(spec.stages))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, NAME, spec._replace(stages=stages))
        yield


def saved(path, network):
    torch.save({"state_dict": network.state_dict(), "class_names": list(CLASSES), "config": GEOMETRY}, str(path))
    return str(path)


def awake(network):
    """The network with units that add something and BatchNorm statistics of what it sees."""
    torch.manual_seed(0)
    for unit in units_of(network).values():
        nn.init.uniform_(unit.blocker.weight, 0.5, 1)
    for _ in range(3):
        network(torch.randn(4, network.channels, 4, 32, 32))
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("weights") / "w.pth", awake(build_network(NAME, 3)))


def looked(*words, code=0):
    assert graph.main([*words, "--device", "cpu"]) == code


def brightness_network(network):
    """Every feature becomes a blur of how bright the clip is around its position, and so does each node's map."""
    for part in network.modules():
        if isinstance(part, nn.Conv3d):
            nn.init.constant_(part.weight, 1 / part.weight[0].numel())
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    nn.init.constant_(network.conv1.bn.bias, 10)  # so that no ReLU cuts anything off
    for unit in units_of(network).values():
        unit.conv_proj.weight.data[1] *= -1  # of one node the opposite
    return network.eval()


def test_a_watched_unit_tells_what_it_computed():
    torch.manual_seed(3)
    unit = GloReUnit(6, 3).eval()
    nn.init.uniform_(unit.blocker.weight, 0.5, 1)
    nn.init.normal_(unit.blocker.bias)
    unit.blocker.running_mean.normal_()
    unit.blocker.running_var.uniform_(0.5, 2)
    theta = np.array([[1, 0, 0, 0, 0, 0], [0, -2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], float)
    unit.conv_proj.weight.data.copy_(torch.from_numpy(theta).view(3, 6, 1, 1, 1))
    unit.conv_proj.bias.data.copy_(torch.tensor([0, 0, 0.5]))
    x = torch.zeros(2, 6, 2, 3, 4)
    x[0, 0, 1, 2, 0], x[0, 1, 0, 0, 3] = 5, 7
    x[1].normal_()
    watch = UnitWatch("u", unit)
    with torch.no_grad():
        out = unit(x)
    first, second = watch.sights()
    assert np.argwhere(first.maps[0]).tolist() == [[1, 2, 0]] and first.maps[0, 1, 2, 0] == 5
    assert np.argwhere(first.maps[1]).tolist() == [[0, 0, 3]] and first.maps[1, 0, 0, 3] == -14
    assert (first.maps[2] == 0.5).all()
    for clip, sight in enumerate((first, second)):
        flat = x[clip].flatten(1).double().numpy()
        maps = theta @ flat + np.array([[0], [0], [0.5]])
        states = unit.conv_state.weight.detach().double().numpy().reshape(6, 6) @ flat
        states = maps @ (states + unit.conv_state.bias.detach().double().numpy()[:, None]).T
        spread = unit.gcn.conv1.weight.detach().double().numpy()[:, :, 0]
        assert np.allclose(sight.states, states, atol=1e-5) and np.allclose(sight.relations, spread)
        assert np.allclose(sight.told, spread @ states + unit.gcn.conv1.bias.detach().numpy()[:, None], atol=1e-4)
        # The unit adds one product a node, and an offset that is the same at every position.
        added = (out - x)[clip].flatten(1).double().numpy()
        parts = np.einsum("vc,vl->vcl", sight.answers, sight.maps.reshape(3, -1))
        offset = added - parts.sum(0)
        assert np.allclose(offset, offset[:, :1], atol=1e-4)
        assert np.allclose(given_back(sight), np.sqrt((parts ** 2).sum((1, 2))), rtol=1e-5)
        assert sight.adds == pytest.approx(np.linalg.norm(added) / np.linalg.norm(flat), rel=1e-5)
    watch.stop()
    assert not unit._forward_hooks and not unit.gcn._forward_hooks


def a_sight(**changed_fields):
    """Three nodes, 1 x 1 x 2 positions, two states and channels."""
    fields = dict(unit="u", maps=np.array([[3., 4], [2, 2], [-6, -8]]).reshape(3, 1, 1, 2),
                  states=np.array([[3., 4], [0, 2], [1, 0]]), told=np.array([[0., 5], [0, 1], [3, 4]]),
                  answers=np.array([[0., 2], [0, 0], [1, 0]]),
                  relations=np.array([[9., 1, -2], [0.5, 9, 0], [-1, 3, 9]]), adds=0.5)
    return Sight(**{**fields, **changed_fields})


def test_the_ranking_and_the_figures_of_a_node():
    sight = a_sight()
    assert given_back(sight) == pytest.approx([10, 0, 10])
    assert top_nodes(sight, 2) == [0, 2] and top_nodes(sight, 9) == [0, 2, 1]
    assert top_nodes(a_sight(answers=np.array([[0., 1.9], [0, 9], [1, 0]])), 3) == [1, 2, 0]
    assert variation(sight) == pytest.approx([0.02, 0, 0.02])
    assert arriving(sight) == pytest.approx(np.array([[45, 2, -2], [2.5, 18, 0], [-5, 6, 9]]))
    assert among(sight, [0, 2]) == pytest.approx(7 / 15) and among(sight, [0, 1, 2]) == 1
    assert changed(sight) == pytest.approx([1, 0.5, 5])


def test_a_maps_position_lies_where_the_network_looks():
    """The middle of what a position is computed from, by the gradient of a network that only adds up."""
    network = brightness_network(build_network(NAME, 3))
    network.conv1.max_pool = nn.AvgPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
    for name, unit in units_of(network).items():
        clip = torch.ones(1, 3, 18, 96, 112, requires_grad=True)
        watched = []
        hook = unit.conv_proj.register_forward_hook(lambda part, inputs, output: watched.append(output))  # noqa: B023
        network(clip)
        hook.remove()
        frames, height, width = watched[0].shape[2:]
        time, row, column = 5, height // 2, width // 2 - 1
        watched[0][0, 0, time, row, column].backward()
        share = clip.grad[0].abs().sum(0)
        for axis, (place, full, size) in enumerate(((time, 18, frames), (row, 96, height), (column, 112, width))):
            line = share.sum([other for other in range(3) if other != axis]).double()
            middle = float((line * torch.arange(len(line)).double()).sum() / line.sum())
            assert middle == pytest.approx(place * stride_between(full, size), abs=0.02), (name, axis)


def test_strides_and_reading_between_positions():
    assert [stride_between(*sizes) for sizes in ((224, 28), (224, 14), (33, 5), (8, 4), (4, 2), (1, 1), (3, 3))] == [
        8, 16, 8, 2, 2, 1, 1]
    assert linear(np.array([-2, 0, 0.25, 1, 5]), 2).tolist() == [[1, 0], [1, 0], [0.75, 0.25], [0, 1], [0, 1]]
    lens = Lens((2, 2), 32, np.array([0., 8, 16, 31, 32]), np.array([-1., 0, 4]))
    assert lens.read(np.array([[0., 4], [8, 12]])).tolist() == [[0, 0, 1], [0, 4, 5], [0, 8, 9], [0, 8, 9], [0, 0, 0]]
    assert pixels_of(4, 2).tolist() == [-0.25, 0.25, 0.75, 1.25] and pixels_of(2, 4).tolist() == [0.5, 2.5]


def test_colours_of_weights_and_of_flow():
    picture = np.full((1, 3, 3), 100, np.uint8)
    red, none, blue = coloured(picture, np.array([[1, 0, -2.]]))[0].astype(int)
    assert none.tolist() == [100] * 3 and red[0] > 180 > 60 > red[2] and blue[2] > 160 > 30 > blue[0]
    assert as_picture(picture) is picture
    flow = as_picture(np.array([[[128, 128], [228, 128], [28, 128]]], np.uint8))
    assert flow.shape == (1, 3, 3) and flow[0, 0].max() == 0
    assert flow[0, 1].argmax() == 0 and flow[0, 2].argmin() == 0  # to the right red, to the left its opposite


def test_frames_lie_between_those_of_the_clip():
    assert graph_film.clip_places([0, 3, 4, 6, 9], [3, 5, 7]).tolist() == [0, 0, 0.5, 1.5, 2]
    assert graph_film.clip_places(range(4), [0, 1, 2, 0, 1]).tolist() == [0, 1, 2, 2]
    assert graph_film.clip_places([0], [0, 0, 0]).tolist() == [0]
    assert graph_film.tile_size((90, 160, 3)) == (426, 240) and graph_film.tile_size((1, 999, 3)) == (960, 240)
    assert graph_picture.shown_times(4) == [0, 1, 2, 3] and graph_picture.shown_times(16) == [0, 3, 6, 9, 12, 15]


def test_the_maps_of_a_film_are_at_the_right_place_and_time(tmp_path):
    """A spot of light at one time and place; the maps of a network that sees how bright it is peak there."""
    path = saved(tmp_path / "w.pth", brightness_network(build_network(NAME, 3)))
    frames = np.zeros((24, 96, 160, 3), np.uint8)
    frames[14, 56:64, 96:104] = 255  # y 60, x 100: in the clip of 64 x 64 cut out of 73 x 121
    write_frames(tmp_path / "film", frames)
    looked(path, str(tmp_path / "film"), "--output", str(tmp_path / "out"), "--crop-size", "64", "--clip-length", "8",
           "--val-frame-interval", "2", "--unit", "conv3.B01", "--top-nodes", "5", "--start", "0.08", "--json",
           str(tmp_path / "n.json"), "--film")
    found, = json.loads((tmp_path / "n.json").read_text())
    assert found["frames"] == list(range(2, 18, 2)) and found["seconds"][0] == 0.08
    unit, = found["units"]
    assert unit["map_shape"] == [4, 8, 8] and unit["nodes"] == 5
    x, y = (100 + 0.5) * 121 / 160 - 0.5 - 28, (60 + 0.5) * 73 / 96 - 0.5 - 4
    for row in unit["top"]:
        weights = np.array(row["map"])
        weights = (weights - np.median(weights)) * (-1 if row["node"] == 1 else 1)
        assert np.unravel_index(weights.argmax(), weights.shape) == (3, round(y / 8), round(x / 8)), row["node"]
    film = decode_all(tmp_path / "out" / "film_conv3.B01_extra.mp4")
    assert len(film) == 24 and film[0].shape == (2 * 240, 3 * 400, 3)
    picture = film[14].astype(int)
    spot = picture[150 - 7:150 + 7, 250 - 7:250 + 7]
    assert spot.min() > 150  # the film itself, above on the left
    for column, row in ((1, 0), (2, 0), (0, 1), (1, 1), (2, 1)):
        tile = picture[row * 240:(row + 1) * 240, column * 400:(column + 1) * 400]
        assert tile[60:, :40].max() < 60  # not seen by the network: dark


def test_pictures_films_and_numbers(checkpoint, tmp_path, capsys):
    films = tmp_path / "films"
    films.mkdir()
    write_video(films / "a$1$.avi", 1, frames=24)
    (films / "bad.avi").write_bytes(bytes(3000))
    write_video(films / "c.avi", 2, frames=5)
    for _ in range(2):
        looked(checkpoint, str(films), "--output", str(tmp_path / "out"), "--top-nodes", "2", "--unit",
               "conv4.B01_extra", "--film", "--json", str(tmp_path / "out" / "n.json"))
    said = capsys.readouterr()
    assert "bad.avi  error: not a video file" in said.out and "1 of 3 videos cannot be looked at" in said.err
    assert "execution reference" in said.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["n.json"] + ["%s_conv4.B01_extra.%s" % (stem, ending) for stem in ("a$1$", "a$1$-2", "c", "c-2")
                      for ending in ("png", "mp4")])
    first, bad, short = json.loads((tmp_path / "out" / "n.json").read_text())
    assert sorted(bad) == ["error", "path"] and short["frames"] == [0, 1, 2, 3]
    unit, = first["units"]
    assert unit["unit"] == "conv4.B01_extra" and unit["states"] == 12 and unit["map_shape"] == [2, 2, 2]
    assert len(unit["top"]) == 2 and unit["top"][0]["gives_back"] >= unit["top"][1]["gives_back"] > 0
    assert np.shape(unit["relations"]["weight"]) == (2, 2) and len(unit["top"][0]["hears"]) == 5
    picture = cv2.imread(str(tmp_path / "out" / "a$1$_conv4.B01_extra.png"))
    assert picture.shape[0] > 900 and picture.shape[1] > 800 and len(np.unique(picture)) > 200
    film = decode_all(tmp_path / "out" / "c_conv4.B01_extra.mp4")
    assert len(film) == 5 and film[0].shape == (480, 480, 3)


def test_the_same_maps_whatever_the_network_did_before(checkpoint, tmp_path):
    clips = [np.random.RandomState(seed).randint(0, 255, (4, 32, 32, 3)).astype(np.uint8) for seed in range(3)]
    trained = open_trained(checkpoint, "cpu")
    set_execution(trained.network, "auto")
    seer = graph.Seer(trained, units_of(trained.network), torch.device("cpu"), 3)
    together = seer.look(clips)
    assert all(part.folded is None for part in trained.network.modules() if hasattr(part, "folded"))
    for clip, (answer, sights) in zip(clips, together):
        (alone, own), = seer.look([clip])
        assert alone == pytest.approx(answer, abs=1e-6)
        for name, sight in sights.items():
            assert np.allclose(own[name].maps, sight.maps, atol=1e-4 * np.abs(sight.maps).max())


def test_optical_flow_is_looked_at(tmp_path):
    network = awake(build_network(NAME, 3, channels=MODALITIES["flow"].channels))
    (tmp_path / "film").mkdir()
    for number in range(1, 13):
        for axis in "xy":
            level = np.full((48, 64), 128 + number, np.uint8)
            cv2.imwrite(str(tmp_path / "film" / ("flow_%s_%05d.jpg" % (axis, number))), level)
    looked(saved(tmp_path / "w.pth", network), str(tmp_path / "film"), "--output", str(tmp_path / "out"), "--unit",
           "conv3.B01", "--top-nodes", "1", "--film")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_unit_that_adds_nothing_says_so(tmp_path):
    sight = a_sight(adds=0.0, answers=np.zeros((3, 2)))
    assert "adds nothing" in graph_picture.summary(sight, [0, 1])
    assert top_nodes(sight, 2) == [0, 1]
    scene = graph_picture.Scene("$ \udc80 $", np.zeros((2, 8, 8, 3), np.uint8), [0, 1])
    assert graph_picture.draw_picture(scene, sight, [0]).startswith(b"\x89PNG")


@pytest.mark.parametrize("words, said", [
    (["{w}", "{a}", "--top-nodes", "0"], "--top-nodes 0: takes 1 to 12"), (["{w}", "{a}", "--top-nodes", "13"], "13"),
    (["{w}", "{a}", "--unit", "conv5.B01"], "conv3.B01_extra, conv4.B01_extra"),
    (["{w}", "{a}", "--start", "-1"], "--start -1"), (["{w}", "{a}", "--start", "9"], "the last one is at 0.40 s"),
    (["{w}", "{a}", "--fps", "nan"], "--fps nan"), (["{w}", "{a}", "--batch-size", "-1"], "--batch-size -1"),
    (["{w}", "{a}", "--json", "/no/n.json"], "--json"), (["{w}", "none.avi"], "none.avi"),
    (["{w}", "{a}", "--output", "{w}"], "--output"), (["none.pth", "{a}"], "none.pth"),
    (["{plain}", "{a}"], "RESNET50_3D, which has no GloRe unit to look at: give a checkpoint of")])
def test_what_the_user_can_mend_ends_with_code_2_and_a_word(words, said, checkpoint, tmp_path, capsys):
    write_video(tmp_path / "a.avi", 1)
    if "{plain}" in words:
        with small_network():
            plain = saved(tmp_path / "plain.pth", build_network("RESNET50_3D", 3))
            looked(plain, str(tmp_path / "a.avi"), "--output", str(tmp_path / "out"), code=2)
    else:
        words = [word.format(w=checkpoint, a=tmp_path / "a.avi") for word in words]
        looked(*words, *([] if "--output" in words else ["--output", str(tmp_path / "out")]), code=2)
    printed = capsys.readouterr()
    assert said in printed.err + printed.out


def test_a_film_that_fails_leaves_nothing(tmp_path, monkeypatch, checkpoint):
    write_video(tmp_path / "a.avi", 1)

    def broken(self, frame, place, sight):
        raise UnreadableClip("a.avi", "planted")
    monkeypatch.setattr(graph_film._Film, "add", broken)
    looked(checkpoint, str(tmp_path / "a.avi"), "--output", str(tmp_path / "out"), "--unit", "conv3.B01", "--film")
    assert [Path(path).suffix for path in (tmp_path / "out").iterdir()] == [".png"]
