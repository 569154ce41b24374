"""The tokenizer: byte-level byte-pair encoding, trained on the train text alone and kept as plain JSON.

Sources: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; Radford et al. 2019 for
pairs of bytes. Words are told apart as GPT-4 does, with at most two digits together: of 8,192 tokens, a thousand would
go to numbers of three. Id 0 begins a document and stands for no byte; what looks like it in a text is text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.nanochat.prepare import PrepareError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
TOKEN_BYTES = "token_bytes.npy"
BOS, BOS_NAME = 0, "<|bos|>"
SPELLED = 16  # bytes of a token that a candidate is told
SMALLEST = 257  # every byte and BOS
WORDS = "|".join(
    (
        r"'(?i:[sdmt]|ll|ve|re)",
        r"[^\r\n\p{L}\p{N}]?+\p{L}+",
        r"\p{N}{1,2}",
        r" ?[^\s\p{L}\p{N}]++[\r\n]*",
        r"\s*[\r\n]",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def train(samples: Iterable[str], vocabulary: int) -> Tokenizer:
    """Raises PrepareError where the text does not hold so many different pairs."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if not SMALLEST <= vocabulary <= 1 << 16:
        raise PrepareError(f"A vocabulary of {vocabulary} tokens cannot be: {SMALLEST} to 65,536.")
    tokenizer = Tokenizer(models.BPE())
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(WORDS), "isolated"), bytes_of_words])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[BOS_NAME], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(samples, trainer)
    if (found := tokenizer.get_vocab_size()) != vocabulary:
        raise PrepareError(f"Too little text: it makes {found:,} of {vocabulary:,} tokens. Give more text to train on.")
    return tokenizer


def load(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / TOKENIZER))


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.uint16]]:
    """Tokens of each text, BOS first. On all cores that the library finds; it lets other threads run meanwhile."""
    tokenizer.encode_special_tokens = True  # a text that names BOS means these letters
    found = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array([BOS, *one.ids], dtype=np.uint16) for one in found]


def token_texts(folder: Path) -> list[bytes]:
    """The bytes that each token stands for, by id; none for BOS. Read from the JSON: the library is not needed."""
    vocabulary = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))["model"]["vocab"]
    of_letter = _byte_of_letter()
    texts = [b""] * len(vocabulary)
    for token, number in vocabulary.items():
        if number != BOS:
            texts[number] = bytes(of_letter[letter] for letter in token)
    return texts


def token_bytes(folder: Path) -> NDArray[np.uint16]:
    """How many bytes each token stands for, [V]."""
    return np.array([len(text) for text in token_texts(folder)], dtype=np.uint16)


def spellings(folder: Path) -> NDArray[np.uint8]:
    """The bytes of each token, uint8 [V, SPELLED], zeros behind the last; what is longer is cut. Without a
    tokenizer there are none, [0, SPELLED]."""
    texts = token_texts(folder) if (folder / TOKENIZER).is_file() else []
    spelled = b"".join(text[:SPELLED].ljust(SPELLED, b"\0") for text in texts)
    return np.frombuffer(spelled, dtype=np.uint8).reshape(-1, SPELLED)


def _byte_of_letter() -> dict[str, int]:
    """Byte-level tokens are written in letters that print: bytes that do are themselves, the others follow from 256."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + number): byte for number, byte in enumerate(hidden)}
