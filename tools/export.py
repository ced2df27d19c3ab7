"""Writes what was trained for use elsewhere: ONNX, TorchScript or safetensors, with all that a video needs beforehand.

    python -m tools.export exps/motion10_resnet50_3d_gcn_x5/model.pth --format onnx --output model.onnx --verify
    python -m tools.export CHECKPOINT --output any.onnx --dynamic-batch --opset 17 --verify --videos films/
    python -m tools.export CHECKPOINT --format safetensors --output model.safetensors

An ONNX graph is for one batch size, as Ascend's compiler takes it, or for any. Class names, clip geometry and
normalisation travel in the file's metadata; tools/onnx_predict.py shows how to predict from the file alone. --verify
holds the file against PyTorch on real clips; where they differ nothing is written. All is float32. See docs/EXPORT.md.
"""
import argparse
import os
import shlex
import sys
from typing import List, Optional, Sequence

from data.video_list import VideoList
from dataset.options import CommandParser
from dataset.specs import DATASETS, SOURCES, find_dataset
from network.execution import set_execution
from tools.evaluate import find_data
from tools.export_formats import FORMATS, OPSETS, Shape, clip_shape, metadata_of, missing_packages
from tools.export_verify import AT_ONCE, LIMIT, compare, listed_videos, real_clips
from tools.outputs import check_writable, write_whole
from tools.running import command_code, with_end
from tools.trained import Trained, add_checkpoint_options, geometry_typed, open_trained

DIFFERENT = 1  # exit code
OPSET, BATCH_SIZE, CLIPS = 11, 1, 100
ATC = ("for Ascend, not tried by the authors (docs/EXPORT.md): atc --framework=5 --model=%s --output=%s "
       "--input_format=NCDHW --input_shape=\"clip:%s\" --precision_mode=allow_fp32_to_fp16 --soc_version=Ascend310P3")


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser("tools.export", __doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run's model.pth or checkpoint, one of the "
                        "reference, or published weights")
    group = parser.add_argument_group("the file")
    group.add_argument("--format", choices=list(FORMATS), default="onnx", help="[onnx]")
    group.add_argument("--output", required=True, metavar="FILE", help="where it goes; written whole or not at all")
    group.add_argument("--opset", type=int, metavar="N", help="of ONNX, %d to %d [%d]" % (OPSETS[0], OPSETS[-1], OPSET))
    group.add_argument("--batch-size", type=int, metavar="N", help="clips that the ONNX graph takes at a time [%d]"
                       % BATCH_SIZE)
    group.add_argument("--dynamic-batch", action="store_true", help="an ONNX graph for any number of clips")
    group = parser.add_argument_group("verification", "By the test videos of the data set that it was trained on, "
                                      "of another with the same classes, or by any videos.")
    group.add_argument("--verify", action="store_true", help="ask the file and PyTorch about real clips: no logit may "
                       "differ by more than %g, and the best class must be the same" % LIMIT)
    group.add_argument("--clips", type=int, default=CLIPS, metavar="N", help="how many [%d]" % CLIPS)
    group.add_argument("--videos", nargs="+", metavar="PATH", help="files, folders or patterns, in place of a data set")
    group.add_argument("--dataset", metavar="NAME", help="%s [as trained]" % ", ".join(DATASETS))
    group.add_argument("--data-root", metavar="DIR", help="its folder [as trained, else dataset/NAME/raw]")
    group.add_argument("--split", type=int, metavar="N", help="which official split [as trained, else 1]")
    group.add_argument("--source", choices=SOURCES, help="[as trained, else auto]")
    add_checkpoint_options(parser)
    return parser.read(argv)


