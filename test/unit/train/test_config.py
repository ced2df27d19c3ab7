"""Layers of the configuration, the recipes' table, and what a value may be."""

import dataclasses

import pytest

from train.config import RECIPES, OptionError, TrainConfig, describe_config, resolve_config, steps_from

# The table of the scripts: processes are the launcher's.
TABLE = {"full_1p": (4, 0.001, 90), "full_8p": (16, 0.004, 90), "performance_1p": (4, 0.001, 3),
         "performance_8p": (16, 0.005, 3), "finetune_1p": (4, 0.001, 90)}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_recipes_are_the_table(name):
    config, _ = resolve_config({"recipe": name}, "UCF101", {})
    assert (config.batch_size, config.lr_base, config.end_epoch) == TABLE[name]
    assert (config.pretrained, config.level, config.loss_scale) == (True, "O2", 128.0)
    assert config.distributed == name.endswith("8p")
    assert config.fine_tune == (name == "finetune_1p")
    assert set(RECIPES) == set(TABLE)


def test_fine_tuning_warms_up_and_decays_by_shares_of_the_run():
    config, _ = resolve_config({"recipe": "finetune_1p"}, "UCF101", {})
    assert (config.warmup_steps, config.lr_steps) == ("5%", ("60%", "85%"))
    assert steps_from(config.warmup_steps, 1000) == 50


def test_typed_comes_before_the_data_set_before_the_recipe_before_the_default():
    config, sources = resolve_config({"recipe": "full_1p", "batch_size": 2}, "motion10",
                                     {"batch_size": 16, "pretrained": False, "lr_base": 0.01})
    assert (config.batch_size, config.pretrained, config.lr_base, config.end_epoch) == (2, False, 0.01, 90)
    assert config.weight_decay == 1e-4
    assert [sources[n] for n in ("batch_size", "pretrained", "end_epoch", "weight_decay")] == [
        "typed", "data set motion10", "recipe full_1p", "default"]
    shown = describe_config(config, sources)
    assert "--lr-base" in shown and "data set motion10" in shown and "--weight-decay" not in shown


def test_amp_alone_is_o2_and_a_level_alone_switches_it_on():
    assert resolve_config({"amp": True}, "x", {})[0].level == "O2"
    assert resolve_config({"opt_level": "O1"}, "x", {})[0].level == "O1"
    assert resolve_config({"opt_level": "O0"}, "x", {})[0].level == "O0"
    assert resolve_config({}, "x", {})[0].level == "O0"
    for off in ({"amp": False}, {"opt_level": "O0"}, {"amp": False, "opt_level": "O0"},
                {"amp": True, "opt_level": "O0"}):
        config = resolve_config(dict(off, recipe="full_1p"), "x", {})[0]
        assert (config.level, config.loss_scale) == ("O0", None)


@pytest.mark.parametrize(
    "values, option",
    [({"batch_size": 0}, "--batch-size"), ({"lr_factor": 1.5}, "--lr-factor"), ({"lr_base": 0.0}, "--lr-base"),
     ({"random_seed": -1}, "--random-seed"), ({"random_seed": 2**32}, "--random-seed"), ({"workers": -2}, "--workers"),
     ({"opt_level": "O4", "amp": True}, "--opt-level"), ({"device": "tpu"}, "--device"),
     ({"recipe": "full"}, "--recipe"), ({"amp": False, "opt_level": "O2"}, "--opt-level"),
     ({"loss_scale": 128.0}, "--loss-scale"), ({"amp": True, "loss_scale": -1.0}, "--loss-scale"),
     ({"opt_level": "O0", "loss_scale": 128.0}, "--loss-scale 128.0 without --amp"),
     ({"amp": True, "opt_level": "O0", "loss_scale": "dynamic"}, "--loss-scale dynamic at --opt-level O0"),
     ({"amp": False, "amp_dtype": "bf16"}, "--amp-dtype bf16 without --amp"),
     ({"opt_level": "O0", "amp": True, "amp_dtype": "fp16"}, "--amp-dtype fp16 at --opt-level O0"),
     ({"amp_engine": "apex"}, "--amp-engine apex without --amp"),
     ({"recipe": "full_1p", "amp": False, "amp_engine": "apex"}, "--amp-engine apex without --amp"),
     ({"amp": True, "amp_engine": "apex", "amp_dtype": "bf16"}, "--amp-dtype bf16 contradicts --amp-engine apex"),
     ({"amp": True, "amp_engine": "apex", "amp_dtype": "fp32"}, "--amp-dtype fp32 contradicts --amp-engine apex"),
     ({"amp_engine": "other"}, "--amp-engine"),
     ({"mixup": -0.1}, "--mixup -0.1: takes 0"), ({"cutmix": float("inf")}, "--cutmix inf"),
     ({"mixup": float("nan")}, "--mixup nan"), ({"cutmix": 1.0, "batch_size": 1}, "--cutmix 1.0 .* --batch-size 2"),
     ({"random_erasing": 1.1}, "--random-erasing 1.1"), ({"random_erasing": -0.1}, "--random-erasing -0.1"),
     ({"label_smoothing": 1.0}, "--label-smoothing 1.0"), ({"label_smoothing": float("nan")}, "--label-smoothing nan"),
     ({"task_name": "../x"}, "--task-name"), ({"keep": 0}, "--keep")],
)
def test_a_bad_value_names_the_option(values, option):
    with pytest.raises(OptionError, match=option):
        resolve_config(values, "UCF101", {})


def test_a_run_is_named_for_data_set_network_and_what_is_not_rgb():
    assert TrainConfig().task == "ucf101_resnet50_3d_gcn_x5"
    assert TrainConfig(dataset="HMDB51", network="RESNET50_3D", modality="flow").task == "hmdb51_resnet50_3d_flow"
    assert TrainConfig(task_name="Mine", modality="flow").task == "Mine"


def test_every_field_has_help():
    assert all(row.metadata["help"] for row in dataclasses.fields(TrainConfig))
