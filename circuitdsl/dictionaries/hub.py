"""Files that the Hugging Face hub's cache holds; nothing is downloaded."""

from __future__ import annotations

import re
from pathlib import Path

from circuitdsl.brief import quoted
from circuitdsl.dictionaries.record import DictionaryError

_NAME = re.compile(r"(?:hf://)?([\w.-]+)/([\w.-]+)((?:/[\w.,=+-]+)*)/?(?:(?:@|\?revision=)([\w./-]+))?", re.ASCII)


def in_hub_cache(name: str) -> Path:
    """What `owner/repository/path` or `hf://owner/repository/path?revision=main` is in the cache.

    Raises:
        DictionaryError: it is not there.
    """
    from huggingface_hub import constants

    found = _NAME.fullmatch(name)
    if found is None or ".." in name:
        raise DictionaryError(f"there is no dictionary {quoted(repr(name))}, and this is no name on the hub")
    owner, repo, inside, revision = found.groups()
    folder = Path(constants.HF_HUB_CACHE) / f"models--{owner}--{repo}"
    wanted, inside = revision or "main", inside.strip("/")
    reference = folder / "refs" / wanted
    commit = reference.read_text().strip() if reference.is_file() else wanted
    place = folder / "snapshots" / commit
    path = place / inside if inside else place
    if re.fullmatch(r"[\w.-]+", commit, re.ASCII) and path.exists():
        return path
    get = f"hf download {owner}/{repo}" + (f" --include '{inside}*'" if inside else "")
    looked = f"there is no {quoted(name)} here, nor in the hub's cache ({constants.HF_HUB_CACHE})"
    raise DictionaryError(looked, hint=get)
