"""A model on a server: `transformers serve` with a tiny LLaVA, behind a proxy that makes faults."""

import email.utils
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from faulty_proxy import FaultyProxy, cut, delay, error, says
from PIL import Image
from tiny_describers import write_llava

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.describe import describe_images, missing_images
from mindspore_gpt4image.offline.journal import Journal
from mindspore_gpt4image.offline.local_model import LocalModel
from mindspore_gpt4image.offline.picture import Picture
from mindspore_gpt4image.offline.ranks import Ranks
from mindspore_gpt4image.offline.served_model import ServedModel
from mindspore_gpt4image.sources.descriptions import read_descriptions
from mindspore_gpt4image.sources.formats import list_images

DESCRIBE = Path(__file__).parents[2] / "tools" / "describe.py"
PROMPT = "Write a short sentence"
TOKENS = 6
KEY = "secret-of-the-tests"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_llava(tmp_path_factory.mktemp("model") / "llava")


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    """The base URL of a real server, started once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", model_folder]
    log = (tmp_path_factory.mktemp("server") / "log").open("w+")
    process = subprocess.Popen(
        [*map(str, command), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(600):
            assert process.poll() is None, log.seek(0) or log.read()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture(scope="module")
def module_proxy(server):
    proxy = FaultyProxy(server)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(module_proxy):
    module_proxy.reset()
    return module_proxy


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(12):
        path = root / "train" / "class" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 30, 3), np.uint8)).save(path)
    return list_images(root, "train")


@pytest.fixture
def client(proxy, model_folder):
    models = []

    def make(**options):
        options = {"workers": 4, "retries": 2, "max_tokens": TOKENS, "first_wait": 0.01, "key": KEY, **options}
        models.append(ServedModel(options.pop("url", proxy.url), str(model_folder), **options))
        return models[-1]

    yield make
    for model in models:
        model.close()


def ask(model, images, position=0):
    (answer,) = model.answers([Picture(images, position)], [PROMPT])
    return answer


def describe(images, model, output):
    journal = Journal(output, ["short"], Ranks())
    try:
        _, missing = missing_images([images], journal, Ranks())
        return describe_images(missing, model, {"short": PROMPT}, journal)
    finally:
        journal.close()


def test_a_server_gives_the_texts_of_the_same_model_here(client, proxy, model_folder, images, tmp_path):
    tally = describe(images, client(), tmp_path / "served.jsonl")
    here = LocalModel.load(model_folder, batch_size=5, max_tokens=TOKENS)
    local = describe(images, here, tmp_path / "local.jsonl")
    served = read_descriptions(tmp_path / "served.jsonl", "short")
    assert served == read_descriptions(tmp_path / "local.jsonl", "short")
    assert len(set(served.values())) > 3
    assert (tally.described, tally.cut, tally.failed) == (local.described, local.cut, 0)
    assert (tally.prompt_tokens, tally.tokens) == (local.prompt_tokens, local.tokens)
    assert 1 < proxy.most_at_once <= 4


def test_what_is_sent(client, proxy, images):
    ask(client(), images)
    ((_, body, headers),) = proxy.requests
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (body["temperature"], body["max_completion_tokens"]) == (0, TOKENS)
    picture, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": PROMPT}
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "fault",
    [error(500), error(503), error(429), error(408), cut, delay(0.2), says(""), says(None), says("I'm sorry, I can't")],
    ids=["500", "503", "429", "408", "cut", "delay", "empty", "null", "refused"],
)
def test_what_passes_is_tried_again(client, proxy, images, fault):
    expected = ask(client(), images)
    proxy.requests.clear()
    proxy.faults.append(fault)
    assert ask(client(), images) == expected
    assert len(proxy.requests) == (1 if "wait" in fault.__qualname__ else 2)


@pytest.mark.parametrize("by_date", [False, True], ids=["seconds", "date"])
def test_retry_after_is_honoured(client, proxy, images, by_date):
    told = email.utils.formatdate(time.time() + 2, usegmt=True) if by_date else "1"
    proxy.faults.append(error(429, retry_after=told))
    assert ask(client(), images).text
    (first, *_), (second, *_) = proxy.requests
    assert 0.9 <= second - first < 5


def test_a_slow_answer_is_given_up(client, proxy, images):
    proxy.faults.append(delay(3))
    assert ask(client(timeout=1), images).text
    assert len(proxy.requests) >= 2


@pytest.mark.parametrize(
    ("fault", "calls", "reason"),
    [
        (error(500), 3, "HTTP 500: fault 500, after 2 retries"),
        (error(429), 3, "HTTP 429: fault 429, after 2 retries"),
        (error(400), 1, "HTTP 400: fault 400"),
        (error(422), 1, "HTTP 422: fault 422"),
        (says("  "), 3, "empty answer"),
        (says("I cannot help with that."), 3, "refused: I cannot help with that."),
        (says(None, refusal="not this one"), 3, "refused: not this one"),
        (says("half a", "content_filter"), 3, "refused: content filter"),
    ],
)
def test_what_does_not_pass_is_the_image_s_fault(client, proxy, images, fault, calls, reason):
    proxy.faults.extend([fault] * calls)
    answer = ask(client(), images)
    assert answer.text == "" and reason in answer.fault
    assert len(proxy.requests) == calls
    assert ask(client(), images).text


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            error(401, message=f"wrong key: {KEY}"),
            r"refuses the key \(HTTP 401: wrong key: \*\*\*\); set OPENAI_API_KEY",
        ),
        (error(403), "refuses the key"),
        (error(429, code="insufficient_quota"), "HTTP 429: fault 429 .*run again later"),
        (error(429, retry_after="7200"), "Retry-After: 7200.*run again later"),
        (error(404), "has no model .*mend --model or --base-url"),
    ],
)
def test_what_would_fail_for_all_stops_all(client, proxy, images, tmp_path, fault, message):
    proxy.faults.extend([fault] * 50)
    with pytest.raises(UserError, match=message) as caught:
        describe(images, client(), tmp_path / "descriptions.jsonl")
    assert KEY not in str(caught.value)
    assert len(proxy.requests) < 12


def test_a_server_that_fails_for_all_stops_all(client, proxy, images):
    proxy.faults.extend([error(500)] * 100)
    model = client(workers=1, retries=0)
    with pytest.raises(UserError, match=r"10 images in a row failed \(last: HTTP 500: fault 500.*run again to go on"):
        for position in range(12):
            ask(model, images, position)


def test_no_server(client):
    with pytest.raises(UserError, match="http://127.0.0.1:9/v1: no server answers there"):
        client(url="http://127.0.0.1:9/v1")


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(proxy, model_folder, images, tmp_path):
    """The command line, killed twice while requests are in flight."""
    output = tmp_path / "descriptions.jsonl"
    command = [sys.executable, DESCRIBE, "--data", images.root, "--output", output, "--text", "short"]
    command += ["--prompt-short", PROMPT, "--base-url", proxy.url, "--model", model_folder, "--max-tokens", TOKENS]
    command = [*map(str, command), "--concurrency", "2"]
    environment = {**os.environ, "OPENAI_API_KEY": KEY}
    for lines in (3, 7):
        proxy.faults.extend([delay(0.2)] * 100)
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < lines):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL if lines == 3 else signal.SIGTERM)
        _, told = process.communicate()
        assert process.returncode == (-signal.SIGKILL if lines == 3 else 128 + signal.SIGTERM)
        assert lines <= output.read_bytes().count(b"\n") < len(images)
        assert KEY not in told and "Traceback" not in told
        proxy.faults.clear()
    torn = output.read_bytes()[:-5]
    output.write_bytes(torn)
    proxy.requests.clear()
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(proxy.requests) == len(images) - torn.count(b"\n")
    texts = read_descriptions(output, "short")
    assert sorted(texts) == images.ids
    assert f"{torn.count(chr(10).encode())} of 12 images are described already" in result.stdout
    assert " tokens read, " in result.stdout
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.stdout == f"{output}: all 12 images are described already\n"
    assert json.loads(output.read_text().splitlines()[0])["id"] in images.ids
