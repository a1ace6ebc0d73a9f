"""Compares ids with Hugging Face's `tokenizers` on any tokenizer that Nautilus trained, over far more texts than the fixture holds.

    python test/interop/tokenizer_ids.py TOKENIZER_FOLDER [CORPUS_FOLDER]

Texts: random mixtures; every code point below U+20000 and some above, between letters, spaces and digits; very long words; and the
texts of the .jsonl.gz files in CORPUS_FOLDER. Needs `tokenizers`, and Node as `node`.
"""

import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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


def main():
    texts = make_texts(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    official = Tokenizer.from_file(str(Path(sys.argv[1]) / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(Path(sys.argv[1]) / "tokenizer.json", folder)
        (Path(folder) / "texts.json").write_text(json.dumps(texts), encoding="utf8")
        lines = subprocess.run(["node", HERE / "tokenizerIds.ts", folder], check=True, stdout=subprocess.PIPE).stdout
    ours = [json.loads(line) for line in lines.decode().splitlines()]
    different = 0
    for reading, special_as_text in enumerate((True, False)):
        official.encode_special_tokens = special_as_text
        for text, ids in zip(texts, ours, strict=True):
            if official.encode(text).ids != ids[reading]:
                different += 1
                print(f"differs: {ascii(text)[:100]}")
    print(f"{len(texts)} texts in two readings, {different} different")
    sys.exit(different > 0)


main()
