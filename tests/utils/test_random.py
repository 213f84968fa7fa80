"""Streams of one's own behind the global generator."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sk_asd.utils._random import RandomStream


def _draw(stream, n):
    with stream.active():
        return torch.rand(n).tolist()


def test_a_stream_continues_where_it_was():
    one, two = RandomStream(3), RandomStream(3)
    pieces = _draw(one, 2)
    torch.rand(10)
    pieces += _draw(one, 2)
    with two.active():
        assert pieces == torch.rand(2).tolist() + torch.rand(2).tolist()


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(1).item()
    torch.manual_seed(0)
    _draw(RandomStream(3), 5)
    assert torch.rand(1).item() == expected
    torch.manual_seed(0)
    with pytest.raises(ZeroDivisionError), RandomStream(3).active():
        torch.rand(3) / (1 // 0)
    assert torch.rand(1).item() == expected


def test_streams_in_threads_do_not_mix():
    def many(seed):
        stream = RandomStream(seed)
        return [_draw(stream, 1)[0] for _ in range(200)]

    expected = [many(0), many(1)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(many, (0, 1))) == expected
