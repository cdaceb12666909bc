"""``scores.parquet``: the score and probability of each option at each readout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phaseprune.runs.atomic import write_with


def write_scores(
    path: Path, question_ids: Sequence[str], columns: Mapping[str, np.ndarray]
) -> None:
    """Write a row an option at a readout.

    Args:
        path: of the file.
        question_ids: ``[Q]``.
        columns: name -> ``[Q, R, K]``, ``score`` among them; where that is ``-inf`` an option is
            absent and has no row.
    """
    question, readout, option = np.nonzero(np.isfinite(columns["score"]))
    table = pa.table(
        {
            "question_id": pa.array(np.asarray(question_ids, dtype=object)[question], pa.string()),
            "readout": pa.array(readout, pa.int32()),
            "option": pa.array(option, pa.int32()),
            **{
                name: pa.array(values[question, readout, option])
                for name, values in columns.items()
            },
        }
    )
    write_with(path, lambda temporary: pq.write_table(table, temporary))


def read_scores(path: Path, options: np.ndarray, readouts: int) -> np.ndarray:
    """``[Q, R, K]`` scores as written; ``options`` are the questions' numbers of options.

    The rows are in the order of ``write_scores``, so ids need not be unique.
    """
    questions, width = len(options), int(max(options))
    scores = np.full((questions, readouts, width), -np.inf)
    present = np.broadcast_to((np.arange(width) < options[:, None])[:, None], scores.shape)
    scores[present] = pq.read_table(path, columns=["score"])["score"].to_numpy()
    return scores
