"""Compares ids with Hugging Face's `tokenizers`, or with SentencePiece, over far more texts than the fixtures hold.

    python test/interop/tokenizer_ids.py TOKENIZER_FOLDER_OR_MODEL [CORPUS_FOLDER]

Texts: random mixtures; every code point below U+20000 and some above, between letters, spaces and digits; very long words; and the
texts of the .jsonl.gz files in CORPUS_FOLDER. Needs `tokenizers` or `sentencepiece`, and Node as `node`.
SentencePiece has one reading of special tokens only: as text.
"""

import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer

HERE = Path(__file__).parent
WORDS = ["foo", "the", "Straße", "привет", "日本語", "カタカナ", "don't", "</s>", "<s>", "<0x41>", "▁", "😀👩‍👩‍👧", "é"]
BLANKS = ["\n", "\r\n", "\t", "\u3000", "\u00a0", "\n\n", " \n", "\v"]
MAKERS = [
    lambda r: " " * r.randrange(5),
    lambda r: r.choice(BLANKS),
    lambda r: str(r.randrange(1000)),
    lambda r: r.choice(WORDS),
    lambda r: chr(33 + r.randrange(94)),
    lambda r: chr(r.randrange(0xD800)),
    lambda r: chr(r.randrange(0xE000, 0x110000)),
    lambda r: chr(r.randrange(0x250)),
]


def make_texts(corpus):
    generator = random.Random(1)
    texts = ["".join(generator.choice(MAKERS)(generator) for _ in range(generator.randrange(40))) for _ in range(20_000)]
    code_points = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 97)]
    texts += [f"a{chr(c)}b {chr(c)} 1" for c in code_points]
    texts += [" " * 3000 + "x", "a" * 5000, "日本" * 2000, "\n" * 500 + "  b", "-=" * 3000]
    for path in sorted(corpus.glob("*.jsonl.gz")) if corpus else []:
        with gzip.open(path, "rt", encoding="utf8", newline="\n") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    return texts


def official_readings(path):
    """Functions from a text to its ids: special tokens read as text, and parsed."""
    if path.suffix == ".model":
        return [sentencepiece.SentencePieceProcessor(model_file=str(path)).encode]
    official = Tokenizer.from_file(str(path))

    def encode(text, special_as_text):
        official.encode_special_tokens = special_as_text
        return official.encode(text, add_special_tokens=False).ids

    return [lambda text: encode(text, True), lambda text: encode(text, False)]


def main():
    given = Path(sys.argv[1])
    path = given / "tokenizer.json" if given.is_dir() else given
    texts = make_texts(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    with tempfile.TemporaryDirectory() as folder:
        for file in (path, path.with_name("tokenizer_config.json")):
            if file.exists():
                shutil.copy(file, folder)
        (Path(folder) / "texts.json").write_text(json.dumps(texts), encoding="utf8")
        lines = subprocess.run(["node", HERE / "tokenizerIds.ts", folder], check=True, stdout=subprocess.PIPE).stdout
    ours = [json.loads(line) for line in lines.decode().splitlines()]
    different = 0
    readings = official_readings(path)
    for reading, encode in enumerate(readings):
        for text, ids in zip(texts, ours, strict=True):
            if encode(text) != ids[reading]:
                different += 1
                print(f"differs: {ascii(text)[:100]}")
    print(f"{len(texts)} texts in {len(readings)} readings, {different} different")
    sys.exit(different > 0)


main()
