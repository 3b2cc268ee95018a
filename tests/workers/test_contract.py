"""What holds for the proxy holds at a front: cases of the contract, asked where the main process does not listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.conftest import Proxy
from tests.contract.test_a_transparent import (  # noqa: F401 - collected here
    test_delete_carries_its_body,
    test_expecting_upload_gets_100_then_201_and_a_known_blob_no_100,
    test_head_of_root_keeps_the_length_and_has_no_body,
    test_large_chunked_upload_is_streamed_in_flat_memory,
    test_leaving_during_a_pull_stops_it,
    test_progress_lines_of_a_pull_arrive_as_they_are_made,
    test_redirect_of_a_post_is_passed_and_not_followed,
    test_target_reaches_upstream_byte_for_byte,
    test_unknown_path_is_404_in_ollamas_words,
)
from tests.contract.test_c_chat import (  # noqa: F401
    test_a_repeated_stream_comes_from_the_cache_line_by_line,
    test_any_spelling_of_the_model_hits_and_is_echoed,
    test_keep_alive_zero_on_a_hit_still_unloads_the_model,
)
from tests.contract.test_h_storing import (  # noqa: F401
    test_a_reply_that_is_cut_off_is_cut_off_for_the_caller_too,
    test_the_only_caller_leaving_ends_the_call_to_ollama,
)
from tests.contract.test_i_models import (  # noqa: F401
    test_a_new_version_counts_before_a_client_can_read_that_it_is_there,
    test_creating_a_model_anew_ends_its_hits,
)
from tests.contract.test_k_http import (  # noqa: F401
    test_hop_by_hop_headers_are_not_forwarded,
    test_http_1_0_client_gets_an_unframed_body_and_a_close,
    test_page_that_may_not_call_gets_an_empty_403_and_ollama_no_request,
    test_pipelined_requests_are_answered_while_a_model_is_busy,
    test_rebound_host_is_refused,
    test_upstream_sees_its_own_host_whatever_the_client_called_the_proxy,
)
from tests.fakes.house import House, open_house
from tests.fakes.ollama import FakeOllama
from tests.fakes.redis_server import RedisServer

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def house(fake_ollama: FakeOllama, clean_redis: RedisServer) -> AsyncIterator[House]:
    """A house whose front alone listens."""
    server, upstream = {"workers": 2}, {"digest_ttl": 60}  # the cases count requests: none of our own between theirs
    async with open_house(fake_ollama, clean_redis, ready=False, server=server, upstream=upstream) as opened:
        async with asyncio.timeout(60):
            await opened.app.wait_ready(60)
        assert opened.app.fronts.up == 1
        opened.app._proxy._site._server.close()  # type: ignore[union-attr]  # it is open
        yield opened


@pytest_asyncio.fixture
async def proxy(house: House) -> Proxy:
    """As the contract's cases know it."""
    return Proxy(house.port)
