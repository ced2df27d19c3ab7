"""The command line: the frozen list, flags that mean what they say, old spellings, the nearest name."""

import dataclasses

import pytest

from train.config import OptionError, TrainConfig
from train.options import build_parser, parse_options

# Scripts rely on these names. Extend the list with a new option; never take one away.
FROZEN = """
--accumulate --activation-checkpointing --allow-change --amp --amp-dtype --amp-engine --backend
--bad-video-budget --batch-size --clip-grad-norm --clip-length --crop-size --cuda-graphs --cutmix --data-root --dataset
--describe --deterministic --device --dist-timeout --dist-url --distributed --dry-run --ema-decay --end-epoch
--epoch-div-factor --eval-batch-size --eval-only --execution --fine-tune --keep --label-smoothing --local-rank
--log-file --log-samples --loss-scale --lr-base --lr-factor --lr-steps --max-bad-steps --max-steps --mixup
--modality --model-dir --network --opt-level --precise-bn --pretrained --profile --random-erasing --random-seed
--recipe --resume --save-every --save-frequency --scale-lr --shuffle-window --source --split --strict --sync-bn
--task-name --train-frame-interval --val-frame-interval --warmup-steps --weight-decay --workers --world-size
""".split()


def test_the_list_of_options_is_frozen():
    names = {option for action in build_parser()._actions for option in action.option_strings}
    assert sorted(n for n in names if not n.startswith("--no-") and n not in ("-h", "--help")) == FROZEN
    booleans = [row.name for row in dataclasses.fields(TrainConfig) if isinstance(row.default, bool)]
    assert {n for n in names if n.startswith("--no-")} == {"--no-" + n.replace("_", "-") for n in booleans}


@pytest.mark.parametrize(
    "argv, expected",
    [(["--distributed"], {"distributed": True}), (["--distributed", "yes"], {"distributed": True}),
     (["--distributed", "no"], {"distributed": False}), (["--pretrained"], {"pretrained": True}),
     (["--pretrained", "True"], {"pretrained": True}), (["--pretrained", "False"], {"pretrained": False}),
     (["--pretrained", "a/b.pth"], {"pretrained": "a/b.pth"}), (["--no-precise-bn"], {"precise_bn": False}),
     (["--precise-bn"], {"precise_bn": True}), (["--resume"], {"resume": True}), (["--amp=off"], {"amp": False}),
     (["--amp", "--batch-size", "8"], {"amp": True, "batch_size": 8}), ([], {}),
     (["--lr-steps", "24e4,60%"], {"lr_steps": (240000, "60%")}), (["--lr-steps", ""], {"lr_steps": ()}),
     (["--lr-steps", "[10800000, 15600000]"], {"lr_steps": (10800000, 15600000)}),
     (["--warmup-steps", "5%"], {"warmup_steps": "5%"}), (["--loss-scale", "dynamic"], {"loss_scale": "dynamic"}),
     (["--loss-scale", "128"], {"loss_scale": 128.0}), (["--opt-level", "o2"], {"opt_level": "O2"}),
     (["--device", "CPU"], {"device": "cpu"}), (["--resume", "auto"], {"resume": "auto"}),
     (["--allow-change", "lr-base, train_list"], {"allow_change": ("lr_base", "train_list")})],
)
def test_options_mean_what_they_say(argv, expected):
    assert parse_options(argv) == (expected, [])


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--apex", "yes", "--apex_level", "O2", "--loss_scale", "128.0"],
         {"amp": True, "opt_level": "O2", "loss_scale": 128.0}),
        (["--apex", "--batch_size=3"], {"amp": True, "batch_size": 3}),
        (["--gpus", "0"], {"device": "auto"}),
        (["--resume-epoch", "3"], {"resume": "epoch:3"}),
        (["--resume-epoch=-1"], {}),
        (["--prof"], {"profile": True}),
        (["--resume-epoch", "-1", "--apex", "no"], {"amp": False}),
    ],
)
def test_old_spellings_work_and_name_their_successor(argv, expected):
    typed, notices = parse_options(argv)
    assert typed == expected
    old = [word for word in argv if word.startswith("--")]
    assert len(notices) == len(old)
    for word, notice in zip(old, notices):
        assert notice.startswith(word.split("=")[0] + " is now --")


@pytest.mark.parametrize(
    "argv, hint",
    [(["--batchsize", "3"], "--batch-size"), (["--pretained"], "--pretrained"), (["--zzz"], "--help"),
     (["stray"], "stray"), (["--gpus", "0,1,2"], "NPROC=3"), (["--resume-epoch", "x"], "--resume")],
)
def test_a_wrong_option_gets_a_hint(argv, hint):
    with pytest.raises(OptionError, match=hint):
        parse_options(argv)


@pytest.mark.parametrize(
    "argv",
    [["--batch-size", "many"], ["--amp", "perhaps"], ["--lr-steps", "60,x"], ["--warmup-steps", "120%"],
     ["--device", "tpu"]],
)
def test_a_value_of_the_wrong_kind_ends_with_code_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_options(argv)
    assert stop.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in FROZEN)
    assert "60%,85%" in shown
