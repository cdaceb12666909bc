"""Loading shards by an index that lacks what transformers asks of it, and does not need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from phaseprune.decoder.source import INDEX, SINGLE, Source, loaded_files, read_index, weight_map


@contextmanager
def plain_index(source: Source) -> Iterator[None]:
    """Have transformers load by an index without ``metadata``, which is only a note of sizes."""
    if source.gguf_file or not _lacks_metadata(source):
        yield
        return
    from transformers import modeling_utils

    names = weight_map(source)
    files = [str(path) for path in loaded_files(source)]

    def shards(*args, **kwargs):
        return files, {"all_checkpoint_keys": [*names], "weight_map": dict(names)}

    original = modeling_utils.get_checkpoint_shard_files
    modeling_utils.get_checkpoint_shard_files = shards
    try:
        yield
    finally:
        modeling_utils.get_checkpoint_shard_files = original


def _lacks_metadata(source: Source) -> bool:
    if (source.directory / SINGLE).is_file() or not (source.directory / INDEX).is_file():
        return False
    return not isinstance(read_index(source).get("metadata"), dict)
