"""One frozen, documented configuration of a training run, and the layers it is made of.

Every field is an option of the command line, with default, help and unit; train/options.py makes the parser from it. A
value is, in this order, what was typed, the data set's own default, the recipe's, or the field's.
"""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple, Union

OPT_LEVELS = ("O0", "O1", "O2", "O3")
AMP_DTYPES = ("auto", "fp16", "bf16", "fp32")
AMP_ENGINES = ("native", "apex")
BACKENDS = ("auto", "hccl", "nccl", "gloo")
EXECUTIONS = ("auto", "reference", "folded", "compiled")
DEVICES = ("auto", "npu", "cuda", "cpu")
SOURCES = ("auto", "video", "rawframes", "packed")
MODALITIES = ("rgb", "flow")

_FROM_PRETRAINED = dict(pretrained=True, amp=True, opt_level="O2", loss_scale=128.0)
# The table of the scripts under test/: one row a script. Percentages are shares of the run's optimizer steps.
RECIPES: Dict[str, Dict[str, Any]] = {
    "full_1p": dict(_FROM_PRETRAINED, batch_size=4, lr_base=0.001, end_epoch=90),
    "full_8p": dict(_FROM_PRETRAINED, batch_size=16, lr_base=0.004, end_epoch=90, distributed=True),
    "performance_1p": dict(_FROM_PRETRAINED, batch_size=4, lr_base=0.001, end_epoch=3),
    "performance_8p": dict(_FROM_PRETRAINED, batch_size=16, lr_base=0.005, end_epoch=3, distributed=True),
    "finetune_1p": dict(_FROM_PRETRAINED, batch_size=4, lr_base=0.001, end_epoch=90, fine_tune=True,
                        warmup_steps="5%", lr_steps=("60%", "85%")),
}
PROCESSES = {"full_8p": 8, "performance_8p": 8}  # of a recipe, where it is not one


class OptionError(ValueError):
    """A value that an option does not accept; the message names the option and what it takes."""


def _option(default: Any, text: str, choices: Optional[Tuple[str, ...]] = None, metavar: Optional[str] = None) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices, "metavar": metavar})


