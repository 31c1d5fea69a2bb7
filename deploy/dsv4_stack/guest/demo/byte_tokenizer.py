"""The demo's tokenizer: byte-level BPE without merges, so that a token is a byte and its id is the byte's value."""

from typing import Final

Json = dict[str, object]

_BYTE_LEVEL: Final[Json] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}

CONFIG: Final[Json] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
}


def tokenizer() -> Json:
    """tokenizer.json, https://huggingface.co/docs/tokenizers"""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": _BYTE_LEVEL,
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {symbol: byte for byte, symbol in enumerate(_symbols())},
            "merges": [],
        },
    }


def _symbols() -> list[str]:
    """GPT-2's printable stand-in for each byte: itself where it prints, else a letter from U+0100 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    stand_ins = {byte: 0x100 + place for place, byte in enumerate(hidden)}
    return [chr(stand_ins.get(byte, byte)) for byte in range(256)]
