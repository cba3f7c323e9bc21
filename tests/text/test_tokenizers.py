"""Tokenizers against transformers, id for id, and what broken files are answered with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_tokenizers import END, START, TEXTS, clip_folder, files, t5_folder

from pictura.errors import PresetError
from pictura.text import sentencepiece
from pictura.text.tokenizer import Tokenizer
from pictura.text.tokenizer_files import clip, from_files

transformers = pytest.importorskip("transformers")

# Words of the training texts, and whatever Unicode has: controls, combining marks, emoji, odd spaces.
words = st.sampled_from([*" ".join(TEXTS).split(), START, END, "</s>", "<extra_id_3>", "!", "\u3000", "\x85"])
prompts = st.lists(st.one_of(words, st.text(max_size=12)), max_size=40).map(" ".join)
prompts = prompts.filter(lambda text: "\0" not in text)
often = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ours(folder: Path) -> Tokenizer:
    return Tokenizer(from_files(files(folder)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Any, int]]:
    root = tmp_path_factory.mktemp("tokenizers")
    bare = {"bos_token": START, "eos_token": END, "unk_token": END}
    made = {
        "clip-l": clip_folder(root / "l"),
        "clip-g": clip_folder(root / "g", pad="!"),
        "bare": clip_folder(root / "bare", merges=40, **bare),
        "t5": t5_folder(root / "t5"),
        "t5 without spares": t5_folder(root / "t5b", pieces=90, extra=0),
    }
    pairs = {}
    for name, folder in made.items():
        kind = transformers.T5Tokenizer if "t5" in name else transformers.CLIPTokenizer
        theirs = kind.from_pretrained(folder)
        pairs[name] = ours(folder), theirs, 40 if "t5" in name else 77
        theirs.save_pretrained(root / "again" / name)  # the same as tokenizer.json
        pairs[f"{name} again"] = ours(root / "again" / name), theirs, 33
    return pairs


NAMES = ["clip-l", "clip-g", "bare", "t5", "t5 without spares"]


@pytest.mark.parametrize("name", [*NAMES, *(f"{name} again" for name in NAMES)])
@often
@given(prompt=prompts)
def test_ids_equal_those_of_transformers(folders: Any, name: str, prompt: str) -> None:
    tokenizer, theirs, length = folders[name]
    expected = theirs(prompt, padding="max_length", truncation=True, max_length=length).input_ids
    assert tokenizer.padded(tokenizer.encode(prompt), length) == tuple(expected)
    assert tokenizer.encode(prompt) == tuple(theirs(prompt, add_special_tokens=False).input_ids)


@often
@given(prompt=prompts)
def test_t5_ids_equal_those_of_sentencepiece(folders: Any, prompt: str) -> None:
    import sentencepiece as reference

    tokenizer, theirs, _ = folders["t5"]
    spared = prompt.replace("<", " ").replace("▁", " ")  # special tokens are transformers' own matter
    processor = reference.SentencePieceProcessor(model_proto=files(Path(theirs.name_or_path))["spiece.model"])
    if not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or ord(c) > 0xFFFF for c in spared):
        assert list(tokenizer.encode(spared)) == processor.encode(spared)


def test_pads_and_ends(folders: Any) -> None:
    first, second, t5 = (folders[name][0] for name in ("clip-l", "clip-g", "t5"))
    assert first.pad == first.end and second.pad == 0 and (t5.pad, t5.start, t5.end) == (0, (), 1)
    assert first.room(77) == 75 and t5.room(256) == 255


def test_the_published_vocabulary_of_clip() -> None:
    tokenizer = Tokenizer(clip())
    # Known encodings of OpenAI's tokenizer.
    assert tokenizer.padded(tokenizer.encode("a photo of a cat"), 8) == (
        49406, 320, 1125, 539, 320, 2368, 49407, 49407,
    )  # fmt: skip
    assert tokenizer.encode("a diagram") == (320, 22697)
    assert tokenizer.encode("Hello, World!") == (3306, 267, 1002, 256)
    assert tokenizer.size == 49408 and tokenizer.comma == 267
    assert Tokenizer(clip("!")).padded((), 4) == (49406, 49407, 0, 0)
    assert tokenizer.decode(tokenizer.encode("a  Photo of   a cat")) == "a photo of a cat"


@pytest.mark.parametrize("pad", [END, "!"])
def test_the_published_vocabulary_as_transformers_reads_it(tmp_path: Path, pad: str) -> None:
    rules = json.loads(clip(pad))
    (tmp_path / "vocab.json").write_text(json.dumps(rules["model"]["vocab"]))
    lines = ["#version: 0.2", *map(" ".join, rules["model"]["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path, pad_token=pad)
    tokenizer = Tokenizer(clip(pad))
    draw = random.Random(0)
    for _ in range(200):
        text = " ".join(draw.choices([*" ".join(TEXTS).split(), "masterpiece", "8k", "🐱", "ΣΑΣ"], k=9))
        expected = theirs(text, padding="max_length", truncation=True, max_length=20).input_ids
        assert tokenizer.padded(tokenizer.encode(text), 20) == tuple(expected)


def test_a_piece_may_hold_what_json_must_escape(tmp_path: Path) -> None:
    data = files(t5_folder(tmp_path))["spiece.model"]
    assert Tokenizer(from_files({"spiece.model": data})).encode('\\ " \x07') is not None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"vocab.json": b"{}"},
        {"vocab.json": b"{}", "merges.txt": b""},
        {"vocab.json": b"[1]", "merges.txt": b""},
        {"vocab.json": b"\xff", "merges.txt": b""},
        {"vocab.json": b'{"<|startoftext|>": "0", "<|endoftext|>": 1}', "merges.txt": b""},
        {"vocab.json": b'{"<|startoftext|>": 0, "<|endoftext|>": 1}', "merges.txt": b"a b c"},
        {"vocab.json": b'{"<|startoftext|>": 0, "<|endoftext|>": 1}', "merges.txt": b"a b"},
        {"vocab.json": b"[" * 100_000, "merges.txt": b""},
        {"tokenizer.json": b"{"},
        {"tokenizer.json": b"{}"},
        {"tokenizer.json": b"[]"},
        {"tokenizer.json": b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}'},
        {"tokenizer.json": b'{"model": [], "added_tokens": 3}', "tokenizer_config.json": b"{}"},
        {"spiece.model": b""},
        {"spiece.model": b"\x0a"},
        {"spiece.model": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
        {"spiece.model": b"\xff" * 30},
        {"spiece.model": b"\x08\x01" * 9},
        {"spiece.model": b"\x0a\x02\x0a\x00" * 9},
    ],
)  # fmt: skip
def test_broken_files_are_refused_in_a_sentence(given: dict[str, bytes]) -> None:
    with pytest.raises(PresetError) as caught:
        from_files(given)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_model_is_refused_or_read(folders: Any, data: st.DataObject) -> None:
    whole = files(Path(folders["t5"][1].name_or_path))["spiece.model"]
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = bytearray(whole[: data.draw(st.sampled_from([at, len(whole)]))])
    if at < len(cut):
        cut[at] = data.draw(st.integers(0, 255))
    try:
        from_files({"spiece.model": bytes(cut)})
    except PresetError:
        pass


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    import io

    import sentencepiece as reference

    model = io.BytesIO()
    reference.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5), model_writer=model, vocab_size=90, model_type="bpe", minloglevel=2,
        num_threads=1,
    )  # fmt: skip
    with pytest.raises(PresetError, match="unigram"):
        sentencepiece.read(model.getvalue())
    with pytest.raises(PresetError, match="bytes"):
        sentencepiece.read(bytes(64 * 2**20 + 1))