@dataclass(frozen=True)
class TrainConfig:
    """What a run is. Field `lr_base` is option `--lr-base`, and so on."""

    # the network
    network: str = _option("RESNET50_3D_GCN_X5",
                           "name of the network (RESNET50_3D_GCN_X5, RESNET101_3D_GCN_X5, RESNET50_3D, RESNET101_3D)",
                           metavar="NAME")
    pretrained: Union[bool, str] = _option(False, "start from the network's pretrained file, or from the file given",
                                           metavar="PATH")
    fine_tune: bool = _option(False, "full learning rate for the classifier, half of it for everything else")
    resume: Union[bool, str] = _option(False, "go on from the newest checkpoint of this task, or from the file given; "
                                       "auto starts anew where there is none", metavar="PATH")
    allow_change: Tuple[str, ...] = _option((), "go on with --resume although these have changed: names as the refusal "
                                            "gives them, with commas between", metavar="NAMES")
    # the data
    dataset: str = _option("UCF101", "data set: UCF101, HMDB51, Kinetics400, motion10 and relations (built in) or "
                           "folder (your own)", metavar="NAME")
    data_root: Optional[str] = _option(None, "folder of the data set (default: dataset/NAME/raw)", metavar="DIR")
    split: int = _option(1, "which of the data set's official splits, 1 to 3")
    source: str = _option("auto", "read video files, extracted frames or a packed store; auto takes what is there",
                          SOURCES)
    modality: str = _option("rgb", "what the network sees: pictures, or the optical flow beside raw frames", MODALITIES)
    shuffle_window: int = _option(0, "read a packed store shard by shard and mix this many clips (0: mix all of them)")
    clip_length: int = _option(8, "frames of a clip")
    train_frame_interval: int = _option(8, "distance between the frames of a training clip, in frames of the video")
    val_frame_interval: int = _option(8, "distance between the frames of an evaluation clip, in frames of the video")
    crop_size: int = _option(224, "height and width of the clip the network sees, in pixels")
    bad_video_budget: float = _option(0.01, "share of the training videos that may be unreadable before the run stops")
    strict: bool = _option(False, "stop at the first video that cannot be read")
    # the recipe
    recipe: Optional[str] = _option(None, "a row of the table of recipes: " + ", ".join(sorted(RECIPES)),
                                    tuple(sorted(RECIPES)))
    batch_size: int = _option(4, "clips that one device takes at a time")
    accumulate: int = _option(1, "batches that a device takes for one step of the optimizer; the learning rate is that "
                              "of the global batch: batch size x devices x this")
    lr_base: float = _option(0.001, "learning rate of one global batch")
    scale_lr: bool = _option(False, "multiply --lr-base by the global batch over the recipe's (4 without a recipe)")
    lr_steps: Tuple[Union[int, str], ...] = _option(
        (10800000, 15600000, 20400000), "where the rate decays: clips seen, or shares of the run such as 60%%,85%%",
        metavar="A,B,…")
    lr_factor: float = _option(0.1, "what the rate is multiplied by there, at most 1")
    warmup_steps: Union[int, str] = _option(
        1500, "optimizer steps over which the rate rises from a tenth, or a share of the run such as 5%%", metavar="N")
    weight_decay: float = _option(0.0001, "L2 penalty of every parameter that is no bias")
    clip_grad_norm: float = _option(0.0, "limit to the norm over all gradients of a step; the log says what it was "
                                    "before (0: no limit)", metavar="NORM")
    ema_decay: float = _option(0.0, "also average the weights over the steps, this much of the average staying at "
                               "each, such as 0.999; model.pth and the best score are then the average's (0: none)",
                               metavar="DECAY")
    end_epoch: int = _option(90, "epochs to train")
    epoch_div_factor: int = _option(1, "an epoch is this fraction of the data; the original's was a quarter: 4")
    sync_bn: bool = _option(False, "BatchNorm over the clips of all devices, not of each by itself")
    max_steps: int = _option(0, "end after this many optimizer steps (0: when the epochs are done)")
    precise_bn: bool = _option(True, "re-estimate the BatchNorm statistics at the end of each epoch")
    random_seed: int = _option(1, "seed of everything that is drawn, 0 to 4294967295")
    # more augmentation, over the batch; the reference has none of it
    mixup: float = _option(0.0, "blend each clip with another: alpha of the shares' Beta distribution (0: off)",
                           metavar="ALPHA")
    cutmix: float = _option(0.0, "put a box of another clip into each: alpha as for --mixup (0: off; with both, each "
                            "batch takes one)", metavar="ALPHA")
    random_erasing: float = _option(0.0, "probability that a box of a clip is filled with noise, in all its frames",
                                    metavar="P")
    label_smoothing: float = _option(0.0, "share of each label that is spread over all classes, below 1",
                                     metavar="SHARE")
    # precision
    amp: bool = _option(False, "mixed precision; alone it means --opt-level O2")
    opt_level: str = _option("O2", "level of mixed precision, as in NVIDIA apex", OPT_LEVELS)
    loss_scale: Union[float, str, None] = _option(None, "a number, or dynamic (default: what the level says)",
                                                  metavar="SCALE")
    amp_dtype: str = _option("auto", "half-precision type; auto asks the device", AMP_DTYPES)
    amp_engine: str = _option("native", "who computes the level: this toolkit, or an installed apex", AMP_ENGINES)
    # the machine
    device: str = _option("auto", "npu, cuda or cpu; auto takes the first there is", DEVICES)
    workers: int = _option(-1, "processes that read videos, per device (-1: by the number of cores; 0: none)")
    execution: str = _option("auto", "how the network computes: reference is PyTorch's own layers; folded, the same "
                             "function faster, is what auto takes on a CPU in full precision; compiled is "
                             "torch.compile's", EXECUTIONS)
    cuda_graphs: bool = _option(False, "with --execution compiled, on cuda: record the forward and the backward pass "
                                "once, then start each as a whole; for small batches, which wait for their launches")
    activation_checkpointing: bool = _option(False, "keep only each block's input and compute the rest again in the "
                                             "backward pass: less memory, more time, the same result")
    deterministic: bool = _option(False, "only algorithms that repeat to the bit, where the device has them")
    distributed: bool = _option(False, "train on several devices; started by torchrun or by test/launch.sh")
    backend: str = _option("auto", "what carries the gradients: hccl on npu, nccl on cuda, gloo on cpu", BACKENDS)
    dist_url: str = _option("env://", "where the processes meet, such as tcp://127.0.0.1:29500", metavar="URL")
    dist_timeout: float = _option(600.0, "seconds that a process waits for the others before it says who was where and "
                                  "ends; nothing between two batches, or a save, may take longer", metavar="SECONDS")
    world_size: int = _option(0, "number of processes (0: from the environment)")
    local_rank: int = _option(-1, "number of this process on its machine (-1: from the environment)")
    # the outcome
    task_name: str = _option("", "name of the run (default: data set and network)", metavar="NAME")
    model_dir: str = _option("exps", "folder of all runs; a run writes into DIR/TASK", metavar="DIR")
    log_file: Optional[str] = _option(None, "text log (default: train.log of the run)", metavar="FILE")
    save_frequency: int = _option(1, "epochs between two checkpoints")
    save_every: int = _option(0, "optimizer steps between two checkpoints within an epoch (0: none)")
    keep: int = _option(3, "newest checkpoints to keep, beside the best one")
    eval_batch_size: int = _option(8, "clips of one evaluation step on one device")
    max_bad_steps: int = _option(20, "stop after so many steps in a row whose gradient is infinite or no number")
    log_samples: bool = _option(False, "write the videos of every step to samples.rank-N.jsonl, by their rows")
    eval_only: bool = _option(False, "evaluate the weights of --resume or --pretrained, train nothing")
    describe: bool = _option(False, "print parameters and multiply-adds of the network that is named, or of all, stage "
                             "by stage, then end")
    dry_run: bool = _option(False, "check the options, the weights and the data, then end")
    profile: bool = _option(False, "trace some steps and print where their time goes")

    def __post_init__(self) -> None:
        for name in ("clip_length", "train_frame_interval", "val_frame_interval", "crop_size", "batch_size",
                     "accumulate", "end_epoch", "epoch_div_factor", "save_frequency", "keep", "eval_batch_size",
                     "split", "max_bad_steps"):
            _at_least(self, name, 1)
        for name in ("max_steps", "save_every", "shuffle_window", "world_size", "weight_decay", "bad_video_budget",
                     "random_seed"):
            _at_least(self, name, 0)
        for name in ("workers", "local_rank"):
            _at_least(self, name, -1)
        for row in dataclasses.fields(self):
            choices, value = row.metadata["choices"], getattr(self, row.name)
            if choices and value is not None and value not in choices:
                raise OptionError("%s %s: takes one of %s" % (option_name(row.name), value, ", ".join(choices)))
        if not self.lr_base > 0:
            raise OptionError("--lr-base %s: must be above 0" % self.lr_base)
        check_dist_timeout(self.dist_timeout)
        if self.random_seed >= 2**32:
            raise OptionError("--random-seed %s: takes 0 to 4294967295" % self.random_seed)
        if not re.match(r"^(?!\.)[\w.+-]*$", self.task_name):
            raise OptionError("--task-name %s: takes letters, digits, '.', '_', '+' and '-', not a path"
                              % self.task_name)
        if not 0 < self.lr_factor <= 1:
            raise OptionError("--lr-factor %s: must be above 0 and at most 1" % self.lr_factor)
        _check_precision(self)
        _check_step(self)
        _check_mixing(self)

    @property
    def level(self) -> str:
        """The level in force: O0 without --amp."""
        return self.opt_level if self.amp else "O0"

    @property
    def task(self) -> str:
        """The run's name: as typed, or made of data set, network and what is not RGB."""
        words = [self.dataset, self.network] + ([] if self.modality == "rgb" else [self.modality])
        return self.task_name or "_".join(words).lower()

    @property
    def reference_batch(self) -> int:
        """The global batch that --lr-base is meant for: the recipe's, as its script starts it."""
        recipe = self.recipe or ""
        return int(RECIPES.get(recipe, {}).get("batch_size", TrainConfig.batch_size)) * PROCESSES.get(recipe, 1)

    def rate(self, global_batch: int) -> float:
        """The base rate for a global batch: --lr-base or, with --scale-lr, in proportion (Goyal et al. 2017, "Accurate,
        Large Minibatch SGD", arXiv 1706.02677, section 2.1).
        """
        return self.lr_base * (global_batch / self.reference_batch if self.scale_lr else 1.0)


