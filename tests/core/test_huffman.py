"""Blocks of Huffman codes, judged by zlib: the bytes come back, whatever the sample, in about their entropy."""

import zlib

import numpy as np
import pytest

from medwave.core.huffman import STREAM_END, HuffmanCode

RANDOM = np.random.default_rng(7)


def unpacked(*blocks: bytes) -> bytes:
    return zlib.decompress(b"".join(blocks) + STREAM_END, -zlib.MAX_WBITS)


def entropy_bytes(values):
    share = np.bincount(values, minlength=256) / len(values)
    share = share[share > 0]
    return -len(values) * (share * np.log2(share)).sum() / 8


@pytest.mark.parametrize("count", [0, 2, 4, 258, 260, 262, 516, 520, 5000])
@pytest.mark.parametrize("kind", ["even", "noise", "zeros", "mostly zeros", "no zeros"])
def test_zlib_reads_every_byte(count, kind):
    values = {
        "even": RANDOM.integers(0, 256, count),
        "noise": np.rint(RANDOM.normal(0, 2, count)).astype(int) & 255,
        "zeros": np.zeros(count),
        "mostly zeros": np.where(RANDOM.random(count) < 0.003, 9, 0),
        "no zeros": np.full(count, 255),
    }[kind].astype(np.uint8)
    for sample in (values, values[:0], np.zeros(90_000, np.uint8), np.array([3], np.uint8)):
        assert unpacked(HuffmanCode(sample).block(values)) == values.tobytes()


def test_blocks_follow_each_other_in_one_stream():
    values = RANDOM.integers(0, 9, 3000, dtype=np.uint8)
    code = HuffmanCode(values)
    blocks = [code.block(values[a:b]) for a, b in ((0, 2), (2, 1000), (1000, 3000))]
    assert unpacked(*blocks, HuffmanCode(values[:5]).block(values)) == values.tobytes() * 2


def test_noise_takes_about_its_entropy_and_zeros_next_to_nothing():
    noise = (np.rint(RANDOM.normal(0, 8, 400_000)).astype(int) & 255).astype(np.uint8)
    assert len(HuffmanCode(noise[::10]).block(noise)) < 1.05 * entropy_bytes(
        noise
    )  # at most 12 bits each, and room for the bytes that never come
    zeros = np.zeros(1_000_000, np.uint8)
    assert len(HuffmanCode(noise).block(zeros)) < 7000  # 13 bits for 258 of them


def test_a_skewed_sample_gives_no_code_that_is_too_long():
    """Counts that grow like Fibonacci's numbers would need codes of 255 bits."""
    counts = np.minimum(1.6 ** np.arange(40), 100_000).astype(int)
    sample = np.repeat(np.arange(40), counts).astype(np.uint8)
    values = RANDOM.permutation(np.arange(1000) % 256).astype(np.uint8)
    assert unpacked(HuffmanCode(sample).block(values)) == values.tobytes()
