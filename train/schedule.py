"""The learning rate of a step: linear warm-up from a tenth, then a factor at every boundary. A pure function."""

from typing import Sequence, Tuple, Union

from train.config import OptionError, steps_from


class LearningRate:
    """rate(step) for steps counted from 1.

    base · (1 + 9·step/warmup_steps)/10 while step < warmup_steps, times `factor` for every boundary below `step`.
    Raises ValueError for boundaries below 1 or not increasing, and for a factor above 1.
    """

    def __init__(self, base: float, warmup_steps: int = 1500, boundaries: Sequence[int] = (),
                 factor: float = 0.1) -> None:
        if any(b < 1 for b in boundaries):
            raise OptionError(
                "--lr-steps: %s comes before the first step; give later ones or a larger data set" % list(boundaries))
        if any(b <= a for a, b in zip(boundaries, boundaries[1:])):
            raise OptionError("--lr-steps: must increase, but in steps they are %s" % list(boundaries))
        if factor > 1:
            raise OptionError("--lr-factor %s: must be at most 1" % factor)
        self.base, self.warmup_steps, self.boundaries, self.factor = base, warmup_steps, tuple(boundaries), factor

    def __call__(self, step: int) -> float:
        rate = self.base
        if step < self.warmup_steps:
            rate *= (1.0 + 9.0 * step / self.warmup_steps) / 10.0
        return rate * self.factor ** sum(1 for boundary in self.boundaries if boundary < step)


def boundaries_in_steps(lr_steps: Sequence[Union[int, str]], global_batch: int, total_steps: int) -> Tuple[int, ...]:
    """Boundaries given in clips (or as shares of the run, '60%') as optimizer steps."""
    return tuple(steps_from(b, total_steps) if isinstance(b, str) else int(b / global_batch) for b in lr_steps)
