"""Folders as runs leave them, without a training."""
import json

import numpy as np

from train.scores_file import pack_scores


def write_metrics(folder, steps, every=10, per_epoch=100, seed=0):
    """Curves that look as those of a training."""
    rng, rows = np.random.RandomState(seed), []
    for step in range(every, steps + 1, every):
        far = 1 - np.exp(-3 * step / steps)
        rows.append({"kind": "train", "step": step, "epoch": 1 + (step - 1) // per_epoch,
                     "loss": 2.3 * (1 - 0.85 * far) * rng.uniform(0.9, 1.1),
                     "top1": 0.1 + 0.8 * far * rng.uniform(0.9, 1), "fps": rng.uniform(17, 20),
                     "lr": 0.003 * (0.1 if step > 0.85 * steps else 1), "data_wait_share": rng.uniform(0, 0.2)})
        if step % per_epoch == 0:
            rows.append({"kind": "epoch", "step": step, "epoch": step // per_epoch, "val_loss": 2.3 - 1.8 * far,
                         "val_top1": 0.1 + 0.75 * far, "val_top5": 0.5 + 0.49 * far, "fps": 18.5, "unreadable": 0})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def write_scores(folder, names, paths, labels, seed=0, noise=1.4):
    """scores.npz: the right class a little ahead, neighbours close behind."""
    rng, num = np.random.RandomState(seed), len(names)
    logits = noise * rng.randn(len(labels), num)
    near = noise * 1.3
    logits[np.arange(len(labels)), labels] += 3 + near * rng.randn(len(labels))
    logits[np.arange(len(labels)), (np.array(labels) + 1) % num] += 2
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.npz").write_bytes(pack_scores(paths, np.array(labels), shares.astype(np.float32),
                                                    np.ones(len(labels), bool), names))


def write_run(folder, names=("down", "left", "up"), steps=300, finished=True, scores=True, per_class=20, seed=0,
              **config):
    """A run; `config` are options that it was started with."""
    rows = write_metrics(folder, steps, seed=seed)
    options = dict({"dataset": "folder", "data_root": "nowhere", "lr_base": 0.003, "batch_size": 16, "crop_size": 32,
                    "clip_length": 4, "val_frame_interval": 3, "network": "RESNET50_3D"}, **config)
    about = {"task": folder.name, "started": "2026-11-24T20:00:00Z", "started_in": "/", "last_step": steps,
             "steps_per_epoch": 100, "global_batch": 16, "num_train_videos": 1600, "network": "RESNET50_3D",
             "modality": "rgb", "dataset": "folder", "split": 1, "device": "CPU of a test", "world_size": 1,
             "amp_type": "O0", "torch": "2.13.0", "python": "3.11.7", "class_names": list(names),
             "config": options}
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "train.log").write_text("12:00:00 it began\n12:10:00 it went on\n")
    if finished:
        last = rows[-1]
        result = {"name": "1p-CPU", "accuracy_top1": 100 * last["val_top1"], "accuracy_top5": 100 * last["val_top5"],
                  "fps": 18.5, "epochs": 3, "seconds": 812.5, "steps": steps, "num_videos": per_class * len(names),
                  "data_wait_share": 0.1, "loss": last["val_loss"], "torch": "2.13.0", "config": options,
                  "peak_host_memory_bytes": 1 << 31, "class_names": list(names), "protocol": "one centre clip a video"}
        (folder / "result.json").write_text(json.dumps(result))
    if scores:
        labels = [label for label in range(len(names)) for _ in range(per_class)]
        write_scores(folder, names, ["test/%s/v%d.avi" % (names[label], i) for i, label in enumerate(labels)], labels,
                     seed)
    return folder
