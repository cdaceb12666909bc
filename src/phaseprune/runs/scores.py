"""``scores.parquet``: the score and probability of each option at each readout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phaseprune.errors import UserError
from phaseprune.runs.atomic import write_with


@dataclass(frozen=True)
class Scores:
    """A file of scores, read without its questions.

    Attributes:
        question_ids: ``[Q]``.
        options: ``[Q]`` number of options.
        gold: ``[Q]`` right options.
        score: ``[Q, R, K]``, ``-inf`` where an option is absent.
        probability: ``[Q, R, K]``, 0 where an option is absent.
    """

    question_ids: tuple[str, ...]
    options: np.ndarray
    gold: np.ndarray
    score: np.ndarray
    probability: np.ndarray


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


def read_all_scores(path: Path) -> Scores:
    """What a file says of its questions by itself.

    Raises:
        UserError: it cannot be read, or is of a version that did not write which option is right.
    """
    try:
        table = pq.read_table(path)
        found = {name: table[name].to_numpy() for name in table.column_names}
        ids, gold = found["question_id"], found["gold"]
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    except KeyError:
        raise UserError(
            f"{path} does not say which options are right (it is of an older version); give the "
            "command again with another --out"
        ) from None
    at_first = found["readout"] == 0
    # In the order of ``write_scores`` a question begins with its first option at readout 0.
    begins = np.flatnonzero(at_first & (found["option"] == 0))
    options = np.add.reduceat(at_first.astype(int), begins)
    shape = len(begins), int(found["readout"].max()) + 1, int(options.max())
    present = np.broadcast_to((np.arange(shape[2]) < options[:, None])[:, None], shape)
    score, probability = np.full(shape, -np.inf), np.zeros(shape)
    score[present], probability[present] = found["score"], found["probability"]
    golds = found["option"][at_first & gold]
    return Scores(tuple(ids[begins].tolist()), options, golds, score, probability)
