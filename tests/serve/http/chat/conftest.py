"""OpenAI's client before the test server, and the name of its model."""

import openai
import pytest
from openai_client import client_of
from served import Served


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return client_of(server)


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    (only,) = client.models.list()
    return only.id