def _check_precision(config: TrainConfig) -> None:
    if isinstance(config.loss_scale, float) and not 0 < config.loss_scale < float("inf"):
        raise OptionError("--loss-scale %s: takes a number above 0, or dynamic" % config.loss_scale)
    where = "without --amp" if not config.amp else "at --opt-level O0"
    if config.level == "O0" and config.loss_scale not in (None, 1.0):
        raise OptionError("--loss-scale %s %s: fp32 needs no loss scale; add --amp or drop it"
                          % (config.loss_scale, where))
    if config.level == "O0" and config.amp_dtype in ("fp16", "bf16"):
        raise OptionError("--amp-dtype %s %s: that is fp32; add --amp or drop it" % (config.amp_dtype, where))
    if config.amp_engine == "apex" and config.level == "O0":
        raise OptionError("--amp-engine apex %s: there is nothing for apex to do; add --amp or drop it" % where)
    if config.amp_engine == "apex" and config.amp_dtype not in ("auto", "fp16"):
        raise OptionError("--amp-dtype %s contradicts --amp-engine apex, which computes in fp16: drop one of them"
                          % config.amp_dtype)


def _check_step(config: TrainConfig) -> None:
    if config.activation_checkpointing and config.execution == "compiled":
        raise OptionError("--activation-checkpointing: --execution compiled decides itself what it keeps; take "
                          "reference or folded, or drop one of them")
    if config.cuda_graphs and config.execution != "compiled":
        raise OptionError("--cuda-graphs: records what torch.compile made; add --execution compiled, or drop it")
    if not 0 <= config.clip_grad_norm < float("inf"):
        raise OptionError("--clip-grad-norm %s: takes 0 (no limit) or a number above it" % config.clip_grad_norm)
    if not 0 <= config.ema_decay < 1:
        raise OptionError("--ema-decay %s: takes 0 (no average) or more, below 1" % config.ema_decay)