def check_options(options: argparse.Namespace) -> Shape:
    """What can be found wrong before anything is opened: ValueError that names the option, or what to install. What an
    ONNX graph is to be written for.
    """
    chosen = FORMATS[options.format]
    typed = [name for name in ("opset", "batch_size", "dynamic_batch") if getattr(options, name)]
    if typed and options.format != "onnx":
        raise ValueError("--%s is of --format onnx; %s takes any batch" % (typed[0].replace("_", "-"), options.format))
    opset = OPSET if options.opset is None else options.opset
    if opset not in OPSETS:
        raise ValueError("--opset %d: takes %d to %d" % (opset, OPSETS[0], OPSETS[-1]))
    batch = BATCH_SIZE if options.batch_size is None else options.batch_size
    if batch < 1 or options.clips < 1:
        raise ValueError("--batch-size and --clips take 1 or more")
    if options.dynamic_batch and options.batch_size is not None:
        raise ValueError("--dynamic-batch takes any --batch-size: leave one of them off")
    if not options.verify and (options.videos or options.dataset or options.data_root):
        raise ValueError("--videos and --dataset are for --verify: add it, or leave them off")
    if options.dataset:
        find_dataset(options.dataset)
    check_writable("output", options.output)
    if options.output == "-":
        raise ValueError("--output -: takes a file")
    if os.path.exists(options.output) and os.path.exists(options.checkpoint) and os.path.samefile(
            options.output, options.checkpoint):
        raise ValueError("--output %s is the checkpoint itself: choose another file" % options.output)
    missing = missing_packages(chosen.to_write + (chosen.to_open if options.verify else ()))
    if missing:
        raise ValueError("--format %s%s needs what is not installed: pip install %s" % (
            options.format, " with --verify" if options.verify else "", " ".join(missing)))
    return Shape(0 if options.dynamic_batch else batch, opset)


def check_numbers(trained: Trained) -> None:
    """ValueError that names the first tensor that holds something else."""
    for name, tensor in trained.network.state_dict().items():
        if not (tensor.double().abs() < float("inf")).all():
            raise ValueError("%s: %s holds values that are infinite or no numbers: take an earlier checkpoint"
                             % (trained.path, name))


def videos_of(options: argparse.Namespace, trained: Trained) -> VideoList:
    """The videos to verify by. ValueError where nothing says which."""
    if options.videos:
        return listed_videos(options.videos, trained.modality)
    try:
        return find_data(options, trained).videos.test
    except (ValueError, OSError) as error:
        raise ValueError("%s\n--verify wants real videos: say by --dataset and --data-root where they are, or give "
                         "--videos PATH" % error) from None


def verified(options: argparse.Namespace, trained: Trained, data: bytes, shape: Shape, videos: VideoList) -> bool:
    """Whether the file's bytes answer as PyTorch does; says what came out."""
    print("holding it against PyTorch on %d clips of %d videos" % (options.clips, len(videos)), file=sys.stderr)
    answer = FORMATS[options.format].open(data, trained, shape)
    clips = with_end(real_clips(trained, videos, options.clips), -(-options.clips // AT_ONCE), "batches")
    found = compare(trained, answer, clips)
    print("\n".join(found.lines()), flush=True)
    return found.passed


def description(options: argparse.Namespace, trained: Trained, data: bytes, shape: Shape) -> List[str]:
    """What was written, in words; for an ONNX graph of one batch size also how Ascend's compiler takes it."""
    fixed = options.format == "onnx" and shape.batch > 0
    sizes = ([str(shape.batch)] if fixed else ["N"]) + [str(size) for size in clip_shape(trained)]
    kind = "onnx opset %d" % shape.opset if options.format == "onnx" else options.format
    lines = ["%s: %s, %.1f MB, clips %s float32 -> logits %s x %d" % (
        options.output, kind, len(data) / 1e6, " x ".join(sizes), sizes[0], trained.num_classes)]
    if fixed:
        lines.append(ATC % (shlex.quote(options.output), shlex.quote(os.path.splitext(options.output)[0]),
                            ",".join(sizes)))
    return lines


def run(options: argparse.Namespace) -> int:
    """Exports, verifies, writes; the exit code."""
    shape = check_options(options)
    spec = find_dataset(options.dataset) if options.dataset else None
    trained = open_trained(options.checkpoint, "cpu", options.network, options.classes, geometry_typed(options),
                           spec.defaults if spec else None)
    check_numbers(trained)
    metadata = metadata_of(trained)
    set_execution(trained.network, "reference")
    for line in trained.notes:
        print(line, file=sys.stderr)
    videos = videos_of(options, trained) if options.verify else None
    data = FORMATS[options.format].write(trained, shape, metadata)
    if videos is not None and not verified(options, trained, data, shape, videos):
        print("error: the file does not answer as PyTorch does: %s was not written" % options.output, file=sys.stderr)
        return DIFFERENT
    write_whole(options.output, data)
    print("\n".join(description(options, trained, data, shape)))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; exit code 1 where the file differs from PyTorch, 2 for what the user can mend, 130 for Ctrl-C."""
    options = parse(argv)
    return command_code(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
