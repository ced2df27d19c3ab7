"""Trains a GloRe network on videos: the main job, and its one composition root.

    python train_model.py --network RESNET50_3D_GCN_X5 --pretrained --amp
"""
import os

from train import environment

os.environ.update(environment.missing())    # before torch is loaded

import dataclasses
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from data.bad_videos import BadVideoBudgetExceeded, BadVideoLedger
from data.batch_mix import BatchMix, MixOptions
from data.device_transforms import DeviceTransform
from data.loaders import keeps_workers, why_readers_died
from data.modalities import MODALITIES
from data.streams import ClipGeometry, ClipStreams, Share
from dataset.progress import INTERRUPTED, USER_ERROR, usable_cores
from dataset.specs import DatasetSpec, VideoSet, find_dataset, load_videos, published_names
from network import NETWORKS, build_network, find_network, flops
from network.execution import check_cuda_graphs, check_execution, set_execution
from network.recomputation import set_recomputation
from network.resnet3d import check_clip_size, last_positions
from network.weights import find_weights_file
from train import checkpoint, distributed
from train import device as devices
from train.amp import Precision
from train.amp_choice import build_precision
from train.bad_steps import BadSteps, NotFinite
from train.config import OptionError, TrainConfig, describe_config, resolve_config, steps_from
from train.ema import AveragedWeights
from train.gradient_norm import GradientNorm
from train.log import LOGGER, log_to, note_failure, stop_logging
from train.loop import Slots, Trainer
from train.metrics import Scores
from train.optim import build_sgd, parameter_groups
from train.options import parse_options
from train.profile import TRACED_STEPS, WARMUP_STEPS, profile_steps
from train.record import RunRecord, move_aside
from train.run import Plan, Position, Run
from train.run_state import DataFacts, RunState, keep_global_batch
from train.runtime import Runtime, start_runtime
from train.schedule import LearningRate, boundaries_in_steps
from train.scores_file import SCORES_NAME, ScoresFile
from train.speed import SpeedMeter
from train.stopping import Asked, Stopped, StopRequest, describe
from train.sync_bn import synchronize_norms
from train.whereabouts import HERE, LOST


def check_before_data(config: TrainConfig) -> None:
    """What can be found wrong before any data is touched: the network's name, the clip's size, the weight files."""
    spec = find_network(config.network)
    check_execution(config.execution)
    check_clip_size(config.clip_length, config.crop_size, config.crop_size)
    values = config.batch_size * last_positions(config.clip_length, config.crop_size, config.crop_size)
    if values < 2 and not config.eval_only:
        raise OptionError("--batch-size %d: clips this small leave BatchNorm one value a channel; take a larger batch, "
                          "--clip-length or --crop-size" % config.batch_size)
    if config.eval_only and not (config.resume or config.pretrained):
        raise OptionError("--eval-only: evaluate which weights? Add --resume for this task's newest checkpoint, "
                          "or --pretrained FILE")
    if config.pretrained and not config.resume:
        find_weights_file(spec.name, config.pretrained)


def checkpoints_of(config: TrainConfig) -> checkpoint.Checkpoints:
    """The run's checkpoints, written or not."""
    return checkpoint.Checkpoints(Path(config.model_dir) / config.task / "checkpoints", config.task, config.keep)


def build_streams(config: TrainConfig, spec: DatasetSpec, videos: VideoSet, runtime: Runtime) -> ClipStreams:
    """The batches of this process."""
    geometry = ClipGeometry.of(config.clip_length, config.train_frame_interval, config.val_frame_interval,
                               config.crop_size, spec.scale_range, spec.eval_scale)
    share = Share(runtime.ranks.rank, runtime.ranks.world_size, config.batch_size, config.eval_batch_size,
                  runtime.workers, runtime.device.type != "cpu", config.accumulate)
    return ClipStreams(videos.train, videos.test, geometry, share, config.random_seed, config.epoch_div_factor,
                       config.shuffle_window)


def choose_precision(config: TrainConfig, device: torch.device) -> Precision:
    """The level of mixed precision in force, tried on the device."""
    return build_precision(config.level, config.amp_engine, config.amp_dtype, devices.half_dtype(device), device,
                           config.loss_scale)