def _check_mixing(config: TrainConfig) -> None:
    for name in ("mixup", "cutmix"):
        alpha = getattr(config, name)
        if not 0 <= alpha < float("inf"):
            raise OptionError("--%s %s: takes 0 (off) or a number above it" % (name, alpha))
        if alpha and config.batch_size < 2:
            raise OptionError("--%s %s mixes clips of a batch: it needs --batch-size 2 or more" % (name, alpha))
    if not 0 <= config.random_erasing <= 1:
        raise OptionError("--random-erasing %s: takes a probability, 0 (off) to 1" % config.random_erasing)
    if not 0 <= config.label_smoothing < 1:
        raise OptionError("--label-smoothing %s: takes 0 (off) or more, below 1" % config.label_smoothing)


def option_name(field_name: str) -> str:
    """`lr_base` -> `--lr-base`."""
    return "--" + field_name.replace("_", "-")


def check_dist_timeout(seconds: float) -> None:
    """OptionError where --dist-timeout is no time to wait."""
    if not 0 < seconds < 1e6:
        raise OptionError("--dist-timeout %s: takes seconds, above 0 and below a million" % seconds)


def _at_least(config: TrainConfig, name: str, least: int) -> None:
    value = getattr(config, name)
    if not value >= least:
        raise OptionError("%s %s: must be %d or more" % (option_name(name), value, least))


def resolve_config(typed: Mapping[str, Any], dataset_name: str,
                   dataset_defaults: Mapping[str, Any]) -> Tuple[TrainConfig, Dict[str, str]]:
    """The configuration in force, and for each field where its value came from ('typed', the data set, the recipe or
    'default').
    """
    recipe = typed.get("recipe")
    if recipe is not None and recipe not in RECIPES:
        raise OptionError("--recipe %s: takes one of %s" % (recipe, ", ".join(sorted(RECIPES))))
    chosen = dict(typed)
    if "opt_level" in typed:
        chosen.setdefault("amp", typed["opt_level"] != "O0")
    if not chosen.get("amp", True) or typed.get("opt_level") == "O0":
        chosen.setdefault("loss_scale", None)
    if not chosen.get("amp", True) and chosen.get("opt_level", "O0") != "O0":
        raise OptionError("--opt-level %s contradicts --amp off: drop one of them" % chosen["opt_level"])
    layers = [("typed", chosen), ("data set " + dataset_name, dict(dataset_defaults)),
              ("recipe %s" % recipe, RECIPES[recipe] if recipe else {})]
    values: Dict[str, Any] = {}
    sources: Dict[str, str] = {}
    for row in dataclasses.fields(TrainConfig):
        for source, layer in layers:
            if row.name in layer:
                values[row.name], sources[row.name] = layer[row.name], source
                break
        else:
            sources[row.name] = "default"
    return TrainConfig(**values), sources


def describe_config(config: TrainConfig, sources: Mapping[str, str]) -> str:
    """The values that are no plain defaults, a line each, with where they came from."""
    lines = ["in force (all else at its default):"]
    for row in dataclasses.fields(config):
        if sources[row.name] != "default":
            lines.append("  %-24s %-20s %s" % (option_name(row.name), getattr(config, row.name), sources[row.name]))
    return "\n".join(lines)


def steps_from(value: Union[int, str], total_steps: int) -> int:
    """A number of steps as it stands, or a share of the run ('5%')."""
    if isinstance(value, str):
        return int(round(total_steps * float(value.rstrip("%")) / 100.0))
    return int(value)
