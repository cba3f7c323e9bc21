"""Tokenizer folders with tiny vocabularies, trained on the spot."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TEXTS = [
    "a photo of a cat left of a pizza, on a blue background",
    "Ünïcode ﬁ ligatures ①② and naïve café",
    "the quick brown fox jumps over the lazy dog! 12 34",
    "hello world 你好 世界",
    "emoji 😀 and more words, with commas.",
    "it's, we're, don't; (masterpiece:1.2) [[blurry]]",
]
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_folder(folder: Path, *, pad: object = END, merges: int = 120, **config: Any) -> Path:
    """`vocab.json`, `merges.txt` and the two configuration files, as Stable Diffusion's folders have them."""
    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300 + merges,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text.lower() for text in TEXTS], trainer)
    rules = json.loads(backend.to_str())["model"]
    pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in rules["merges"]]
    letters = list(rules["vocab"])[:256]
    vocabulary = {token: None for token in [*letters, *(f"{letter}</w>" for letter in letters)]}
    vocabulary |= {"".join(pair): None for pair in pairs} | {START: None, END: None}
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: i for i, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rule = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    token = {"__type": "AddedToken", **rule}
    settings = {
        "bos_token": {"content": START, **token},
        "eos_token": {"content": END, **token},
        "unk_token": {"content": END, **token},
        "pad_token": pad,
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
        **config,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def t5_folder(folder: Path, *, pieces: int = 110, extra: int = 20) -> Path:
    """`spiece.model` and `tokenizer_config.json`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        vocab_size=pieces,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    settings = {"extra_ids": extra, "model_max_length": 512, "tokenizer_class": "T5Tokenizer"}
    settings |= {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
