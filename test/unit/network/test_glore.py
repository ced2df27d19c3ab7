"""GloRe units against the golden files, and their precision under autocast and with half weights."""
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from features import needs_half

from network.glore import GloReUnit

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import formula  # noqa: E402

SHAPES = {1: (2, 32, 20), 2: (2, 32, 9, 7), 3: (2, 32, 4, 7, 6)}
DTYPES = {"f32": torch.float32, "f64": torch.float64}


@pytest.fixture(scope="module")
def golden():
    with np.load(str(GOLDEN / "c_glore.npz")) as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_unit_meets_the_golden_numbers(golden, dimension, normalize, precision, mode):
    prefix = "GloRe_Unit_%dD_norm%d_%s_%s_" % (dimension, normalize, precision, mode)
    unit = formula.load_det(GloReUnit(32, 16, dimension, normalize), DTYPES[precision]).train(mode == "train")
    x = torch.from_numpy(formula.det_input(SHAPES[dimension], "glore_input_%dd" % dimension)).to(DTYPES[precision])
    x.requires_grad_(True)
    out = unit(x)
    relative = 1e-9 if precision == "f64" else 5e-6
    np.testing.assert_allclose(out.detach().numpy(), golden[prefix + "out"], rtol=relative, atol=relative)
    if precision == "f32":
        return
    weight = torch.from_numpy(formula.det_rng("glore_w").standard_normal(tuple(out.shape)))
    (out * weight).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), golden[prefix + "dx"], rtol=1e-6, atol=1e-9)
    for name, parameter in unit.named_parameters():
        expected = float(golden[prefix + "dp_" + name])
        if expected > 1e-9:
            assert parameter.grad.norm().item() == pytest.approx(expected, rel=1e-6), name


def test_golden_units_do_something(golden):
    for dimension, shape in SHAPES.items():
        x = formula.det_input(shape, "glore_input_%dd" % dimension)
        assert np.abs(golden["GloRe_Unit_%dD_norm0_f64_train_out" % dimension] - x).max() > 0.05


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_fresh_unit_is_the_identity(dimension):
    x = torch.randn(SHAPES[dimension])
    assert torch.equal(GloReUnit(32, 16, dimension)(x), x)


def test_another_dimension_is_refused():
    with pytest.raises(ValueError, match="dimension must be 1, 2 or 3, not 4"):
        GloReUnit(8, 4, dimension=4)


def _computes_in_float16():
    half = torch.float16
    try:
        F.conv3d(torch.ones(1, 2, 1, 2, 2, dtype=half), torch.ones(2, 2, 1, 1, 1, dtype=half))
    except RuntimeError:
        return False
    return True


def _weights_of_size_one(unit):
    generator = torch.Generator().manual_seed(5)
    for parameter in unit.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    unit.blocker.running_var.fill_(1e12)
    return unit


def _watch(unit, x):
    """The unit's output and what passes between its layers: layer -> (input, output)."""
    seen = {}
    layers = {"state": unit.conv_state, "proj": unit.conv_proj, "gcn": unit.gcn, "extend": unit.conv_extend,
              "blocker": unit.blocker}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, inputs, out, name=name: seen.update({name: (inputs[0], out)}))
    with torch.no_grad():
        return unit(x), seen


def _after_the_projections(unit, state, proj):
    """The paper's formulas in float64 on the matrices state (N, S, L) and proj (N, V, L): nodes, blocker's output."""
    weight = {key: value.detach().double().flatten(1) for key, value in unit.named_parameters() if value.dim() > 1}
    bias = {key: value.detach().double() for key, value in unit.named_parameters() if value.dim() == 1}
    nodes = torch.einsum("nsl,nvl->nsv", state, proj)
    spread = torch.einsum("wv,nsv->nsw", weight["gcn.conv1.weight"], nodes) + bias["gcn.conv1.bias"]
    states = torch.einsum("rs,nsv->nrv", weight["gcn.conv2.weight"], torch.relu(spread + nodes))
    back = torch.einsum("nsv,nvl->nsl", states, proj)
    extended = torch.einsum("cs,nsl->ncl", weight["conv_extend.weight"], back)
    scale = bias["blocker.weight"] / torch.sqrt(unit.blocker.running_var.double() + 1e-4)
    shift = bias["blocker.bias"] - scale * unit.blocker.running_mean.double()
    return nodes, extended * scale[:, None] + shift[:, None]