def build_trainer(config: TrainConfig, num_classes: int, runtime: Runtime, streams: ClipStreams) -> Trainer:
    """Network, precision, schedule and optimizer, ready to step."""
    HERE.at("starting: building the network")
    network: torch.nn.Module = build_network(config.network, num_classes, not config.resume and config.pretrained,
                                             MODALITIES[config.modality].channels)
    if config.sync_bn:
        network = synchronize_norms(network, runtime.device)
    network.to(runtime.device)
    set_recomputation(network, config.activation_checkpointing)
    precision = choose_precision(config, runtime.device)
    execution = set_execution(network, config.execution, precision.half, config.cuda_graphs)
    LOGGER.info("execution %s%s, %s", execution, " as CUDA graphs" if config.cuda_graphs else "",
                devices.memory_settings())
    LOGGER.info("%s", precision.description)
    parameters = precision.prepare(network)
    total = streams.steps_per_epoch * config.end_epoch
    boundaries = boundaries_in_steps(config.lr_steps, streams.global_batch, total)
    rate = config.rate(streams.global_batch)
    LOGGER.info("learning rate %g for a global batch of %d clips", rate, streams.global_batch)
    schedule = LearningRate(rate, steps_from(config.warmup_steps, total), boundaries, config.lr_factor)
    optimizer = build_sgd(parameter_groups(parameters, config.weight_decay, config.fine_tune), schedule(1))
    precision.attach(network, optimizer)
    HERE.at("starting: sharing the weights")
    model = distributed.wrap(network, runtime.device, precision.bucket_views)
    mix = BatchMix(MixOptions(config.mixup, config.cutmix, config.random_erasing, config.label_smoothing), num_classes,
                   config.random_seed, config.modality)
    gradient_norm = GradientNorm(config.clip_grad_norm, runtime.device) if config.clip_grad_norm else None
    ema = AveragedWeights(precision, network, config.ema_decay) if config.ema_decay and not config.eval_only else None
    return Trainer(model, optimizer, schedule, precision, DeviceTransform(precision.input_dtype, config.modality),
                   config.random_seed, Slots(runtime.ranks.rank, runtime.ranks.world_size, config.accumulate), mix,
                   gradient_norm, ema)


class Job:
    """One run, composed."""

    def __init__(self, config: TrainConfig, spec: DatasetSpec, videos: VideoSet, runtime: Runtime) -> None:
        task = config.task
        self.folder = folder = Path(config.model_dir) / task
        self.position, self.evaluated = Position(), True
        first = runtime.ranks.rank == 0
        checkpoints = checkpoints_of(config)
        self.saved = checkpoints.load(config.resume) if config.resume else None
        if self.saved:
            config = keep_global_batch(config, self.saved, runtime.ranks.world_size)
        self.config, self.videos, self.runtime = config, videos, runtime
        self.streams = build_streams(config, spec, videos, runtime)
        global_batch = self.streams.global_batch
        self.trainer = build_trainer(config, len(videos.class_names), runtime, self.streams)
        bad_steps = BadSteps(self.trainer, config.max_bad_steps, folder, videos.train.path, first)
        facts = DataFacts(videos.name, videos.class_names, len(videos.train), videos.train.digest(),
                          videos.test.digest())
        self.state = RunState(config, self.trainer, facts, global_batch, bad_steps)
        self.record = RunRecord(folder, task, checkpoints, self.state.snapshot, self.state.state_dict, first,
                                runtime.device.type != "cpu" and keeps_workers())
        self.ledger = BadVideoLedger(len(videos.train), config.bad_video_budget, config.strict,
                                     str(folder / "bad_videos.jsonl"))
        total = self.streams.steps_per_epoch * config.end_epoch
        plan = Plan(config.end_epoch, self.streams.epoch_samples, global_batch, min(total, config.max_steps or total),
                    config.precise_bn, config.save_frequency, config.save_every)
        self.meter = SpeedMeter(runtime.device, global_batch)
        self.stop = StopRequest(runtime.device)
        scores_file = ScoresFile(folder / SCORES_NAME, videos.test, videos.class_names, runtime.ranks)
        self.run = Run(self.trainer, plan, self.streams, self.record, self.meter, self.failed, self.stop, bad_steps,
                       None if config.eval_only else scores_file)
        if self.saved:
            self.position, self.evaluated, self.record.best = self.state.resume(self.saved)

    def failed(self, failures: Sequence[Tuple[str, str]]) -> None:
        """Names each video that cannot be read once, whichever process met it; stops the run beyond the budget."""
        for path, reason in self.ledger.add(failures):
            if self.runtime.ranks.rank == 0:
                LOGGER.warning("cannot be read: %s (%s)", path, reason)

    def result(self, scores: Scores) -> Dict[str, Any]:
        """What result.json holds."""
        return self.state.result(scores, self.position, self.meter.total(), self.runtime.ranks.world_size)

    def execute(self) -> None:
        """Profiles, evaluates or trains, as the options say."""
        config = self.config
        if self.runtime.ranks.rank == 0 and self.folder.exists() and not (
                config.resume or config.eval_only or config.profile):
            move_aside(self.folder)
        distributed.barrier(self.runtime.device)
        try:
            log_to(Path(config.log_file) if config.log_file else self.folder / "train.log")
            about = self.state.about(self.run.plan, self.position, self.runtime.ranks.world_size)
            self.record.open("samples.rank-%d.jsonl" % self.runtime.ranks.rank if config.log_samples else None,
                             None if config.eval_only or config.profile else about)
            self.ledger.open()
            with self.stop:
                self._execute()
        except Asked:
            raise Stopped("stopped by %s in an evaluation; nothing was left to save" % describe(self.stop.signal))
        finally:
            self.streams.close()
            self.record.close()

    def _execute(self) -> None:
        if self.config.profile:
            steps = self.streams.training(self.position.epoch, 0, WARMUP_STEPS + TRACED_STEPS)
            profile_steps(self.trainer, steps, self.folder)
        elif self.config.eval_only:
            self.record.write_result(self.result(self.run.evaluate()), "evaluation.json")
        else:
            saved, self.saved = self.saved, None  # as large as the network, and not needed any more
            if saved and (self.position.step < self.run.plan.last_step or not self.evaluated):
                self.state.train_on(saved)
            scores = self.run.fit(self.position, self.evaluated) or self.run.evaluate()
            self.record.finish(self.result(scores), self.state.final_weights())


