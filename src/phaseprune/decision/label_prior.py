"""The label prior: how much a label is preferred whatever the question says.

Known as label, selection or position bias; what is done here is close to the prior calibration of
PriDe (Zheng et al. 2024, arXiv 2309.03882), with other questions in place of permuted options.
"""

from __future__ import annotations

import numpy as np

#: Folds of the cross-fitting: a question's prior is that of the other folds.
FOLDS = 10
#: Other questions that a prior needs; with fewer of the same number of options, those with more
#: options help out.
FEWEST = 10


def centred(scores: np.ndarray, options: np.ndarray) -> np.ndarray:
    """``[Q, R, K]`` scores less their mean over the question's options; 0 where one is absent."""
    present = np.isfinite(scores)
    mean = np.where(present, scores, 0).sum(axis=-1) / np.asarray(options)[:, None]
    return np.where(present, scores - mean[..., None], 0.0)


def mean_prior(scores: np.ndarray, options: np.ndarray) -> dict[int, np.ndarray]:
    """The label prior at the output for new questions: the mean over all that there are.

    Args:
        scores: ``[Q, R, K]``, the output last.
        options: ``[Q]`` number of options k.

    Returns:
        k -> ``[k]``, for each number of options that occurs.
    """
    values, options = centred(scores, options)[:, -1], np.asarray(options)
    return {int(k): values[options == k, :k].mean(axis=0) for k in np.unique(options)}


def label_prior(scores: np.ndarray, options: np.ndarray) -> np.ndarray:
    """What other questions say of each label's preference, at every readout.

    A question's prior is the mean over *other* questions with as many options (those outside its
    fold, of ``FOLDS``) of a label's score less the mean over the question's options. It uses no
    golds, and no score of the question itself. Of few such questions (``FEWEST``) those with more
    options are taken too, by their first labels.

    Args:
        scores: ``[Q, R, K]`` scores of the labels, ``-inf`` where an option is absent.
        options: ``[Q]`` number of options k.

    Returns:
        ``[Q, R, K]``, in the unit of the scores, with mean 0 over a question's options and 0 where
        an option is absent; 0 throughout where there is no other question to learn from.
    """
    scores, options = np.asarray(scores, dtype=np.float64), np.asarray(options)
    prior = np.zeros_like(scores)
    for k in np.unique(options):
        own = np.flatnonzero(options == k)
        like = own if len(own) > FEWEST else np.flatnonzero(options >= k)
        # Folds are taken in turn, so that a file's parts (subjects) are spread over all of them.
        fold = np.arange(len(like)) % FOLDS
        values = centred(scores[like, :, :k], np.full(len(like), k))
        is_own = options[like] == k
        means = np.stack([
            values[fold != f].sum(axis=0) / max(1, (fold != f).sum()) for f in range(FOLDS)
        ])  # fmt: skip
        prior[like[is_own], :, :k] = means[fold[is_own]]
    return prior
