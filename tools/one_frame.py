"""Does one picture tell the classes?

    python -m tools.one_frame exps/motion10_resnet50_3d_gcn_x5/model.pth --dataset motion10

Evaluates with each clip replaced by one of its frames, repeated; a data set of motions must then fall to chance. Prints
a table over the places of the clip.
"""
import argparse
import sys
from typing import Any, Dict, List, Optional, Sequence

import torch

from data.clip_dataset import ClipDataset
from data.device_transforms import DeviceTransform
from data.loaders import eval_loader
from data.transforms import EvalTransform
from dataset.options import CommandParser
from dataset.specs import find_dataset, load_videos
from tools.timing import markdown, write_json
from tools.trained import open_trained
from train import device as devices
from train.amp import Precision
from train.evaluate import evaluate


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser("tools.one_frame", __doc__)
    parser.add_argument("weights", help="a run's model.pth or checkpoint")
    parser.add_argument("--network", default="", help="[seen from the weights]")
    parser.add_argument("--dataset", default="motion10", help="whose test videos [motion10]")
    parser.add_argument("--data-root", metavar="DIR", help="its folder [dataset/NAME/raw]")
    parser.add_argument("--split", type=int, default=1, help="which official split [1]")
    parser.add_argument("--device", default="auto", choices=("auto", "npu", "cuda", "cpu"), help="[auto]")
    parser.add_argument("--workers", type=int, default=1, help="processes that read videos [1]")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    return parser.read(argv)


def accuracies(options: argparse.Namespace) -> List[Dict[str, Any]]:
    """A row for the whole clip and one for each of its places: {"frames": "all" or the place, "top1": percent, ...}."""
    spec = find_dataset(options.dataset)
    device = devices.choose_device(options.device)
    trained = open_trained(options.weights, device, options.network, fallback=spec.defaults)
    videos = load_videos(spec, options.data_root, options.split, modality=trained.modality)
    if trained.num_classes != len(videos.class_names):
        raise ValueError("%s is of %d classes, --dataset %s of %d" % (
            options.weights, trained.num_classes, spec.name, len(videos.class_names)))
    geometry = trained.geometry
    whole = ClipDataset(videos.test, geometry.clip_length, geometry.val_interval,
                        EvalTransform(geometry.crop, geometry.eval_short_side), 0, training=False)
    precision, transform = Precision("O0", torch.float32, device), DeviceTransform(modality=trained.modality)
    rows = []
    for place in [None] + list(range(geometry.clip_length)):
        clips = whole if place is None else whole.with_repeated_frame(place)
        loader = eval_loader(clips, 0, 1, int(spec.defaults.get("eval_batch_size", 8)), options.workers, False)
        scores = evaluate(trained.network, loader, transform, precision)
        rows.append({"frames": "all" if place is None else place, "top1": 100 * scores.top1,
                     "num_videos": scores.total})
    return rows


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measures, prints the table, writes the JSON; exit code 2 for what the user can mend."""
    options = parse(argv)
    try:
        rows = accuracies(options)
    except (ValueError, OSError) as error:
        print("error: %s" % error, file=sys.stderr)
        return 2
    cells = [["all" if row["frames"] == "all" else "number %d, repeated" % row["frames"], "%.2f" % row["top1"],
              "%d" % row["num_videos"]] for row in rows]
    print(markdown(["frames of the clip", "top-1, %", "videos"], cells))
    if options.json:
        write_json(options.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