def compose(argv: Sequence[str]) -> Optional[Job]:
    """From the command line to a job that is ready to run; None where only a check was asked for.

    ValueError or OSError for what the user can mend.
    """
    typed, notices = parse_options(argv)
    spec = find_dataset(typed.get("dataset", TrainConfig.dataset))
    config, sources = resolve_config(typed, spec.name, spec.defaults)
    config = dataclasses.replace(config, dataset=spec.name, network=config.network.upper())
    config = dataclasses.replace(config, resume=checkpoints_of(config).choose(config.resume))
    check_before_data(config)
    if config.describe:
        channels = MODALITIES[config.modality].channels
        shape = (channels, config.clip_length, config.crop_size, config.crop_size)
        num_classes = len(published_names(spec) or range(101))  # as many as UCF-101 where they are the user's own
        for name in [config.network] if "network" in typed else list(NETWORKS):
            print(flops.describe(build_network(name, num_classes, channels=channels), shape) + "\n", flush=True)
        return None
    runtime = start_runtime(config, usable_cores())
    if config.cuda_graphs:
        check_cuda_graphs(runtime.device.type)
    if config.dry_run:
        choose_precision(config, runtime.device)
        load_videos(spec, config.data_root, config.split, config.source, config.modality)
        return None
    for line in notices + [describe_config(config, sources)]:
        LOGGER.info("%s", line)
    if config.fine_tune and not (config.pretrained or config.resume):
        LOGGER.warning("--fine-tune without --pretrained: the network starts from scratch, at half the rate")
    HERE.at("starting: reading the lists")
    videos = load_videos(spec, config.data_root, config.split, config.source, config.modality)
    for line in videos.notes + ["%s: %d training and %d test videos of %d classes" % (
            videos.name, len(videos.train), len(videos.test), len(videos.class_names))]:
        LOGGER.info("%s", line)
    LOGGER.info("%s on %s, %d process(es), %d loader worker(s) each, torch %s", config.network,
                devices.device_name(runtime.device), runtime.ranks.world_size, runtime.workers, torch.__version__)
    return Job(config, spec, videos, runtime)


def main(argv: Optional[List[str]] = None) -> int:
    """Runs the job; the exit code: 0 done, 2 something the user can mend, 3 the other processes are lost, 130
    interrupted.
    """
    try:
        try:
            job = compose(sys.argv[1:] if argv is None else argv)
        except (ValueError, OSError) as error:
            return _fail(str(error))
        if job is not None:
            job.execute()
    except (NotFinite, BadVideoBudgetExceeded, OSError) as error:
        return _fail(str(error))
    except RuntimeError as error:
        if why_readers_died(error):
            return _fail(why_readers_died(error))
        if distributed.lost_contact(error):
            return LOST
        if not devices.is_out_of_memory(error):
            raise
        return _fail("the device's memory is full: lower --batch-size (and --eval-batch-size); %s" % error)
    except Stopped as stopped:
        LOGGER.info("%s", stopped)
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    finally:
        stop_logging()
        distributed.stop()
    return 0


def _fail(message: str) -> int:
    print("error: " + message, file=sys.stderr)
    note_failure("error: " + message)
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