def _assert_full_precision(unit, x, half):
    out, seen = _watch(unit, x)
    assert out.dtype == x.dtype
    state, proj = seen["state"][1], seen["proj"][1]
    assert state.dtype == proj.dtype == half
    nodes, reasoned = _after_the_projections(unit, state.double().flatten(2), proj.double().flatten(2))
    own_nodes, own_reasoned = seen["gcn"][0], seen["blocker"][1]
    for tensor in seen["gcn"] + seen["extend"] + seen["blocker"]:
        assert tensor.dtype == torch.float32
    node_error = (own_nodes.double() - nodes).abs().max() / nodes.abs().max()
    rounding = (nodes.to(half).double() - nodes).abs().max() / nodes.abs().max()
    assert node_error < 1e-5 < 1e-4 < rounding
    own_reasoned = own_reasoned.double().flatten(2)
    assert ((own_reasoned - reasoned).abs().max() / reasoned.abs().max()) < 1e-5
    expected = (x.double().flatten(2) + reasoned).reshape(x.shape)
    step = torch.finfo(x.dtype).eps if x.dtype == half else 1e-5
    assert ((out.double() - expected).abs() <= step * (x.double().abs() + expected.abs() + 1e-3)).all()


@needs_half
def test_nodes_are_single_precision_under_autocast():
    unit = _weights_of_size_one(GloReUnit(16, 8)).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _assert_full_precision(unit, torch.randn(2, 16, 8, 14, 14), torch.bfloat16)


@needs_half
def test_half_input_under_autocast_keeps_its_type():
    unit = _weights_of_size_one(GloReUnit(16, 8)).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _assert_full_precision(unit, torch.randn(2, 16, 8, 14, 14).bfloat16(), torch.bfloat16)


@needs_half
@pytest.mark.parametrize("dimension, shape", [(1, (2, 16, 500)), (2, (2, 16, 20, 20)), (3, (2, 16, 8, 14, 14))])
@pytest.mark.parametrize("norms", [torch.bfloat16, torch.float32])
def test_nodes_are_single_precision_with_half_weights(dimension, shape, norms):
    unit = _weights_of_size_one(GloReUnit(16, 8, dimension)).eval().bfloat16()
    unit.blocker.to(norms)
    _assert_full_precision(unit, torch.randn(shape).bfloat16(), torch.bfloat16)


@pytest.mark.skipif(not _computes_in_float16(), reason="no float16 convolution on this CPU")
def test_sums_beyond_the_range_of_float16_stay_finite():
    unit = _weights_of_size_one(GloReUnit(16, 8)).eval()
    x = 40 * torch.rand(1, 16, 8, 14, 14)
    nodes = _watch(unit, x)[1]["gcn"][0]
    assert nodes.abs().max() > 2 * torch.finfo(torch.float16).max
    assert torch.isfinite(unit.half()(x.half())).all()


@needs_half
def test_half_weights_learn_through_the_promotion():
    unit = _weights_of_size_one(GloReUnit(16, 8)).bfloat16().train()
    before = unit.blocker.running_mean.clone()
    unit(torch.randn(2, 16, 4, 7, 7).bfloat16()).float().pow(2).sum().backward()
    for name, parameter in unit.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.bfloat16, name
        assert torch.isfinite(parameter.grad).all(), name
    assert unit.conv_extend.weight.grad.abs().max() > 0 and unit.gcn.conv1.weight.grad.abs().max() > 0
    assert unit.blocker.num_batches_tracked.item() == 1 and not torch.equal(unit.blocker.running_mean, before)
