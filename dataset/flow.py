"""Optical flow as a source: files beside raw frames, in the seed's naming; where there are none, what to run."""
import os
from typing import List

import numpy as np

from data.clip_readers import FLOW_NAMES
from data.video_list import VideoList
from dataset.rows import DataNotFound

LOOKED_AT = 200  # videos of each part whose folder is looked into at the start


def flow_remedy(name: str, root: str, rendered: bool) -> str:
    """What makes the flow of the data set below the root."""
    if rendered:
        return ('Its films become flow by python -m dataset.prepare folder --source %s --output DIR --flow; then train '
                'with --dataset folder --data-root DIR.' % os.path.join(root, 'data'))
    return ('Flow lies beside raw frames: make it with python -m dataset.prepare %s --source PATH --output %s --flow, '
            'where PATH is what was downloaded.' % (name, root))


def refuse_source(source: str, packed: bool, remedy: str) -> None:
    """Raises ValueError for a source that holds no flow."""
    if packed:
        raise ValueError('--modality flow: a packed store holds pictures alone; give --data-root the folder of the raw '
                         'frames.\n' + remedy)
    if source == 'video':
        raise ValueError('--source video has no --modality flow: leave --source at auto, or give rawframes.\n' + remedy)


def look_for_flow(videos: VideoList, part: str, remedy: str) -> List[str]:
    """Looks into some of the folders, spread over the list. A note for the log where some have no flow.

    Raises DataNotFound where none has.
    """
    rows = np.unique(np.linspace(0, len(videos) - 1, LOOKED_AT).astype(int)).tolist()
    first = [name.format(1) for name in FLOW_NAMES]
    without = [row for row in rows if not all(os.path.isfile(os.path.join(videos.path(row), name)) for name in first)]
    if len(without) == len(rows):
        raise DataNotFound('no %s in %s, nor in %d other folders of raw frames\n%s'
                           % (' and '.join(first), videos.path(rows[0]), len(rows) - 1, remedy))
    if not without:
        return []
    return ['%d of %d %s videos looked at have no flow, such as %s; they will count as unreadable'
            % (len(without), len(rows), part, videos.path(without[0]))]
