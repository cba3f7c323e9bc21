"""From the files of a model's tokenizer to the one JSON that `tokenizer.Tokenizer` takes.

The rules are those that transformers applies to the same files.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files as resources
from typing import Any

from pictura.errors import PresetError, shown
from pictura.text import sentencepiece
from pictura.text.tokenizer import Tokenizer

__all__ = ["clip", "from_files", "to_files"]

START, END = "<|startoftext|>", "<|endoftext|>"
# One word at a time: what stands between two matches is dropped.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def from_files(files: Mapping[str, bytes]) -> bytes:
    """The JSON for a tokenizer folder's files by name: `tokenizer.json`, or CLIP's `vocab.json` and
    `merges.txt`, or T5's `spiece.model`; with `tokenizer_config.json` and `special_tokens_map.json` if there,
    or what KerasHub says of CLIP's as `keras.json`.

    PresetError where nothing usable is among them.
    """
    config = {
        **_object(files, "special_tokens_map.json"),
        **_object(files, "tokenizer_config.json"),
    }
    if "tokenizer.json" in files:
        rules = _object(files, "tokenizer.json")
    elif "vocab.json" in files and "merges.txt" in files:
        vocabulary = _object(files, "vocab.json")
        rules = _clip_rules(vocabulary, _merges(files["merges.txt"]), config)
        said = _object(files, "keras.json").get("config")
        if isinstance(said, dict) and not said.get("pad_with_end_token"):
            first = next((token for token, i in vocabulary.items() if i == 0), None)
            rules["padding"] = None if first is None else _padding(first, 0)
    elif "spiece.model" in files:
        rules = _t5_rules(sentencepiece.read(files["spiece.model"]), config)
    else:
        raise PresetError(
            f"there is no tokenizer among {shown(sorted(files))}; "
            "give tokenizer.json, vocab.json with merges.txt, or spiece.model"
        )
    tokenizer = Tokenizer(_dumped(rules))  # what cannot be used is told here
    pad = _content(config.get("pad_token"))
    number = None if pad is None else tokenizer.id_of(pad)
    if rules.get("padding") is None and number is not None:
        rules["padding"] = _padding(pad, number)
    return _dumped(rules)


def to_files(data: bytes, kind: str) -> dict[str, bytes]:
    """The files of a tokenizer of transformers' class `kind`, "CLIPTokenizer" or "T5TokenizerFast", by name:
    what `from_files` makes `data` of again."""
    rules = json.loads(data)
    clips = kind == "CLIPTokenizer"
    pad = (rules.get("padding") or {}).get("pad_token")
    usual = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END, "model_max_length": 77}
    if not clips:
        usual = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "model_max_length": 512}
    config = {"tokenizer_class": kind, **usual, **({"pad_token": pad} if pad else {})}
    found = {"tokenizer.json": data, "tokenizer_config.json": _dumped(config)}
    if clips:  # older readers want them
        pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in rules["model"]["merges"])
        found["vocab.json"] = _dumped(rules["model"]["vocab"])
        found["merges.txt"] = "\n".join(["#version: 0.2", *pairs, ""]).encode()
    return found


@cache
def clip(pad: str = END) -> bytes:
    """The JSON for CLIP's published vocabulary, which all CLIP encoders share. OpenAI's CLIP-L pads with the
    end token, OpenCLIP's H and bigG with `pad="!"`, which is id 0."""
    packed = (resources("pictura.text") / "clip_merges.txt.xz").read_bytes()
    merges = [tuple(line.split(" ")) for line in lzma.decompress(packed).decode().splitlines()]
    letters = list(_byte_letters())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END]
    token = {"content": END, "normalized": True}
    config = {
        "bos_token": {**token, "content": START},
        "eos_token": token,
        "unk_token": token,
        "pad_token": pad,
    }
    ids = {token: i for i, token in enumerate(tokens)}
    return _dumped({**_clip_rules(ids, merges, config), "padding": _padding(pad, ids[pad])})


