"""Where a MODEL name leads: the bundled model, a GGUF file, a local directory, or the hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from phaseprune.decoder.gguf_header import GgufHeader, read_gguf_header
from phaseprune.errors import UserError, near_matches, shown

#: What transformers loads: the one file, else the shards that the index names.
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
#: Files worth fetching from the hub besides the weights: never pickles.
HUB_FILES = [
    "*.safetensors.index.json",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.tiktoken",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
]
#: Files that say what tokens a text becomes, of all kinds of tokenizers.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "tokenizer.model.*",
    "*.tiktoken",
    "*.spm",
    "tekken.json",
)
#: Files that say how a chat is put; ``tokenizer_config.json`` may say so too.
CHAT_FILES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja")
_TOKENIZER_CONFIG = "tokenizer_config.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """The files of a model on disk.

    Attributes:
        name: what the user called it.
        directory: where the files are.
        gguf_file: the file's name, where the weights are GGUF.
        on_hub: whether ``name`` is a hub id; its weights need not be on disk then.
        revision: of a hub id.
    """

    name: str
    directory: Path
    gguf_file: str | None = None
    on_hub: bool = False
    revision: str | None = None

    @property
    def is_checkpoint(self) -> bool:
        """Whether these are the files of a Hugging Face checkpoint, which exports copy."""
        return self.gguf_file is None

    @property
    def gguf_header(self) -> GgufHeader:
        """What the GGUF file says; only of a source that is one.

        Raises:
            UserError: the file is damaged.
        """
        return read_gguf_header(self.directory / self.gguf_file)

    @property
    def weight_files(self) -> list[Path]:
        """The files that hold the weights and are there, in order of their names.

        Others beside them (``consolidated.safetensors``) are the same weights again, or not ours.
        """
        if self.gguf_file:
            return [self.directory / self.gguf_file]
        own = [path for path in loaded_files(self) if path.is_file()]
        return own or sorted(self.directory.glob("*.safetensors"))

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over the configuration and the content of the weight files, read only once."""
        digest = hashlib.sha256()
        config = self.directory / "config.json"
        for path in ([] if self.gguf_file else [config]) + self.weight_files:
            with open(path, "rb") as handle:
                digest.update(
                    hashlib.file_digest(handle, "sha256").digest()
                    if hasattr(hashlib, "file_digest")
                    else _digest(handle)
                )
        return digest.hexdigest()

    @property
    def tokenizer_fingerprint(self) -> str | None:
        """Sha256 over the tokenizer's files; None of GGUF, whose file holds the tokenizer too."""
        config, _ = self._tokenizer_config
        found = [path for path in self._files(TOKENIZER_FILES) if path.name != _TOKENIZER_CONFIG]
        if "auto_map" in config:  # it runs code that comes with it
            found += self._files(("*.py",))
        return self._content(found, config)

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer's files are there."""
        return bool(self.gguf_file or self._files(TOKENIZER_FILES))

    @property
    def chat_template_fingerprint(self) -> str | None:
        """Sha256 over the tokenizer's chat templates; None where there are none, and of GGUF."""
        _, chat = self._tokenizer_config
        return self._content(self._files(CHAT_FILES), chat)

    @property
    def identity(self) -> dict[str, str | None]:
        """The fingerprints by what they are of, as manifests have them."""
        return {
            "fingerprint": self.fingerprint,
            "tokenizer": self.tokenizer_fingerprint,
            "chat_template": self.chat_template_fingerprint,
        }

    @property
    def _tokenizer_config(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What ``tokenizer_config.json`` says of the tokenizer, and of its chat template."""
        try:
            stated = json.loads((self.directory / _TOKENIZER_CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}, {}
        if not isinstance(stated, dict):
            return {}, {}
        chat = {"chat_template": stated.pop("chat_template", None)}
        return stated, chat if chat["chat_template"] else {}

    def _files(self, patterns: Iterable[str]) -> list[Path]:
        found = (path for one in patterns for path in self.directory.glob(one))
        return sorted(path for path in {*found} if path.is_file())

    def _content(self, paths: Sequence[Path], stated: dict[str, Any]) -> str | None:
        """Sha256 over files by name and what a configuration states; None of nothing."""
        if self.gguf_file or not (paths or stated):
            return None
        digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
        for path in paths:
            digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()


def find_source(name: str, revision: str | None = None, weights: bool = True) -> Source:
    """Resolve a MODEL name to files on disk, downloading from the hub where need be.

    Args:
        name: see ``load_model``.
        revision: of a hub model.
        weights: whether the weights are needed too, or the tokenizer, the configuration and the
            index of the weights alone.

    Raises:
        UserError: nothing of that name (with near matches), or files that are not safetensors or
            GGUF.
    """
    if name == "demo":
        return Source(name, Path(str(files("phaseprune.demo") / "model")))
    path = Path(name).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise UserError(f"{name}: there is no such .gguf file.{_near_paths(path)}")
        return Source(name, path.parent.resolve(), path.name)
    if path.is_dir():
        return _checked_directory(name, path.resolve(), weights)
    if path.exists():
        raise UserError(f"{name}: a model is a directory or a .gguf file, and this is another file")
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path or not HUB_ID.fullmatch(name):
        raise UserError(f"{name}: there is no such directory of a model.{_near_paths(path)}")
    directory = _from_hub(name, revision, path, weights)
    source = _checked_directory(name, directory, weights)
    return replace(source, on_hub=True, revision=revision)


def loaded_files(source: Source) -> list[Path]:
    """The files that transformers loads, be they there or not; empty where there is no telling.

    Raises:
        UserError: the index is damaged.
    """
    single, index = source.directory / SINGLE, source.directory / INDEX
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    return [source.directory / name for name in sorted(set(weight_map(source).values()))]


def weight_map(source: Source) -> dict[str, str]:
    """The file that each tensor is in, by the index.

    Raises:
        UserError: the index is damaged, or names what is no file beside it.
    """
    found = read_index(source).get("weight_map")
    if not isinstance(found, Mapping):
        raise UserError(f"{source.name}: {INDEX} is damaged: it has no weight_map; fetch it again")
    for file in found.values():
        if not _is_shard_name(file):
            raise UserError(
                f"{source.name}: {INDEX} is damaged: it names {shown(file)} as a file of weights; "
                "fetch it again"
            )
    return dict(found)


def _is_shard_name(name: Any) -> bool:
    """Whether a name is that of a file in the checkpoint, of a length that file systems allow."""
    if not isinstance(name, str) or not name or not name.isprintable():
        return False
    parts = Path(name).parts
    return ".." not in parts and not Path(name).is_absolute() and max(map(len, parts)) <= 255


def read_index(source: Source) -> dict[str, Any]:
    """The index of the shards.

    Raises:
        UserError: it is damaged.
    """
    try:
        return read_json_object(source.directory / INDEX)
    except UserError as error:
        raise UserError(f"{source.name}: {error.typed}") from None


def _refuse_adapter(name: str, directory: Path) -> None:
    """Refuse an adapter: peft, where it is installed, would put it onto the model unasked."""
    path = directory / ADAPTER
    if not path.is_file():
        return
    base = read_json_object(path).get("base_model_name_or_path")
    base = shown(base) if isinstance(base, str) and base else "its base model"
    merge = (
        "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), "
        "DIRECTORY).merge_and_unload().save_pretrained(OTHER)"
    )
    if (directory / "config.json").is_file():
        raise UserError(
            f"{name}: {ADAPTER} lies beside config.json, and where peft is installed transformers "
            f"puts that adapter (of {base}) onto the model unasked; merge it ({merge}) and give "
            f"that directory, or move {ADAPTER} away to run the model without it"
        )
    raise UserError(
        f"{name}: the directory is a peft adapter of {base} ({ADAPTER} without config.json), and "
        f"no model; merge it into its base ({merge}, and the tokenizer likewise) and give OTHER"
    )


def _checked_directory(name: str, directory: Path, weights: bool) -> Source:
    _refuse_adapter(name, directory)
    if not (directory / "config.json").is_file():
        gguf = sorted(p.name for p in directory.glob("*.gguf"))
        hint = f"; name the file instead: {directory / gguf[0]}" if gguf else ""
        raise UserError(f"{name}: the directory has no config.json, so it is no model{hint}")
    source = Source(name, directory)
    if weights:
        check_weight_files(source)
    return source


def check_weight_files(source: Source) -> None:
    """Refuse a directory without safetensors.

    Raises:
        UserError: says how to convert pickles, where there are any.
    """
    if any(source.directory.glob("*.safetensors")):
        return
    pickles = sorted(p.name for p in source.directory.glob("*.bin"))
    if pickles:
        raise UserError(
            f"{source.name}: {pickles[0]} is a pickle, which can run code when it is loaded; "
            "convert it to safetensors (save_pretrained of a trusted copy) and give that directory"
        )
    raise UserError(
        f"{source.name}: the directory has no .safetensors files; give a full checkpoint"
    )


def _from_hub(name: str, revision: str | None, path: Path, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    near = near_matches(name, ["demo", *_cached_models()]) or _near_paths(path)
    try:
        small = Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
        if not weights or not (small / "config.json").is_file() or (small / ADAPTER).is_file():
            return small  # refused, if need be, before gigabytes are fetched
        # By name: a repository may hold the same weights a second time (consolidated.safetensors).
        own = [path.name for path in loaded_files(Source(name, small))] or [SINGLE]
        found = snapshot_download(name, revision=revision, allow_patterns=[*HUB_FILES, *own])
        return Path(found)
    except GatedRepoError:
        raise UserError(
            f"{name}: this model is gated; accept its terms on the hub and run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"{name}: no local directory and no model on the hub.{near}") from None
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{name}: not a local directory, and the hub cannot be reached "
            f"({type(error).__name__}); give the path of a downloaded model, or `demo`.{near}"
        ) from None


def _cached_models() -> list[str]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return [repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except CacheNotFound:
        return []


def _near_paths(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return near_matches(path.name, ["demo", *siblings])


def _digest(handle) -> bytes:
    """``hashlib.file_digest`` for Python 3.10."""
    digest = hashlib.sha256()
    while chunk := handle.read(1 << 20):
        digest.update(chunk)
    return digest.digest()


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        UserError: it cannot be read, is no JSON, is nested too deeply, or is no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise UserError(
            f"{path.name} is damaged: it is nested deeper than any such file; fetch it again"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path.name} is damaged ({error}); fetch it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path.name} is damaged: it is no JSON object; fetch it again")
    return found