def _byte_letters() -> Iterable[str]:
    """A printable letter for each byte, in the order of CLIP's vocabulary: printable bytes stand for
    themselves and come first, the others have letters from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return map(chr, [*plain, *range(0x100, 0x100 + 256 - len(plain))])


def _clip_rules(
    vocabulary: Mapping[str, Any], merges: Sequence[Sequence[str]], config: Mapping[str, Any]
) -> dict[str, Any]:
    named = {role: _content(config.get(role)) for role in _ROLES}
    start, end = named["bos_token"] or START, named["eos_token"] or END
    full = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END, **config}
    for token in (start, end):
        if not isinstance(vocabulary.get(token), int):
            raise PresetError(
                f"vocab.json has no token {shown(token)}, which stands around every text; add it"
            )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(full, vocabulary),
        "normalizer": _sequence(
            "normalizers",
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ),
        "pre_tokenizer": _sequence(
            "pretokenizers",
            {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ),
        "post_processor": {
            "type": "RobertaProcessing", "sep": [end, vocabulary[end]], "cls": [start, vocabulary[start]],
            "trim_offsets": False, "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": named["unk_token"] or END,
            "continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "fuse_unk": False,
            "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }  # fmt: skip


def _t5_rules(model: sentencepiece.Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As transformers reads T5's file: the unknown token is the third, a hundred spare tokens at the end."""
    extra = config.get("extra_ids", 100)
    if not isinstance(extra, int) or not 0 <= extra <= 100_000:
        raise PresetError(f"extra_ids of the tokenizer is {shown(extra)}; give a whole number from 0")
    spare = [f"<extra_id_{i}>" for i in reversed(range(extra))]
    pieces: list[list[Any]] = [[piece, score] for piece, score in model.pieces]
    pieces += [[name, 0.0] for name in spare]
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    named = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", **config}
    end = _content(named["eos_token"]) or "</s>"
    if end not in ids:
        raise PresetError(
            f"spiece.model has no token {shown(end)}, which stands at every end; it is not T5's"
        )
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    normal = model.charsmap and {"type": "Precompiled", "precompiled_charsmap": model.charsmap}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added({**named, "additional_special_tokens": spare}, ids),
        "normalizer": normal or None,
        "pre_tokenizer": _sequence("pretokenizers", {"type": "WhitespaceSplit"}, space),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}},
            ],
            "special_tokens": {end: {"id": end, "ids": [ids[end]], "tokens": [end]}},
        },
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False},
    }  # fmt: skip


def _added(config: Mapping[str, Any], ids: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tokens that are found in a text before anything else happens to it, in the order of their ids. What the
    configuration says last of a token holds; a bare name is looked for in the text as it was written."""
    found: dict[int, dict[str, Any]] = {}
    listed = config.get("additional_special_tokens") or config.get("extra_special_tokens") or ()
    said = [config.get(role) for role in _ROLES]
    for token in [*said, *(listed if isinstance(listed, (list, tuple)) else ())]:
        content = _content(token)
        if content is not None and isinstance(ids.get(content), int):
            rules = token if isinstance(token, dict) else {}
            flags = {
                name: bool(rules.get(name)) for name in ("single_word", "lstrip", "rstrip", "normalized")
            }
            found[ids[content]] = {"id": ids[content], "content": content, **flags, "special": True}
    return [found[i] for i in sorted(found)]


def _padding(token: str | None, number: int) -> dict[str, Any]:
    """The library's rule for filling up with `token`, whose id is `number`."""
    return {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": number, "pad_type_id": 0, "pad_token": token,
    }  # fmt: skip


def _dumped(rules: Mapping[str, Any]) -> bytes:
    return json.dumps(rules, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _sequence(kind: str, *steps: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", kind: list(steps)}


def _content(token: object) -> str | None:
    """The text of a token in a configuration: bare, or an object that also says how it is looked for."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def _merges(data: bytes) -> list[tuple[str, ...]]:
    lines = _decoded("merges.txt", data).split("\n")
    pairs = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    for pair in pairs:
        if len(pair) != 2:
            raise PresetError(
                f"merges.txt has the line {shown(' '.join(pair))}; each is two tokens and a space"
            )
    return pairs


def _object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in files:
        return {}
    try:
        value = json.loads(_decoded(name, files[name]))
    except (ValueError, RecursionError) as error:
        raise PresetError(
            f"{name} of the tokenizer is not JSON ({shown(str(error))}); get it anew"
        ) from error
    if not isinstance(value, dict):
        raise PresetError(f"{name} of the tokenizer is {shown(value)}; it must be a JSON object")
    return value


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PresetError(f"{name} of the tokenizer is no UTF-8 text; get it anew") from error
